// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// platform/'s results as exceptions, with which a witness reports why it cannot run.
#pragma once

#include "moat/core/text.hpp"

#include "platform/file_descriptor.hpp"

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace moat::tests {

[[noreturn]] inline void throw_errno(const std::string& what) {
    throw std::runtime_error(what + ": " + std::strerror(errno));
}

template <class T>
T or_throw(Result<T> result, const std::string& what) {
    if (!result)
        throw std::runtime_error(what + ": " + to_string(result.error()));
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

/// Throws `what` and errno's text if `number` is negative.
inline platform::FileDescriptor opened(int number, const char* what) {
    if (number < 0)
        throw_errno(what);
    return platform::FileDescriptor(number);
}

} // namespace moat::tests
