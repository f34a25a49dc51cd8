// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The state machine of VFIO under requests that no program makes. Mappings never overlap, each is
// unmapped as it was mapped (Program checks both), and nothing is left when every file is closed.
#include "machine/vfio_host/uapi.hpp"
#include "run/model_program.hpp"
#include "run/vfio_kernel/vfio_kernel.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace {

using namespace moat;
using tests::Program;
namespace uapi = machine::vfio_host::uapi;

constexpr std::array<unsigned long, 35> requests = {VFIO_GET_API_VERSION,
                                                    VFIO_CHECK_EXTENSION,
                                                    VFIO_SET_IOMMU,
                                                    VFIO_SET_IOMMU,
                                                    VFIO_GROUP_GET_STATUS,
                                                    VFIO_GROUP_SET_CONTAINER,
                                                    VFIO_GROUP_SET_CONTAINER,
                                                    VFIO_GROUP_UNSET_CONTAINER,
                                                    VFIO_GROUP_GET_DEVICE_FD,
                                                    VFIO_GROUP_GET_DEVICE_FD,
                                                    VFIO_DEVICE_GET_INFO,
                                                    VFIO_DEVICE_GET_REGION_INFO,
                                                    VFIO_DEVICE_GET_IRQ_INFO,
                                                    VFIO_DEVICE_SET_IRQS,
                                                    VFIO_DEVICE_SET_IRQS,
                                                    VFIO_DEVICE_RESET,
                                                    VFIO_IOMMU_GET_INFO,
                                                    VFIO_IOMMU_MAP_DMA,
                                                    VFIO_IOMMU_MAP_DMA,
                                                    VFIO_IOMMU_UNMAP_DMA,
                                                    VFIO_DEVICE_FEATURE,
                                                    uapi::device_bind_iommufd,
                                                    uapi::device_attach_ioas,
                                                    uapi::device_detach_ioas,
                                                    uapi::destroy,
                                                    uapi::ioas_allocate,
                                                    uapi::ioas_allow_iovas,
                                                    uapi::ioas_copy,
                                                    uapi::ioas_iova_ranges,
                                                    uapi::ioas_map,
                                                    uapi::ioas_map,
                                                    uapi::ioas_unmap,
                                                    uapi::option,
                                                    uapi::hwpt_allocate,
                                                    uapi::hardware_info};

/// Bytes of the input; 0 behind its end.
class Input {
  public:
    explicit Input(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

    [[nodiscard]] bool empty() const { return bytes_.empty(); }

    [[nodiscard]] std::uint8_t byte() {
        if (bytes_.empty())
            return 0;
        const std::uint8_t first = bytes_.front();
        bytes_ = bytes_.subspan(1);
        return first;
    }

    /// One that means something, more often than not.
    [[nodiscard]] std::uint32_t word() {
        const std::uint8_t form = byte();
        switch (form % 8) {
        case 0:
            return 0;
        case 1:
            return byte() % 16U;
        case 2:
            return byte() * 0x1000U;
        case 3:
            return static_cast<std::uint32_t>(Program::memory_start >> 32U);
        case 4:
            return ~0U;
        case 5:
            return Program::first_eventfd + byte() % 4U;
        case 6:
            return 1U << (byte() % 32U);
        default:
            return byte() | byte() << 8U | byte() << 16U |
                   static_cast<std::uint32_t>(byte()) << 24U;
        }
    }

  private:
    std::span<const std::uint8_t> bytes_;
};

std::vector<run::DeviceShape> devices() {
    run::DeviceShape shape{.address = machine::Bdf(5, 0, 0), .group = 7, .msix_region = 0};
    shape.regions[0] = {
        .size = ByteCount(0x4000), .readable = true, .writable = true, .mappable = true};
    shape.interrupts = {1, 4, 8, 1, 1};
    std::vector<run::DeviceShape> all(3, shape);
    all[1].address = machine::Bdf(5, 0, 1);
    all[2].address = machine::Bdf(0, 4, 0);
    all[2].group = 9;
    return all;
}

/// A program that knows only how to call.
class Caller {
  public:
    explicit Caller(run::VfioLimits limits) : kernel_(devices(), std::move(limits), program_) {}

    /// Where most programs begin: with a device that reaches memory.
    void begin(bool with_iommufd, unsigned type) {
        if (with_iommufd) {
            opened(kernel_.open_iommufd());
            opened(kernel_.open_device(0));
            call(0, uapi::ioas_allocate, {12, 0, 0});
            call(1, uapi::device_bind_iommufd, {16, 0, 1, 0});
            call(1, uapi::device_attach_ioas, {12, 0, 1});
            return;
        }
        opened(kernel_.open_container());
        opened(kernel_.open_group(7));
        call(1, VFIO_GROUP_SET_CONTAINER, {1});
        opened(kernel_.request(files_[0], VFIO_SET_IOMMU, type, {}));
        std::array<std::byte, 13> name{};
        std::memcpy(name.data(), "0000:05:00.0", name.size());
        opened(kernel_.request(files_[1], VFIO_GROUP_GET_DEVICE_FD, 0, name));
        MOAT_CHECK(files_.size() == 3, "the device is open");
    }

