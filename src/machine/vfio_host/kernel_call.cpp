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
        return failed(ErrorCode::overlap, "something is mapped there already");
    case ENOSPC:
        return failed(ErrorCode::limit,
                      "the container holds as many mappings as it may: map larger "
                      "pieces, or raise vfio_iommu_type1.dma_entry_limit");
    case EFAULT:
        return failed(ErrorCode::unsupported,
                      "the kernel cannot pin this memory: it is not this process's, is not "
                      "writable, or is a device's, which type1 alone can map");
    case EINVAL:
        return failed(ErrorCode::busy,
                      "whenever the kernel maps this device's memory, a reader of numa_maps or "
                      "smaps unmaps a leaf of it: stop the readers, or map smaller pieces");
    case ENOMEM: {
        rlimit limit{};
        if (::getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
            return fail(ErrorCode::limit,
                        "as much memory is pinned as RLIMIT_MEMLOCK allows: raise it (ulimit -l)",
                        {"start", start.value()}, {"size", size.value()}, {"limit", limit.rlim_cur},
                        {"errno", ENOMEM});
        return failed(ErrorCode::no_memory, "the kernel has no memory for it");
    }
    default:
        return failed(ErrorCode::io, "the kernel does not map it");
    }
}

} // namespace moat::machine::vfio_host
