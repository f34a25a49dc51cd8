// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Wire: the network of a QEMU machine, with one network device that hears what it sends. For any
// kind of device; qemu_machine.cpp moves its frames.
#pragma once

#include "moat/core/result.hpp"

#include "platform/file_descriptor.hpp"

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>

namespace moat::machine::qemu {

/// A loop of one stream: QEMU puts a length of 4 bytes before each frame (`-netdev socket`), so
/// whole frames return in their order. Used by one thread.
class Wire {
  public:
    /// Errors: io.
    static Result<std::unique_ptr<Wire>> create();

    /// QEMU's end.
    [[nodiscard]] int child() const { return child_.get(); }

    /// Call after QEMU has started.
    void close_child() { child_.reset(); }

    /// Returns what has arrived, as far as QEMU takes it, and does not wait.
    void pump();

    Wire(const Wire&) = delete;
    Wire& operator=(const Wire&) = delete;

  private:
    Wire(platform::FileDescriptor parent, platform::FileDescriptor child)
        : parent_(std::move(parent)), child_(std::move(child)) {}

    platform::FileDescriptor parent_;
    platform::FileDescriptor child_;
    std::array<std::byte, 16384> piece_{};
    std::span<const std::byte> left_; ///< of `piece_`, to return
};

} // namespace moat::machine::qemu
