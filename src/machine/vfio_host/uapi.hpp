// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Calls of Linux's /dev/vfio and /dev/iommu: <linux/vfio.h>, and iommufd's numbers and layouts,
// which distributions' headers lack. machine/vfio_host calls them, run/vfio_kernel answers. Source:
// Linux, Documentation/driver-api/vfio.rst and userspace-api/iommufd.rst.
#pragma once

#include "platform/file_descriptor.hpp"

#include <cerrno>
#include <cstdint>
#include <linux/vfio.h>
#include <sys/ioctl.h>

namespace moat::machine::vfio_host {

/// Retries after a signal. Return: the kernel's result; if below 0, errno has the reason.
template <class Argument>
[[nodiscard]] int call(const platform::FileDescriptor& file, unsigned long request,
                       Argument argument) {
    int result = 0;
    do
        result = ::ioctl(file.get(), request, argument);
    while (result < 0 && errno == EINTR);
    return result;
}

} // namespace moat::machine::vfio_host

namespace moat::machine::vfio_host::uapi {

inline constexpr unsigned long device_bind_iommufd = _IO(VFIO_TYPE, VFIO_BASE + 18);
inline constexpr unsigned long device_attach_ioas = _IO(VFIO_TYPE, VFIO_BASE + 19);
inline constexpr unsigned long device_detach_ioas = _IO(VFIO_TYPE, VFIO_BASE + 20);
inline constexpr unsigned long destroy = _IO(VFIO_TYPE, 0x80);
inline constexpr unsigned long ioas_allocate = _IO(VFIO_TYPE, 0x81);
inline constexpr unsigned long ioas_allow_iovas = _IO(VFIO_TYPE, 0x82);
inline constexpr unsigned long ioas_copy = _IO(VFIO_TYPE, 0x83);
inline constexpr unsigned long ioas_iova_ranges = _IO(VFIO_TYPE, 0x84);
inline constexpr unsigned long ioas_map = _IO(VFIO_TYPE, 0x85);
inline constexpr unsigned long ioas_unmap = _IO(VFIO_TYPE, 0x86);
inline constexpr unsigned long option = _IO(VFIO_TYPE, 0x87);
inline constexpr unsigned long hwpt_allocate = _IO(VFIO_TYPE, 0x89);
inline constexpr unsigned long hardware_info = _IO(VFIO_TYPE, 0x8a);

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

struct DetachIoas {
    std::uint32_t argument_bytes = sizeof(DetachIoas);
    std::uint32_t flags = 0;
};

struct Destroy {
    std::uint32_t bytes = sizeof(Destroy);
    std::uint32_t object = 0;
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
    std::uint64_t ranges = 0; ///< address of an array of vfio_iova_range
    std::uint64_t alignment = 0;
};

struct IoasAllowIovas {
    std::uint32_t bytes = sizeof(IoasAllowIovas);
    std::uint32_t ioas = 0;
    std::uint32_t count = 0;
    std::uint32_t reserved = 0;
    std::uint64_t ranges = 0; ///< address of an array of vfio_iova_range
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

/// Flags as of IoasMap.
struct IoasCopy {
    std::uint32_t bytes = sizeof(IoasCopy);
    std::uint32_t flags = 0;
    std::uint32_t to_ioas = 0;
    std::uint32_t from_ioas = 0;
    std::uint64_t length = 0;
    std::uint64_t to_iova = 0; ///< in, or out without a fixed one
    std::uint64_t from_iova = 0;
};

struct IoasUnmap {
    std::uint32_t bytes = sizeof(IoasUnmap);
    std::uint32_t ioas = 0;
    std::uint64_t iova = 0;
    std::uint64_t length = 0; ///< out: how much was unmapped
};

struct Option {
    static constexpr std::uint32_t rlimit_mode = 0; ///< of the iommufd
    static constexpr std::uint32_t huge_pages = 1;  ///< of an IOAS
    static constexpr std::uint16_t set = 0;
    static constexpr std::uint16_t get = 1;

    std::uint32_t bytes = sizeof(Option);
    std::uint32_t option = 0;
    std::uint16_t operation = 0;
    std::uint16_t reserved = 0;
    std::uint32_t object = 0;
    std::uint64_t value = 0;
};

struct HwptAllocate {
    std::uint32_t bytes = sizeof(HwptAllocate);
    std::uint32_t flags = 0;
    std::uint32_t device = 0;
    std::uint32_t page_table = 0; ///< an IOAS
    std::uint32_t hwpt = 0;       ///< out
    std::uint32_t reserved = 0;
    std::uint32_t data_type = 0;
    std::uint32_t data_bytes = 0;
    std::uint64_t data = 0;
    std::uint32_t fault = 0;
    std::uint32_t reserved_too = 0;
};

struct HardwareInfo {
    std::uint32_t bytes = sizeof(HardwareInfo);
    std::uint32_t flags = 0;
    std::uint32_t device = 0;
    std::uint32_t data_bytes = 0; ///< in: the room; out: how many there are
    std::uint64_t data = 0;
    std::uint32_t data_type = 0;    ///< out
    std::uint32_t pasid_bits = 0;   ///< out; the upper 3 bytes are reserved
    std::uint64_t capabilities = 0; ///< out
};

static_assert(sizeof(IoasIovaRanges) == 32 && sizeof(IoasMap) == 40 && sizeof(IoasUnmap) == 24);
static_assert(sizeof(IoasAllowIovas) == 24 && sizeof(IoasCopy) == 40 && sizeof(Option) == 24);
static_assert(sizeof(HwptAllocate) == 48 && sizeof(HardwareInfo) == 40);

} // namespace moat::machine::vfio_host::uapi
