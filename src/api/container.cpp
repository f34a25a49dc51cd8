// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Container: moat.hpp's functions over a Core.
#include "moat/core/check.hpp"

#include "block.hpp"
#include "core.hpp"
#include "machine/vfio_host/pci_devices.hpp"
#include "open.hpp"

#include <mutex>
#include <set>
#include <string>
#include <utility>

namespace moat {

using api::no_container;
using api::with_memory;

std::unexpected<Error> api::no_container() {
    return fail(ErrorCode::refused, "the container was moved away, or is closed");
}

api::Core& Container::core() {
    return static_cast<api::Core&>(*core_);
}

const char* api::keep_sentence(const std::string& sentence, const char* otherwise) {
    constexpr std::size_t most = 256;
    static std::mutex& mutex = *new std::mutex;
    static std::set<std::string>& kept = *new std::set<std::string>;
    const std::lock_guard lock(mutex);
    if (kept.size() == most && !kept.contains(sentence))
        return otherwise;
    return kept.insert(sentence).first->c_str();
}

Result<Container> api::open(const ContainerConfig& config, const dma::Options& options) {
    MOAT_LET(auto core, config.backend == Backend::soft   ? api::open_soft(config, options)
                        : config.backend == Backend::qemu ? api::open_qemu(config, options)
                                                          : api::open_vfio(config, options));
    return Container(std::move(core));
}

Result<Container> Container::open(const ContainerConfig& config) {
    return with_memory([&]() -> Result<Container> {
        const auto options = api::options_of(config);
        if (!options)
            return fail(ErrorCode::unsupported,
                        api::keep_sentence(options.error(),
                                           "an option is wrong, as many were before: "
                                           "dma::options_help() lists what there is"));
        return api::open(config, *options);
    });
}

Container::Container(std::unique_ptr<api::Core> core) : core_(std::move(core)) {}

Container::Container(Container&&) noexcept = default;

Container& Container::operator=(Container&& other) noexcept {
    if (this != &other) {
        end();
        core_ = std::move(other.core_);
    }
    return *this;
}

Container::~Container() {
    end();
}

void Container::end() noexcept {
    if (core_ == nullptr)
        return;
    MOAT_CHECK(close().has_value(), "a listener does not end its own container");
}

Result<void> Container::close() {
    if (core_ == nullptr)
        return no_container();
    MOAT_TRY(core().close());
    core_.reset();
    return {};
}

Result<Device> Container::attach(std::string_view address) {
    return attach_as(address, nullptr);
}

Result<Device> Container::attach(std::string_view address, DeviceModel& model) {
    return attach_as(address, &model);
}

Result<Device> Container::attach_as(std::string_view address, DeviceModel* model) {
    if (core_ == nullptr)
        return no_container();
    return with_memory([&]() -> Result<Device> {
        const auto parsed = machine::vfio_host::parse_bdf(address);
        if (!parsed)
            return fail(ErrorCode::not_found, "an address of PCI is like 0000:00:03.0 or 00:03.0");
        return core().attach(*parsed, model);
    });
}

Result<Buffer> Container::allocate(std::size_t bytes) {
    return core_ != nullptr ? with_memory([&] { return core().allocate(bytes); }) : no_container();
}

Result<CoherentBuffer> Container::allocate_coherent(std::size_t bytes, std::string_view label) {
    MOAT_LET(auto buffer, allocate(bytes));
    MOAT_LET(auto mapping, core().map_coherent(buffer, label));
    return CoherentBuffer(std::move(buffer), std::move(mapping));
}

Result<ListMapping> Container::map_list(std::span<const Memory> pieces, Direction direction,
                                        const SegmentLimits& limits, std::string_view label) {
    return core_ != nullptr ? core().map_list(pieces, direction, limits, label) : no_container();
}

Result<Mapping> Container::map_region(const Bar& bar, std::uint64_t offset, std::uint64_t bytes,
                                      Direction direction, std::string_view label) {
    if (core_ == nullptr)
        return no_container();
    MOAT_LET(const auto memory, bar.memory());
    if (offset > memory.size() || bytes > memory.size() - offset)
        return fail(ErrorCode::out_of_range, "the region is not inside of the BAR",
                    {"offset", offset}, {"bytes", bytes}, {"size", memory.size()});
    return core().map_region(memory.subspan(offset, bytes), direction, label);
}

Result<void> Container::unmap(std::uint64_t iova, std::size_t bytes, Direction direction) {
    return core_ != nullptr ? core().unmap(iova, bytes, direction) : no_container();
}

Result<void> Container::sync_for_device(std::uint64_t iova, std::uint64_t offset,
                                        std::size_t bytes) {
    return core_ != nullptr ? core().sync(api::SyncFor::device, iova, offset, bytes)
                            : no_container();
}

Result<void> Container::sync_for_cpu(std::uint64_t iova, std::uint64_t offset, std::size_t bytes) {
    return core_ != nullptr ? core().sync(api::SyncFor::cpu, iova, offset, bytes) : no_container();
}

Result<void> Container::poison(std::uint64_t iova, std::size_t bytes) {
    return core_ != nullptr ? core().poison(iova, bytes) : no_container();
}

Result<void> Container::unpoison(std::uint64_t iova, std::size_t bytes) {
    return core_ != nullptr ? core().unpoison(iova, bytes) : no_container();
}

Result<void> Container::flush() {
    return core_ != nullptr ? core().flush() : no_container();
}

Result<PolledFaults> Container::poll_faults() {
    if (core_ == nullptr)
        return no_container();
    return with_memory([&] { return core().poll(); });
}

Result<void> Container::report_living() {
    return core_ != nullptr ? core().report_living() : no_container();
}

Result<ContainerLimits> Container::limits() {
    return core_ != nullptr ? core().limits() : no_container();
}

} // namespace moat
