// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// CallStacks: the functions that a stopped thread of a program is in, by the call frame information
// of the program's files. libdw reads it.
#pragma once

#include "moat/core/function_ref.hpp"

#include "run/supervise/stopped_thread.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <sys/types.h>

struct Dwfl;

namespace moat::run {

/// Of one process until it executes another program. Used by one thread.
class CallStacks {
  public:
    /// The number at an address of the process; nothing if there is none.
    using ReadMemory = FunctionRef<std::optional<std::uint64_t>(std::uint64_t address)>;

    explicit CallStacks(pid_t process);

    /// Fills `frames` with the thread's instruction pointer and return addresses, innermost first.
    /// Return: how many; 1 if nothing is known about the caller, at most frames.size().
    [[nodiscard]] std::size_t take(const StoppedThread& thread, ReadMemory memory,
                                   std::span<std::uintptr_t> frames);

  private:
    struct Walk;
    struct Callbacks;

    struct End {
        void operator()(Dwfl* files) const;
    };

    void look_at_files();

    const pid_t process_;
    std::unique_ptr<Dwfl, End> files_; ///< that the process has mapped
    bool attached_ = false;
    Walk* walk_ = nullptr; ///< set while `take` runs
};

} // namespace moat::run
