// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Client: the program under `moat run`, as the host of a Session reaches it. The preloaded library
// is one, in the program; `moat serve` another, for the client of a socket; the supervisor a third.
#pragma once

#include "moat/core/stack_frame.hpp"

#include "platform/stack.hpp"
#include "run/stacks.hpp"
#include "run/vfio_kernel/vfio_kernel.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <unistd.h>

namespace moat::run {

/// Any thread.
class Client {
  public:
    /// Return: how many bytes were transferred, fewer where the program has no such memory.
    [[nodiscard]] virtual std::size_t read(std::uint64_t address, std::span<std::byte> into) = 0;
    [[nodiscard]] virtual std::size_t write(std::uint64_t address,
                                            std::span<const std::byte> from) = 0;

    /// Whether the program itself refused the latest access, although it has such memory.
    [[nodiscard]] virtual bool refused() const { return false; }

    /// A duplicate of the program's descriptor, in the host; -1 if there is none.
    [[nodiscard]] virtual int duplicate(int descriptor) = 0;

    /// The file behind a descriptor of the program; none if it is not VFIO's.
    [[nodiscard]] virtual File file_of(int descriptor) = 0;

    /// The stack of the call that is being served, innermost first, kept in `stacks`.
    [[nodiscard]] virtual fault::StackView stack(Stacks& stacks) = 0;

    /// The number of the thread whose call is being served.
    [[nodiscard]] virtual std::uint64_t thread() = 0;

    /// The number of the program's process, and the frames at an address of its code; by default,
    /// the host's.
    [[nodiscard]] virtual std::uint64_t process() { return static_cast<std::uint64_t>(::getpid()); }

    virtual void symbolise(std::uintptr_t address, FunctionRef<void(const StackFrame&)> sink) {
        platform::symbolise(address, sink);
    }

    /// Writes to the program's standard error as it was at the start.
    virtual void print(std::string_view text) = 0;

  protected:
    ~Client() = default;
};

} // namespace moat::run
