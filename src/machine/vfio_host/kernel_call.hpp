// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Calls into the kernel that are tried again where a signal came, and errno as an Error that says
// what to do. All of machine/vfio_host uses it.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"

#include "platform/file_descriptor.hpp"

#include <cerrno>
#include <string>
#include <sys/ioctl.h>

namespace moat::machine::vfio_host {

/// Return: what the kernel returned; below 0 errno says why.
template <class Argument>
[[nodiscard]] int call(const platform::FileDescriptor& file, unsigned long request,
                       Argument argument) {
    int result = 0;
    do
        result = ::ioctl(file.get(), request, argument);
    while (result < 0 && errno == EINTR);
    return result;
}

/// Errors: not_found, refused, busy, io; `missing` is said where there is no such file.
[[nodiscard]] Result<platform::FileDescriptor> open_file(const std::string& path,
                                                         const char* missing);

/// Why the kernel did not map; errno is its answer.
[[nodiscard]] std::unexpected<Error> fail_map(Iova start, ByteCount size);

} // namespace moat::machine::vfio_host
