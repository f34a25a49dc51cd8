// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A Unix socket to a child process that inherits the other end. Every wait is bounded. The callers
// know the protocol (QEMU's).
#pragma once

#include "moat/core/result.hpp"

#include "platform/file_descriptor.hpp"

#include <chrono>
#include <span>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <utility>

namespace moat::platform {

/// Used by one thread at a time. It has no name in the file system.
class StreamSocket {
  public:
    /// `patience` bounds each wait for the other end. Errors: io.
    static Result<StreamSocket> create(std::chrono::milliseconds patience);

    /// The child's end, for a ChildProcess.
    [[nodiscard]] int child() const { return child_.get(); }

    /// Call after the child has started, so that its death is noticed.
    void close_child() { child_.reset(); }

    /// Sends all of `text`. Errors: io (the other end is closed), busy (timeout).
    [[nodiscard]] Result<void> send(std::string_view text);

    /// Return: the text up to the next `end`, without it; valid until the next call. Errors:
    /// send's; limit (`most` characters without `end`).
    [[nodiscard]] Result<std::string_view> receive_until(char end, std::size_t most = 1U << 20);

  private:
    StreamSocket(FileDescriptor parent, FileDescriptor child, std::chrono::milliseconds patience)
        : parent_(std::move(parent)), child_(std::move(child)), patience_(patience) {}

    [[nodiscard]] Result<void> wait_for(short events) const;
    [[nodiscard]] ssize_t receive(std::span<char> piece) const;

    FileDescriptor parent_;
    FileDescriptor child_;
    std::chrono::milliseconds patience_;
    std::string received_;
    std::size_t taken_ = 0;
};

} // namespace moat::platform
