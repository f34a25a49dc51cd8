// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SIGSEGV and SIGBUS: the handler, and libc's functions that set handlers and masks.
#include "run/preload/faults.hpp"

#include "run/instruction/instruction.hpp"
#include "run/preload/context.hpp"
#include "run/preload/guarded_copy.hpp"
#include "run/preload/next.hpp"
#include "run/preload/own_stack.hpp"
#include "run/preload/process.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <string>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

namespace moat::run {

constinit std::atomic<bool> faults::caught = false;
constinit thread_local bool faults::maybe_blocked = false;

namespace {

using faults::caught;
using faults::maybe_blocked;

constexpr std::array fault_signals = {SIGSEGV, SIGBUS};

/// The program's action for a fault signal while the handler below is installed. Held with every
/// signal blocked, so that a handler may call sigaction.
class ProgramAction {
  public:
    [[nodiscard]] struct sigaction exchange(const struct sigaction* action) {
        sigset_t all;
        sigset_t before;
        sigfillset(&all);
        MOAT_NEXT(pthread_sigmask)(SIG_SETMASK, &all, &before);
        mutex_.lock();
        const struct sigaction old = action_;
        if (action != nullptr)
            action_ = *action;
        mutex_.unlock();
        MOAT_NEXT(pthread_sigmask)(SIG_SETMASK, &before, nullptr);
        return old;
    }

  private:
    std::mutex mutex_;
    struct sigaction action_ = {};
};

constinit std::array<ProgramAction, fault_signals.size()> program_actions;

[[nodiscard]] ProgramAction& program_action(int signal) {
    return program_actions[signal == SIGBUS ? 1 : 0];
}

void load_region(const Windows::Mapped& mapped, std::uint64_t address, std::span<std::byte> into) {
    if (Session* const session = session_if_any())
        session->load(mapped.at(address), into);
    else // forked: the parent has the device
        std::ranges::fill(into, std::byte{0xff});
}

void store_region(const Windows::Mapped& mapped, std::uint64_t address,
                  std::span<const std::byte> from) {
    if (Session* const session = session_if_any())
        session->store(mapped.at(address), from);
}

void print_refusal(const Error& error) {
    std::array<char, 256> line{};
    print_line({line.data(), error.describe(line)});
}

/// Return: whether the access that faulted at `address` is done.
[[nodiscard]] bool serve(ucontext_t& context, std::uint64_t address) {
    const Inside inside;
    Registers registers = registers_of(context);
    std::array<std::byte, 15> code{};
    const std::size_t bytes = client().read(registers.instruction_pointer, code);
    const auto load = [](std::uint64_t at, std::span<std::byte> into) {
        const auto mapped = windows().find(at);
        if (mapped)
            load_region(*mapped, at, into);
        return mapped || client().read(at, into) == into.size();
    };
    const auto store = [](std::uint64_t at, std::span<const std::byte> from) {
        const auto mapped = windows().find(at);
        if (mapped)
            store_region(*mapped, at, from);
        return mapped || client().write(at, from) == from.size();
    };
    const Entry entry({registers.instruction_pointer, registers.general[4], true});
    const auto step = emulate(registers, std::span(code).first(bytes), address, {load, store});
    if (step)
        set_registers(context, registers, *step);
    else
        print_refusal(step.error());
    return step.has_value();
}

/// Gives the fault to the program, as the kernel would have.
void pass_on(int signal, siginfo_t* info, ucontext_t& context) {
    const struct sigaction action = program_action(signal).exchange(nullptr);
    const bool sent = info->si_code <= 0; // by kill
    if (action.sa_handler == SIG_IGN && sent)
        return;
    if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) {
        struct sigaction usual = {};
        MOAT_NEXT(sigaction)(signal, &usual, nullptr); // faults again, and ends the process
        if (sent)
            (void)raise(signal);
        return;
    }
    if ((action.sa_flags & SA_RESETHAND) != 0) {
        const struct sigaction usual = {};
        (void)program_action(signal).exchange(&usual);
    }
    sigset_t mask;
    sigorset(&mask, &context.uc_sigmask, &action.sa_mask);
    if ((action.sa_flags & SA_NODEFER) == 0)
        sigaddset(&mask, signal);
    MOAT_NEXT(pthread_sigmask)(SIG_SETMASK, &mask, nullptr);
    const bool before = std::exchange(maybe_blocked, true);
    if ((action.sa_flags & SA_SIGINFO) != 0)
        action.sa_sigaction(signal, info, &context);
    else
        action.sa_handler(signal);
    maybe_blocked = before;
}

void on_fault(int signal, siginfo_t* info, void* argument) {
    auto& context = *static_cast<ucontext_t*>(argument);
    if (info->si_code > 0 && end_guarded_copy(context))
        return;
    const int error = errno;
    const auto address = reinterpret_cast<std::uint64_t>(info->si_addr);
    const bool ours = signal == SIGSEGV && info->si_code == SEGV_ACCERR && windows().find(address);
    const bool served = ours && serve(context, address);
    errno = error;
    if (!served)
        pass_on(signal, info, context);
}

/// A thread that blocks the signals would end at its first fault.
[[nodiscard]] sigset_t without_faults(const sigset_t& set) {
    sigset_t rest = set;
    for (const int signal : fault_signals)
        sigdelset(&rest, signal);
    return rest;
}

/// `on_alternate_stack`: as the program's handler has it, whose stack may be used up.
void install(int signal, bool on_alternate_stack) {
    sigset_t all;
    sigfillset(&all);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | (on_alternate_stack ? SA_ONSTACK : 0);
    action.sa_mask = without_faults(all); // the handler's own copies may fault
    MOAT_NEXT(sigaction)(signal, &action, nullptr);
}

/// sigaction of a fault signal after catch_faults.
void change_program_action(int signal, const struct sigaction* action, struct sigaction* old) {
    const struct sigaction before = program_action(signal).exchange(action);
    if (action != nullptr)
        install(signal, (action->sa_flags & SA_ONSTACK) != 0);
    if (old != nullptr)
        *old = before;
}

[[nodiscard]] bool changes_faults(int signal) {
    return caught && std::ranges::find(fault_signals, signal) != fault_signals.end();
}

/// signal and its relatives, which differ in flags.
sighandler_t set_handler(int signal, sighandler_t handler, int flags) {
    struct sigaction action = {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    struct sigaction old = {};
    change_program_action(signal, &action, &old);
    return old.sa_handler;
}

} // namespace

void catch_faults() {
    static constinit std::mutex once;
    const std::lock_guard guard(once);
    if (caught)
        return;
    (void)registers_of(ucontext_t{}); // asks the CPU once, outside of a handler
    sigset_t faults;
    sigemptyset(&faults);
    for (const int signal : fault_signals) {
        struct sigaction program = {};
        MOAT_NEXT(sigaction)(signal, nullptr, &program);
        (void)program_action(signal).exchange(&program);
        install(signal, (program.sa_flags & SA_ONSTACK) != 0);
        sigaddset(&faults, signal);
    }
    MOAT_NEXT(pthread_sigmask)(SIG_UNBLOCK, &faults, nullptr);
    caught = true;
}

bool faults::are_not_blocked() {
    sigset_t mask;
    MOAT_NEXT(pthread_sigmask)(SIG_BLOCK, nullptr, &mask);
    maybe_blocked = std::ranges::any_of(
        fault_signals, [&](int signal) { return sigismember(&mask, signal) != 0; });
    return !maybe_blocked;
}

} // namespace moat::run

