// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/preload/context.hpp"

#include "run/instruction/vector_state.hpp"

#include <array>
#include <asm/hwcap2.h>
#include <asm/prctl.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace moat::run {

namespace {

// Where gregs has the registers, in the order of encoding.
constexpr std::array<int, 16> context_places = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

[[nodiscard]] VectorState vectors_of(const ucontext_t& context) {
    return VectorState::of_signal(reinterpret_cast<std::byte*>(context.uc_mcontext.fpregs));
}

// The bases of FS and GS, which no frame has.
[[gnu::target("fsgsbase")]] void read_bases(Registers& registers) {
    static const bool readable = (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE) != 0;
    if (readable) {
        registers.fs_base = __builtin_ia32_rdfsbase64();
        registers.gs_base = __builtin_ia32_rdgsbase64();
        return;
    }
    syscall(SYS_arch_prctl, ARCH_GET_FS, &registers.fs_base);
    syscall(SYS_arch_prctl, ARCH_GET_GS, &registers.gs_base);
}

} // namespace

Registers registers_of(const ucontext_t& context) {
    Registers registers;
    const auto& general = context.uc_mcontext.gregs;
    for (std::size_t i = 0; i < context_places.size(); ++i)
        registers.general[i] = static_cast<std::uint64_t>(general[context_places[i]]);
    registers.instruction_pointer = static_cast<std::uint64_t>(general[REG_RIP]);
    registers.flags = static_cast<std::uint64_t>(general[REG_EFL]);
    read_bases(registers);
    vectors_of(context).read(registers.vectors);
    return registers;
}

void set_registers(ucontext_t& context, const Registers& registers, const Step& step) {
    auto& general = context.uc_mcontext.gregs;
    for (std::size_t i = 0; i < context_places.size(); ++i)
        general[context_places[i]] = static_cast<greg_t>(registers.general[i]);
    general[REG_RIP] = static_cast<greg_t>(registers.instruction_pointer);
    general[REG_EFL] = static_cast<greg_t>(registers.flags);
    if (step.vector)
        vectors_of(context).write(*step.vector, registers.vectors[*step.vector]);
}

} // namespace moat::run
