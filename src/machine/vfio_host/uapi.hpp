// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Numbers and layouts of Linux's /dev/vfio and /dev/iommu, declared here because distributions'
// headers lack iommufd. Only machine/vfio_host uses them.
// Source: Linux, Documentation/driver-api/vfio.rst and userspace-api/iommufd.rst.
#pragma once

#include <cstdint>

namespace moat::machine::vfio_host::uapi {

/// An ioctl number without a direction: the argument holds its own size.
[[nodiscard]] constexpr unsigned long request(unsigned number) {
    return (static_cast<unsigned long>(';') << 8) | number;
}

// -- Containers and groups: type 1 ------------------------------------------------------------

inline constexpr unsigned long get_api_version = request(100);
inline constexpr unsigned long check_extension = request(101);
inline constexpr unsigned long set_iommu = request(102);
inline constexpr unsigned long group_get_status = request(103);
inline constexpr unsigned long group_set_container = request(104);
inline constexpr unsigned long group_get_device = request(106);
inline constexpr unsigned long iommu_get_info = request(112);
inline constexpr unsigned long iommu_map_dma = request(113);
inline constexpr unsigned long iommu_unmap_dma = request(114);

inline constexpr int api_version = 0;
inline constexpr int type1v2_iommu = 3;

struct GroupStatus {
    static constexpr std::uint32_t viable = 1U << 0;
    static constexpr std::uint32_t container_set = 1U << 1;

    std::uint32_t argument_bytes = sizeof(GroupStatus);
    std::uint32_t flags = 0;
};

/// A capability in the chain after an info structure; `next` is an offset from that structure's
/// start, 0 at the end.
struct CapabilityHeader {
    std::uint16_t id = 0;
    std::uint16_t version = 0;
    std::uint32_t next = 0;
};

struct IommuInfo {
    static constexpr std::uint32_t has_page_sizes = 1U << 0;
    static constexpr std::uint32_t has_capabilities = 1U << 1;

    std::uint32_t argument_bytes = sizeof(IommuInfo);
    std::uint32_t flags = 0;
    std::uint64_t page_sizes = 0; ///< one bit per size
    std::uint32_t capabilities = 0;
    std::uint32_t padding = 0;
};

inline constexpr std::uint16_t capability_iova_ranges = 1;
inline constexpr std::uint16_t capability_dirty_tracking = 2;
inline constexpr std::uint16_t capability_entries_available = 3;

struct IovaRangesCapability {
    CapabilityHeader header;
    std::uint32_t count = 0;
    std::uint32_t reserved = 0;
    // `count` pairs of { first, last } follow.
};

struct IovaRange {
    std::uint64_t first = 0;
    std::uint64_t last = 0; ///< inclusive
};

struct EntriesAvailableCapability {
    CapabilityHeader header;
    std::uint32_t available = 0;
};

inline constexpr std::uint32_t dma_read = 1U << 0;  ///< the device may read
inline constexpr std::uint32_t dma_write = 1U << 1; ///< the device may write

struct MapDma {
    std::uint32_t argument_bytes = sizeof(MapDma);
    std::uint32_t flags = 0;
    std::uint64_t virtual_address = 0;
    std::uint64_t iova = 0;
    std::uint64_t size = 0;
};

struct UnmapDma {
    std::uint32_t argument_bytes = sizeof(UnmapDma);
    std::uint32_t flags = 0;
    std::uint64_t iova = 0;
    std::uint64_t size = 0; ///< out: how much was unmapped
};

// -- A device, however it was opened ----------------------------------------------------------

inline constexpr unsigned long device_get_info = request(107);
inline constexpr unsigned long device_get_region_info = request(108);
inline constexpr unsigned long device_get_irq_info = request(109);
inline constexpr unsigned long device_set_irqs = request(110);
inline constexpr unsigned long device_reset = request(111);

struct DeviceInfo {
    static constexpr std::uint32_t can_reset = 1U << 0;
    static constexpr std::uint32_t is_pci = 1U << 1;