using namespace moat::run;

MOAT_INTERPOSED int sigaction(int signal, const struct sigaction* action, struct sigaction* old) {
    if (changes_faults(signal)) {
        change_program_action(signal, action, old);
        return 0;
    }
    if (action == nullptr || options() == nullptr)
        return MOAT_NEXT(sigaction)(signal, action, old);
    struct sigaction changed = *action;
    changed.sa_mask = without_faults(action->sa_mask);
    return MOAT_NEXT(sigaction)(signal, &changed, old);
}

MOAT_INTERPOSED sighandler_t signal(int number, sighandler_t handler) {
    return changes_faults(number) ? set_handler(number, handler, SA_RESTART)
                                  : MOAT_NEXT(signal)(number, handler);
}

MOAT_INTERPOSED sighandler_t bsd_signal(int number, sighandler_t handler) {
    return signal(number, handler);
}

MOAT_ALIAS(ssignal, signal);

MOAT_INTERPOSED sighandler_t sysv_signal(int number, sighandler_t handler) {
    return changes_faults(number) ? set_handler(number, handler, SA_RESETHAND | SA_NODEFER)
                                  : MOAT_NEXT(sysv_signal)(number, handler);
}

MOAT_ALIAS(__sysv_signal, sysv_signal);

MOAT_INTERPOSED int pthread_sigmask(int how, const sigset_t* set, sigset_t* old) {
    if (set == nullptr || how == SIG_UNBLOCK || options() == nullptr)
        return MOAT_NEXT(pthread_sigmask)(how, set, old);
    const sigset_t rest = without_faults(*set);
    return MOAT_NEXT(pthread_sigmask)(how, &rest, old);
}

MOAT_INTERPOSED int sigprocmask(int how, const sigset_t* set, sigset_t* old) {
    if (set == nullptr || how == SIG_UNBLOCK || options() == nullptr)
        return MOAT_NEXT(sigprocmask)(how, set, old);
    const sigset_t rest = without_faults(*set);
    return MOAT_NEXT(sigprocmask)(how, &rest, old);
}
