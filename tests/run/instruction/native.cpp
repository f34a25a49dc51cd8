// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/instruction/native.hpp"

#include "moat/core/check.hpp"

#include "run/preload/context.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <sys/mman.h>
#include <vector>

namespace moat::run {

namespace {

constexpr greg_t trap_flag = 1 << 8;
constexpr std::size_t code_bytes = 4096;

/// The run in progress; handlers have no argument.
struct Running {
    NativeRun run;
    std::byte* code = nullptr;
    gregset_t saved = {};
    std::array<std::byte, std::size_t{16} << 10> saved_vectors = {};
    std::size_t saved_vector_bytes = 0;
};

Running* running = nullptr;

[[nodiscard]] std::span<std::byte> vector_image(const ucontext_t& context) {
    auto* image = reinterpret_cast<std::byte*>(context.uc_mcontext.fpregs);
    std::uint32_t bytes = 0;
    std::memcpy(&bytes, image + 464 + 4, sizeof bytes); // extended_size
    return {image, std::clamp<std::size_t>(bytes, 512, std::size_t{16} << 10)};
}

void begin(int, siginfo_t*, void* argument) {
    auto& context = *static_cast<ucontext_t*>(argument);
    std::memcpy(running->saved, context.uc_mcontext.gregs, sizeof running->saved);
    running->saved_vector_bytes = vector_image(context).size();
    std::ranges::copy(vector_image(context), running->saved_vectors.begin());
    for (unsigned i = 0; i < running->run.registers.vectors.size(); ++i)
        set_registers(context, running->run.registers, {.vector = i});
    context.uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(running->code);
    context.uc_mcontext.gregs[REG_EFL] |= trap_flag;
}

void end(int signal, siginfo_t* info, void* argument) {
    auto& context = *static_cast<ucontext_t*>(argument);
    const bool at_code =
        context.uc_mcontext.gregs[REG_RIP] == reinterpret_cast<greg_t>(running->code);
    if (signal == SIGTRAP && at_code)
        return; // between repetitions
    NativeRun& run = running->run;
    run.end = signal == SIGTRAP  ? NativeEnd::done
              : signal == SIGILL ? NativeEnd::invalid
                                 : NativeEnd::fault;
    run.fault_address = reinterpret_cast<std::uint64_t>(info->si_addr);
    const std::uint64_t start = run.registers.instruction_pointer;
    run.registers = registers_of(context);
    run.registers.instruction_pointer += start - reinterpret_cast<std::uint64_t>(running->code);
    std::memcpy(context.uc_mcontext.gregs, running->saved, sizeof running->saved);
    std::ranges::copy_n(running->saved_vectors.begin(),
                        static_cast<std::ptrdiff_t>(running->saved_vector_bytes),
                        vector_image(context).begin());
}

/// Handlers on a stack of their own, since the instruction has its own stack pointer.
class Handlers {
  public:
    Handlers() {
        const stack_t stack = {.ss_sp = stack_.data(), .ss_flags = 0, .ss_size = stack_.size()};
        MOAT_CHECK(sigaltstack(&stack, &old_stack_) == 0, "sigaltstack");
        for (std::size_t i = 0; i < signals.size(); ++i) {
            struct sigaction action = {};
            action.sa_sigaction = signals[i] == SIGUSR1 ? begin : end;
            action.sa_flags = SA_SIGINFO | SA_ONSTACK;
            sigfillset(&action.sa_mask);
            MOAT_CHECK(sigaction(signals[i], &action, &old_[i]) == 0, "sigaction");
        }
    }

    ~Handlers() {
        for (std::size_t i = 0; i < signals.size(); ++i)
            (void)sigaction(signals[i], &old_[i], nullptr);
        (void)sigaltstack(&old_stack_, nullptr);
    }

    Handlers(const Handlers&) = delete;
    Handlers& operator=(const Handlers&) = delete;

  private:
    static constexpr std::array signals = {SIGUSR1, SIGTRAP, SIGSEGV, SIGBUS, SIGILL};

    std::vector<std::byte> stack_ = std::vector<std::byte>(std::size_t{64} << 10);
    stack_t old_stack_ = {};
    std::array<struct sigaction, signals.size()> old_ = {};
};

} // namespace

NativeRun execute_natively(const Registers& registers, std::span<const std::byte> code) {
    static auto* const executable =
        static_cast<std::byte*>(mmap(nullptr, code_bytes, PROT_READ | PROT_WRITE | PROT_EXEC,
                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    MOAT_CHECK(executable != MAP_FAILED, "executable memory");
    std::fill_n(executable, code_bytes, std::byte{0x90}); // NOP
    std::ranges::copy(code, executable);
    Running state{.run = {.registers = registers}, .code = executable};
    const Handlers handlers;
    running = &state;
    MOAT_CHECK(raise(SIGUSR1) == 0, "raise");
    running = nullptr;
    return state.run;
}

} // namespace moat::run
