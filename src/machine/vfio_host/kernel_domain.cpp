// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/vfio_host/kernel_domain.hpp"

#include <algorithm>
#include <fcntl.h>
#include <sys/resource.h>

namespace moat::machine::vfio_host {

void KernelDomain::add_reachable(std::vector<IovaRange>& ranges, std::uint64_t first,
                                 std::uint64_t last) {
    constexpr std::uint64_t topmost = (std::uint64_t{1} << 57) - 1;
    if (first <= last && first <= topmost)
        ranges.push_back(IovaRange::inclusive(Iova(first), Iova(std::min(last, topmost))));
}

Result<void> KernelDomain::set_limits(const std::vector<IovaRange>& reachable,
                                      std::uint64_t leaf_sizes) {
    if (reachable.empty() || leaf_sizes == 0)
        return fail(ErrorCode::unsupported,
                    "the kernel reports no address that the function reaches");
    const IovaRange aperture =
        IovaRange::inclusive(reachable.front().start(), reachable.back().last());
    std::vector<IovaRange> reserved;
    for (std::size_t i = 1; i < reachable.size(); ++i) {
        const std::uint64_t first = reachable[i - 1].last().value() + 1;
        const std::uint64_t end = reachable[i].start().value();
        if (first < end)
            reserved.emplace_back(Iova(first), ByteCount(end - first));
    }
    if (limits_.leaf_sizes != 0) {
        if (aperture == limits_.aperture && reserved == reserved_ &&
            leaf_sizes == limits_.leaf_sizes)
            return {};
        return fail(ErrorCode::mismatch,
                    "the function reaches fewer addresses than the other functions of this domain: "
                    "attach it first, or give it its own domain",
                    {"aperture", aperture.start().value()},
                    {"aperture_size", aperture.size().value()});
    }
    reserved_ = std::move(reserved);
    limits_ = {.aperture = aperture, .reserved = reserved_, .leaf_sizes = leaf_sizes};
    return {};
}

Result<void> KernelDomain::check(Iova start, ByteCount size, PhysicalAddress memory) const {
    MOAT_TRY(iommu::check_limits(limits_, start, size));
    const std::uint64_t page = limits_.leaf_sizes & (~limits_.leaf_sizes + 1);
    if (((start.value() | size.value() | memory.value()) & (page - 1)) != 0)
        return fail(ErrorCode::unaligned, "whole pages are mapped", {"start", start.value()},
                    {"size", size.value()}, {"memory", memory.value()}, {"page", page});
    return {};
}

std::unexpected<Error> KernelDomain::fail_map(Iova start, ByteCount size) {
    const int why = errno;
    const auto failed = [&](ErrorCode code, const char* sentence) {
        return fail(code, sentence, {"start", start.value()}, {"size", size.value()},
                    {"errno", static_cast<std::uint64_t>(why)});
    };
    switch (why) {
    case EEXIST:
    case EADDRINUSE:
        return failed(ErrorCode::overlap, "the range overlaps a mapping");
    case ENOSPC:
        return failed(ErrorCode::limit, "the container is full: map larger pieces, or raise "
                                        "vfio_iommu_type1.dma_entry_limit");
    case EFAULT:
        return failed(ErrorCode::unsupported,
                      "the kernel cannot pin this memory: it is not mapped in this process, not "
                      "writable, or device memory, which only type1 can map");
    case EINVAL:
        return failed(ErrorCode::busy,
                      "readers of numa_maps or smaps unmap leaves of this device memory while the "
                      "kernel maps it: stop them, or map smaller pieces");
    case ENOMEM: {
        rlimit limit{};
        if (::getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
            return fail(ErrorCode::limit, "RLIMIT_MEMLOCK is reached: raise it (ulimit -l)",
                        {"start", start.value()}, {"size", size.value()}, {"limit", limit.rlim_cur},
                        {"errno", ENOMEM});
        return failed(ErrorCode::no_memory, "the kernel is out of memory");
    }
    default:
        return failed(ErrorCode::io, "the kernel rejected the map");
    }
}

Result<platform::FileDescriptor> open_file(const std::string& path, const char* missing) {
    platform::FileDescriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (file.get() >= 0)
        return file;
    switch (errno) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return platform::fail_errno(missing, ErrorCode::not_found);
    case EACCES:
    case EPERM:
        return platform::fail_errno("no right to open it: be root, or own the files in /dev/vfio "
                                    "and /dev/iommu",
                                    ErrorCode::refused);
    case EBUSY:
        return platform::fail_errno("another program, or another domain, has it open",
                                    ErrorCode::busy);
    default:
        return platform::fail_errno("it cannot be opened");
    }
}

} // namespace moat::machine::vfio_host
