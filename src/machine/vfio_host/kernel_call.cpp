// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "kernel_call.hpp"

#include <fcntl.h>
#include <sys/resource.h>

namespace moat::machine::vfio_host {

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

std::unexpected<Error> fail_map(Iova start, ByteCount size) {
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

} // namespace moat::machine::vfio_host
