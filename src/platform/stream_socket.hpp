// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A unix socket between this process and a child that inherits the other end. Every wait on it is
// bounded. What is said over it is the callers' (QEMU's protocols).
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

/// Used by one thread at a time. Nothing is left of it in any folder: it has no name.
class StreamSocket {
  public:
    /// `patience` bounds each wait for the other end. Errors: io.
    static Result<StreamSocket> create(std::chrono::milliseconds patience);

    /// The child's end, to be handed to a ChildProcess.
    [[nodiscard]] int child() const { return child_.get(); }

    /// Once the child has it: so that its death is seen here.
    void close_child() { child_.reset(); }

    /// All of `text`. Errors: io (the other end is closed), busy (patience is over).
    [[nodiscard]] Result<void> send(std::string_view text);

    /// Up to and without the next `end`, which is valid until the next call.
    /// Errors: as send; limit where `most` characters came without `end`.
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
