// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Calls of Linux's /dev/vfio and /dev/iommu: <linux/vfio.h>, and iommufd's numbers and layouts,
// which distributions' headers lack. Only machine/vfio_host uses them. Source: Linux,
// Documentation/driver-api/vfio.rst and userspace-api/iommufd.rst.
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
inline constexpr unsigned long ioas_allocate = _IO(VFIO_TYPE, 0x81);
inline constexpr unsigned long ioas_iova_ranges = _IO(VFIO_TYPE, 0x84);
inline constexpr unsigned long ioas_map = _IO(VFIO_TYPE, 0x85);
inline constexpr unsigned long ioas_unmap = _IO(VFIO_TYPE, 0x86);

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
    std::uint64_t ranges = 0; ///< address of an array of vfio_iova_range
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

static_assert(sizeof(IoasIovaRanges) == 32 && sizeof(IoasMap) == 40 && sizeof(IoasUnmap) == 24);

} // namespace moat::machine::vfio_host::uapi
