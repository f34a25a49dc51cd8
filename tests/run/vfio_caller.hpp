// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// VfioCaller: calls the state machine as a program calls Linux: by descriptors, with the bytes that
// the machine asks for.
#pragma once

#include "machine/vfio_host/uapi.hpp"
#include "model_program.hpp"
#include "run/vfio_kernel/vfio_kernel.hpp"

#include <array>
#include <cstring>
#include <initializer_list>
#include <vector>

namespace moat::tests {

inline constexpr std::uint64_t page = 4096;

/// Two devices on bus 5 in one group, 7, and one on the root bus in group 9.
[[nodiscard]] inline std::vector<run::DeviceShape> three_devices() {
    using Region = machine::soft::Face::Region;
    run::DeviceShape shape{.address = machine::Bdf(5, 0, 0), .group = 7, .msix_region = 0};
    shape.regions[0] = {
        .size = ByteCount(0x4000), .readable = true, .writable = true, .mappable = true};
    shape.regions[7] = {
        .size = ByteCount(0x1000), .readable = true, .writable = true, .mappable = false};
    shape.interrupts = {1, 4, 8, 1, 1};
    std::vector<run::DeviceShape> all(3, shape);
    all[1].address = machine::Bdf(5, 0, 1);
    all[2] = {.address = machine::Bdf(0, 4, 0), .group = 9, .resets = false};
    all[2].regions[0] =
        Region{.size = ByteCount(0x1000), .readable = true, .writable = true, .mappable = true};
    all[2].interrupts = {1, 1, 0, 0, 1};
    return all;
}

class VfioCaller {
  public:
    static constexpr std::uint64_t memory = Program::memory_start;

    explicit VfioCaller(run::VfioLimits limits = {})
        : kernel(three_devices(), std::move(limits), program) {}

    /// Return: a descriptor, or -errno.
    [[nodiscard]] int open(run::Answer answer) {
        return answer.opened != run::File::none ? program.descriptor(answer.opened)
                                                : static_cast<int>(answer.value);
    }

    void close(int descriptor) {
        const run::File file = program.file_of(descriptor);
        program.files.erase(descriptor);
        kernel.close(file);
    }

    [[nodiscard]] std::int64_t call_bytes(int descriptor, unsigned long request,
                                          std::uint64_t number, std::span<std::byte> bytes) {
        const std::size_t wanted = run::VfioKernel::argument_bytes(
            request, bytes.first(std::min<std::size_t>(bytes.size(), 8)));
        const run::Answer answer = kernel.request(program.file_of(descriptor), request, number,
                                                  bytes.first(std::min(wanted, bytes.size())));
        return answer.opened != run::File::none ? program.descriptor(answer.opened) : answer.value;
    }

    /// A request whose argument is a number.
    [[nodiscard]] std::int64_t call(int descriptor, unsigned long request, std::uint64_t number) {
        return call_bytes(descriptor, request, number, {});
    }

    template <class T>
        requires std::is_class_v<T>
    [[nodiscard]] std::int64_t call(int descriptor, unsigned long request, T& argument) {
        return call_bytes(descriptor, request, 0,
                          std::as_writable_bytes(std::span<T, 1>(&argument, 1)));
    }

    [[nodiscard]] std::int64_t device_file(int of, std::string name) {
        return call_bytes(of, VFIO_GROUP_GET_DEVICE_FD, 0,
                          std::as_writable_bytes(std::span(name.data(), name.size() + 1)));
    }

    [[nodiscard]] std::int64_t set_container(int of, int to) {
        std::array<std::int32_t, 1> argument{to};
        return call(of, VFIO_GROUP_SET_CONTAINER, argument);
    }

    [[nodiscard]] std::int64_t map(int in, std::uint64_t iova, std::uint64_t size,
                                   std::uint64_t address = memory, std::uint32_t flags = 3,
                                   std::uint32_t argsz = sizeof(vfio_iommu_type1_dma_map)) {
        vfio_iommu_type1_dma_map map{
            .argsz = argsz, .flags = flags, .vaddr = address, .iova = iova, .size = size};
        return call(in, VFIO_IOMMU_MAP_DMA, map);
    }

    /// Return: how many bytes, or -errno.
    [[nodiscard]] std::int64_t unmap(int in, std::uint64_t iova, std::uint64_t size,
                                     std::uint32_t flags = 0, std::uint32_t argsz = 24) {
        vfio_iommu_type1_dma_unmap unmap{
            .argsz = argsz, .flags = flags, .iova = iova, .size = size};
        const std::int64_t result = call(in, VFIO_IOMMU_UNMAP_DMA, unmap);
        return result < 0 ? result : static_cast<std::int64_t>(unmap.size);
    }

    /// A container with group 7 and this IOMMU.
    void make_container(unsigned type = VFIO_TYPE1v2_IOMMU) {
        container = open(kernel.open_container());
        group = open(kernel.open_group(7));
        MOAT_CHECK(set_container(group, container) == 0, "a fresh group joins a container");
        MOAT_CHECK(call(container, VFIO_SET_IOMMU, type) == 0, "it has an IOMMU");
    }

    Program program;
    run::VfioKernel kernel;
    int container = -1;
    int group = -1;
};

} // namespace moat::tests
