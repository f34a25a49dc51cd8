// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The owner of a file descriptor, and errno as an Error. No operations on files.
#pragma once

#include "moat/core/result.hpp"

#include <cerrno>
#include <cstdint>
#include <unistd.h>
#include <utility>

namespace moat::platform {

/// `io`, or the given code, with errno among the values.
[[nodiscard]] inline std::unexpected<Error>
fail_errno(const char* sentence, ErrorCode code = ErrorCode::io, ErrorValue value = {}) {
    return fail(code, sentence, {"errno", static_cast<std::uint64_t>(errno)}, value);
}

class FileDescriptor {
  public:
    /// Owns nothing.
    FileDescriptor() = default;

    /// Takes the result of an open function; owns nothing if it is below 0.
    explicit FileDescriptor(int number) : number_(number) {}

    FileDescriptor(FileDescriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}

    FileDescriptor& operator=(FileDescriptor&& other) noexcept {
        std::swap(number_, other.number_);
        return *this;
    }

    ~FileDescriptor() {
        if (number_ >= 0)
            ::close(number_);
    }

    /// Below 0 if it owns nothing.
    [[nodiscard]] int get() const { return number_; }

    /// Closes it now.
    void reset() { *this = FileDescriptor(); }

  private:
    int number_ = -1;
};

} // namespace moat::platform