    void open(std::uint8_t what) {
        switch (what % 8) {
        case 0:
            return opened(kernel_.open_container());
        case 1:
            return opened(kernel_.open_iommufd());
        case 2:
        case 3:
            return opened(kernel_.open_group(what % 2 == 0 ? 7 : 9));
        default:
            return opened(kernel_.open_device(what % 4U));
        }
    }

    void close(std::uint8_t which) {
        if (files_.empty())
            return;
        const auto at = files_.begin() + which % files_.size();
        kernel_.close(*at);
        files_.erase(at);
    }

    void request(Input& input) {
        if (files_.empty())
            return;
        const run::File file = files_[input.byte() % files_.size()];
        const unsigned long request = requests[input.byte() % requests.size()];
        std::array<std::byte, 64> bytes{};
        if (request == VFIO_GROUP_GET_DEVICE_FD) {
            const char* const name = input.byte() % 2 == 0 ? "0000:05:00.0" : "0000:00:04.0";
            std::memcpy(bytes.data(), name, 13);
        } else {
            Words words{};
            if (input.byte() % 4 != 0)
                make_likely(request, words, input);
            if (words[0] == 0) {
                std::ranges::generate(words, [&] { return input.word(); });
                if (input.byte() % 8 != 0)
                    words[0] = sizeof words;
            }
            std::memcpy(bytes.data(), &words, sizeof words);
        }
        const std::size_t wanted =
            run::VfioKernel::argument_bytes(request, std::span(bytes).first(8));
        const std::size_t there = input.byte() % 16 == 0 ? input.byte() % 64U : bytes.size();
        opened(kernel_.request(file, request, input.word(),
                               std::span(bytes).first(std::min(wanted, there))));
    }

    void finish() {
        while (!files_.empty())
            close(0);
        MOAT_CHECK(program_.mapped() == 0, "nothing is mapped without a file");
        MOAT_CHECK(program_.eventfds.empty(), "no eventfd is held without a file");
        for (const auto& [device, space] : program_.attached)
            MOAT_CHECK(space == run::Space::none, "no device reaches memory without a file");
    }

  private:
    using Words = std::array<std::uint32_t, 12>;

    /// Arguments that are nearly right.
    static void make_likely(unsigned long request, Words& words, Input& input) {
        const auto memory = static_cast<std::uint32_t>(Program::memory_start >> 32U);
        const auto pages = [&](unsigned bound) { return input.byte() % bound * 0x1000U; };
        if (request == VFIO_IOMMU_MAP_DMA)
            words = {32, 1 + input.byte() % 3U, pages(64), memory, pages(64), 0, pages(8), 0};
        else if (request == VFIO_IOMMU_UNMAP_DMA)
            words = {24, 0, pages(64), 0, pages(16), 0};
        else if (request == uapi::ioas_map)
            words = {40, input.byte() % 8U, 1, 0, pages(64), memory, pages(8), 0, pages(64), 0};
        else if (request == VFIO_DEVICE_SET_IRQS)
            words = {48,
                     (1U << input.byte() % 3U) | (8U << input.byte() % 3U),
                     input.byte() % 5U,
                     input.byte() % 4U,
                     input.byte() % 4U,
                     1000,
                     1001,
                     ~0U,
                     1003,
                     7};
    }

    void call(std::size_t file, unsigned long request, std::array<std::uint32_t, 4> words) {
        const run::Answer answer =
            kernel_.request(files_[file], request, 0, std::as_writable_bytes(std::span(words)));
        MOAT_CHECK(answer.value == 0, "the first requests are right");
    }

    void opened(run::Answer answer) {
        MOAT_CHECK(answer.value > -4096, "errors are of errno's numbers");
        if (answer.opened == run::File::none)
            return;
        files_.push_back(answer.opened);
        // Descriptors are small numbers, as in the input.
        program_.files[static_cast<int>(files_.size()) % 16] = answer.opened;
    }

    Program program_;
    run::VfioKernel kernel_;
    std::vector<run::File> files_ = {};
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input({data, size});
    run::VfioLimits limits;
    if (input.byte() % 2 == 0)
        limits.aperture = {IovaRange(Iova(0), ByteCount(0x8'0000)),
                           IovaRange(Iova(0x10'0000), ByteCount(0x10'0000))};
    limits.entries = 64;
    limits.locked = ByteCount(std::uint64_t{1} << 30);
    limits.fail_map = input.byte();
    limits.fail_errno = ENOMEM;
    Caller caller(std::move(limits));
    if (const std::uint8_t start = input.byte(); start % 8 != 0)
        caller.begin(start % 2 == 0, start % 4 == 1 ? VFIO_TYPE1_IOMMU : VFIO_TYPE1v2_IOMMU);
    while (!input.empty()) {
        const std::uint8_t what = input.byte();
        if (what % 16 == 0)
            caller.close(input.byte());
        else if (what % 4 == 1)
            caller.open(input.byte());
        else
            caller.request(input);
    }
    caller.finish();
    return 0;
}
