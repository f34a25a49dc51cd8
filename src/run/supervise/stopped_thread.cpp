// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/supervise/stopped_thread.hpp"

#include "run/instruction/vector_state.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <elf.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

namespace moat::run {

namespace {

using General = unsigned long long;

/// In the order of encoding.
constexpr std::array<General user_regs_struct::*, 16> places = {
    &user_regs_struct::rax, &user_regs_struct::rcx, &user_regs_struct::rdx, &user_regs_struct::rbx,
    &user_regs_struct::rsp, &user_regs_struct::rbp, &user_regs_struct::rsi, &user_regs_struct::rdi,
    &user_regs_struct::r8,  &user_regs_struct::r9,  &user_regs_struct::r10, &user_regs_struct::r11,
    &user_regs_struct::r12, &user_regs_struct::r13, &user_regs_struct::r14, &user_regs_struct::r15};

/// Of a system call.
constexpr std::array<General user_regs_struct::*, 6> argument_places = {
    &user_regs_struct::rdi, &user_regs_struct::rsi, &user_regs_struct::rdx,
    &user_regs_struct::r10, &user_regs_struct::r8,  &user_regs_struct::r9};

constexpr General no_call = ~General{0};
constexpr General syscall_bytes = 2; ///< of the instruction
constexpr std::size_t most_vector_bytes = 16 << 10;

void set_general(pid_t thread, const user_regs_struct& registers) {
    (void)::ptrace(PTRACE_SETREGS, thread, nullptr, &registers);
}

} // namespace

StoppedThread::StoppedThread(pid_t thread) : thread_(thread) {
    (void)::ptrace(PTRACE_GETREGS, thread_, nullptr, &general_);
}

DwarfRegisters StoppedThread::dwarf_registers() const {
    return {{general_.rax, general_.rdx, general_.rcx, general_.rbx, general_.rsi, general_.rdi,
             general_.rbp, general_.rsp, general_.r8, general_.r9, general_.r10, general_.r11,
             general_.r12, general_.r13, general_.r14, general_.r15, general_.rip}};
}

std::uint64_t StoppedThread::argument(unsigned index) const {
    return general_.*argument_places[index];
}

void StoppedThread::answer(std::int64_t result) {
    general_.orig_rax = no_call;
    general_.rax = static_cast<General>(result);
    set_general(thread_, general_);
}

Registers StoppedThread::registers() {
    Registers registers;
    for (std::size_t i = 0; i < places.size(); ++i)
        registers.general[i] = general_.*places[i];
    registers.instruction_pointer = general_.rip;
    registers.flags = general_.eflags;
    registers.fs_base = general_.fs_base;
    registers.gs_base = general_.gs_base;
    vectors_.resize(most_vector_bytes);
    iovec area = {vectors_.data(), vectors_.size()};
    const bool read = ::ptrace(PTRACE_GETREGSET, thread_, NT_X86_XSTATE, &area) == 0;
    vectors_.resize(read ? area.iov_len : 0);
    if (read)
        VectorState::of_ptrace(vectors_).read(registers.vectors);
    return registers;
}

void StoppedThread::set_registers(const Registers& registers, const Step& step) {
    for (std::size_t i = 0; i < places.size(); ++i)
        general_.*places[i] = registers.general[i];
    general_.rip = registers.instruction_pointer;
    general_.eflags = registers.flags;
    set_general(thread_, general_);
    if (!step.vector || vectors_.empty())
        return;
    VectorState::of_ptrace(vectors_).write(*step.vector, registers.vectors[*step.vector]);
    iovec area = {vectors_.data(), vectors_.size()};
    (void)::ptrace(PTRACE_SETREGSET, thread_, NT_X86_XSTATE, &area);
}

BorrowedThread::BorrowedThread(StoppedThread& thread) : thread_(thread) {
    constexpr std::uint64_t all = ~std::uint64_t{0};
    (void)::ptrace(PTRACE_GETSIGMASK, thread_.thread_, sizeof signals_, &signals_);
    (void)::ptrace(PTRACE_SETSIGMASK, thread_.thread_, sizeof all, &all);
}

BorrowedThread::~BorrowedThread() {
    (void)::ptrace(PTRACE_SETSIGMASK, thread_.thread_, sizeof signals_, &signals_);
}

std::int64_t BorrowedThread::call(long number, const Arguments& arguments) {
    user_regs_struct registers = thread_.general_;
    for (std::size_t i = 0; i < arguments.size(); ++i)
        registers.*argument_places[i] = arguments[i];
    if (entered_) {
        registers.orig_rax = static_cast<General>(number);
    } else { // enters again
        registers.rip -= syscall_bytes;
        registers.rax = static_cast<General>(number);
        registers.orig_rax = no_call;
    }
    set_general(thread_.thread_, registers);
    const bool returned = (entered_ || advance()) && advance();
    entered_ = false;
    if (!returned || ::ptrace(PTRACE_GETREGS, thread_.thread_, nullptr, &registers) != 0)
        return -ESRCH;
    return static_cast<std::int64_t>(registers.rax);
}

bool BorrowedThread::advance() {
    const pid_t thread = thread_.thread_;
    for (;;) {
        if (::ptrace(PTRACE_SYSCALL, thread, nullptr, nullptr) != 0)
            return false;
        siginfo_t seen{};
        int waited = 0;
        do // the supervisor is to see an end, too
            waited = ::waitid(P_PID, static_cast<id_t>(thread), &seen,
                              WEXITED | WSTOPPED | WNOWAIT | __WALL);
        while (waited != 0 && errno == EINTR);
        if (waited != 0 || (seen.si_code != CLD_TRAPPED && seen.si_code != CLD_STOPPED))
            return false;
        constexpr int exiting = PTRACE_EVENT_EXIT << 8 | SIGTRAP;
        if (seen.si_status == exiting)
            return false;
        int status = 0;
        if (::waitpid(thread, &status, __WALL) != thread)
            return false;
        if (WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80))
            return true;
    }
}

} // namespace moat::run
