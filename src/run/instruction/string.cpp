// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// String instructions and their repetition: MOVS, STOS, LODS, CMPS, SCAS.
#include "run/instruction/arithmetic.hpp"
#include "run/instruction/execution.hpp"

#include <algorithm>

namespace moat::run {

namespace {

constexpr unsigned page_bits = 12;

/// The memory operands' own registers advance.
[[nodiscard]] bool advances(const ZydisDecodedOperand& operand) {
    return operand.type == ZYDIS_OPERAND_TYPE_MEMORY;
}

} // namespace

Result<Step> Execution::run_string() {
    constexpr ZydisInstructionAttributes repeats =
        ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
    if ((instruction_.attributes & repeats) == 0) {
        MOAT_TRY(repetition());
        return advance();
    }
    const bool compares = (instruction_.cpu_flags->modified & ZYDIS_CPUFLAG_ZF) != 0;
    const bool until_equal = (instruction_.attributes & ZYDIS_ATTRIB_HAS_REPNE) != 0;
    const ZydisRegister counter =
        instruction_.address_width == 32 ? ZYDIS_REGISTER_ECX : ZYDIS_REGISTER_RCX;
    while (register_value(counter) != 0) {
        if (!stays_in_page())
            return Step{.length = instruction_.length};
        MOAT_TRY(repetition());
        set_register(counter, register_value(counter) - 1);
        if (compares && ((registers_.flags & flag::zero) != 0) == until_equal)
            break;
    }
    return advance();
}

bool Execution::stays_in_page() const {
    return std::ranges::any_of(operands(), [&](const Operand& each) {
        return advances(each) && address_of(each) >> page_bits == fault_address_ >> page_bits;
    });
}

Result<void> Execution::repetition() {
    const Operand& to = operands_[0];
    const Operand& from = operands_[1];
    if ((instruction_.cpu_flags->modified & ZYDIS_CPUFLAG_ZF) != 0) {
        MOAT_LET(const std::uint64_t a, value_of(to));
        MOAT_LET(const std::uint64_t b, value_of(from));
        set_arithmetic_flags(subtract(a, b, false, to.size).flags, flag::arithmetic);
    } else {
        MOAT_LET(const std::uint64_t value, value_of(from));
        MOAT_TRY(set(to, value));
    }
    const bool down = (registers_.flags & flag::direction) != 0;
    for (const Operand& each : operands())
        if (advances(each)) {
            const std::uint64_t bytes = each.size / 8;
            const std::uint64_t at = register_value(each.mem.base);
            set_register(each.mem.base, down ? at - bytes : at + bytes);
        }
    return {};
}

} // namespace moat::run