    std::uint32_t argument_bytes = sizeof(DeviceInfo);
    std::uint32_t flags = 0;
    std::uint32_t regions = 0;
    std::uint32_t interrupts = 0;
    std::uint32_t capabilities = 0;
    std::uint32_t padding = 0;
};

/// Regions of a PCI device: 0 to 5 are its BARs.
inline constexpr std::uint32_t region_config = 7;

struct RegionInfo {
    static constexpr std::uint32_t readable = 1U << 0;
    static constexpr std::uint32_t writable = 1U << 1;
    static constexpr std::uint32_t mappable = 1U << 2;

    std::uint32_t argument_bytes = sizeof(RegionInfo);
    std::uint32_t flags = 0;
    std::uint32_t index = 0;
    std::uint32_t capabilities = 0;
    std::uint64_t size = 0;
    std::uint64_t offset = 0; ///< in the device's file
};

inline constexpr std::uint32_t interrupts_msi = 1;
inline constexpr std::uint32_t interrupts_msix = 2;

struct InterruptInfo {
    static constexpr std::uint32_t by_eventfd = 1U << 0;

    std::uint32_t argument_bytes = sizeof(InterruptInfo);
    std::uint32_t flags = 0;
    std::uint32_t index = 0;
    std::uint32_t count = 0;
};

struct SetInterrupts {
    static constexpr std::uint32_t data_none = 1U << 0;
    static constexpr std::uint32_t data_eventfd = 1U << 2;
    static constexpr std::uint32_t action_trigger = 1U << 5;

    std::uint32_t argument_bytes = sizeof(SetInterrupts);
    std::uint32_t flags = 0;
    std::uint32_t index = 0;
    std::uint32_t start = 0;
    std::uint32_t count = 0;
    // `count` file descriptors of 32 bits follow.
};

// -- iommufd and a device's own file ----------------------------------------------------------

inline constexpr unsigned long device_bind_iommufd = request(118);
inline constexpr unsigned long device_attach_ioas = request(119);
inline constexpr unsigned long iommufd_destroy = request(0x80);
inline constexpr unsigned long ioas_allocate = request(0x81);
inline constexpr unsigned long ioas_iova_ranges = request(0x84);
inline constexpr unsigned long ioas_map = request(0x85);
inline constexpr unsigned long ioas_unmap = request(0x86);

struct BindIommufd {
    std::uint32_t argument_bytes = sizeof(BindIommufd);
    std::uint32_t flags = 0;
    std::int32_t iommufd = -1;
    std::uint32_t device = 0; ///< out: its number in the iommufd
};

struct AttachIoas {
    std::uint32_t argument_bytes = sizeof(AttachIoas);
    std::uint32_t flags = 0;
    std::uint32_t ioas = 0;
};

struct IoasAllocate {
    std::uint32_t bytes = sizeof(IoasAllocate);
    std::uint32_t flags = 0;
    std::uint32_t ioas = 0; ///< out
};

struct IoasIovaRanges {
    std::uint32_t bytes = sizeof(IoasIovaRanges);
    std::uint32_t ioas = 0;
    std::uint32_t count = 0; ///< in: the capacity; out: the count
    std::uint32_t reserved = 0;
    std::uint64_t ranges = 0; ///< address of an array of IovaRange
    std::uint64_t alignment = 0;
};

struct IoasMap {
    static constexpr std::uint32_t fixed_iova = 1U << 0;
    static constexpr std::uint32_t writable = 1U << 1;
    static constexpr std::uint32_t readable = 1U << 2;

    std::uint32_t bytes = sizeof(IoasMap);
    std::uint32_t flags = 0;
    std::uint32_t ioas = 0;
    std::uint32_t reserved = 0;
    std::uint64_t virtual_address = 0;
    std::uint64_t length = 0;
    std::uint64_t iova = 0;
};

struct IoasUnmap {
    std::uint32_t bytes = sizeof(IoasUnmap);
    std::uint32_t ioas = 0;
    std::uint64_t iova = 0;
    std::uint64_t length = 0; ///< out: how much was unmapped
};

static_assert(sizeof(IommuInfo) == 24 && sizeof(MapDma) == 32 && sizeof(UnmapDma) == 24);
static_assert(sizeof(RegionInfo) == 32 && sizeof(SetInterrupts) == 20);
static_assert(sizeof(IoasIovaRanges) == 32 && sizeof(IoasMap) == 40 && sizeof(IoasUnmap) == 24);

} // namespace moat::machine::vfio_host::uapi
