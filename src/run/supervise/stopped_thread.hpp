// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// StoppedThread: a thread of the program while ptrace holds it: its registers, and system calls
// that it makes for the supervisor.
#pragma once

#include "run/instruction/instruction.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <sys/types.h>
#include <sys/user.h>
#include <vector>

namespace moat::run {

/// In DWARF's order; the last is the return address (System V ABI for x86-64, section 3.6).
using DwarfRegisters = std::array<std::uint64_t, 17>;

/// Every operation on a thread that died meanwhile does nothing.
class StoppedThread {
  public:
    explicit StoppedThread(pid_t thread);

    [[nodiscard]] pid_t number() const { return thread_; }

    [[nodiscard]] std::uint64_t instruction_pointer() const { return general_.rip; }

    [[nodiscard]] std::uint64_t stack_pointer() const { return general_.rsp; }

    [[nodiscard]] DwarfRegisters dwarf_registers() const;

    // At the stop before a system call.
    [[nodiscard]] long call() const { return static_cast<long>(general_.orig_rax); }

    [[nodiscard]] std::uint64_t argument(unsigned index) const;

    /// The thread gets this result in place of the call.
    void answer(std::int64_t result);

    // At a fault.
    [[nodiscard]] Registers registers();
    /// Also the vector register that `step` names.
    void set_registers(const Registers& registers, const Step& step);

  private:
    friend class BorrowedThread;

    pid_t thread_;
    user_regs_struct general_ = {};
    std::vector<std::byte> vectors_; ///< as XSAVE has them
};

/// Lets a thread at the stop before a system call make others in its place. Signals wait meanwhile.
class BorrowedThread {
  public:
    explicit BorrowedThread(StoppedThread& thread);
    ~BorrowedThread();
    BorrowedThread(const BorrowedThread&) = delete;
    BorrowedThread& operator=(const BorrowedThread&) = delete;

    using Arguments = std::array<std::uint64_t, 6>;

    /// Return: what the call returned; -ESRCH if the thread died.
    [[nodiscard]] std::int64_t call(long number, const Arguments& arguments);

  private:
    /// Runs to the next stop at a system call. Return: false if the thread died.
    [[nodiscard]] bool advance();

    StoppedThread& thread_;
    std::uint64_t signals_ = 0; ///< that it blocks
    bool entered_ = true;       ///< stands before a system call
};

} // namespace moat::run
