// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Calls into the kernel, retried after signals, and errno as an Error that suggests a remedy. All
// of machine/vfio_host uses it.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"

#include "platform/file_descriptor.hpp"

#include <cerrno>
#include <string>
#include <sys/ioctl.h>

namespace moat::machine::vfio_host {

/// Return: the kernel's result; if below 0, errno has the reason.
template <class Argument>
[[nodiscard]] int call(const platform::FileDescriptor& file, unsigned long request,
                       Argument argument) {
    int result = 0;
    do
        result = ::ioctl(file.get(), request, argument);
    while (result < 0 && errno == EINTR);
    return result;
}

/// Errors: not_found (with the sentence `missing`), refused, busy, io.
[[nodiscard]] Result<platform::FileDescriptor> open_file(const std::string& path,
                                                         const char* missing);

/// Why the kernel did not map, from errno.
[[nodiscard]] std::unexpected<Error> fail_map(Iova start, ByteCount size);

} // namespace moat::machine::vfio_host
