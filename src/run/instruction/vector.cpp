// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Moves between memory and XMM, YMM or ZMM registers, without conversion or mask.
#include "run/instruction/execution.hpp"

#include <algorithm>

namespace moat::run {

namespace {

constexpr std::size_t legacy_bytes = 16; ///< an instruction without VEX changes no more

[[nodiscard]] bool is_vector(const ZydisDecodedOperand& operand) {
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    const ZydisRegisterClass kind = ZydisRegisterGetClass(operand.reg.value);
    return kind == ZYDIS_REGCLASS_XMM || kind == ZYDIS_REGCLASS_YMM || kind == ZYDIS_REGCLASS_ZMM;
}

[[nodiscard]] std::size_t vector_index(const ZydisDecodedOperand& operand) {
    return static_cast<std::size_t>(ZydisRegisterGetId(operand.reg.value));
}

/// Which part of the register moves.
enum class Part : std::uint8_t { none, whole, low_half, high_half };

[[nodiscard]] Part part_of(ZydisMnemonic name) {
    switch (name) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVAPS:
    case ZYDIS_MNEMONIC_MOVAPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_MOVDQA:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_MOVNTDQ:
    case ZYDIS_MNEMONIC_MOVNTDQA:
    case ZYDIS_MNEMONIC_MOVNTPS:
    case ZYDIS_MNEMONIC_MOVNTPD:
    case ZYDIS_MNEMONIC_MOVD:
    case ZYDIS_MNEMONIC_MOVQ:
    case ZYDIS_MNEMONIC_MOVSS:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_VMOVUPS:
    case ZYDIS_MNEMONIC_VMOVUPD:
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQU:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVDQA32:
    case ZYDIS_MNEMONIC_VMOVDQA64:
    case ZYDIS_MNEMONIC_VMOVDQU8:
    case ZYDIS_MNEMONIC_VMOVDQU16:
    case ZYDIS_MNEMONIC_VMOVDQU32:
    case ZYDIS_MNEMONIC_VMOVDQU64:
    case ZYDIS_MNEMONIC_VLDDQU:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VMOVQ:
    case ZYDIS_MNEMONIC_VMOVSS:
    case ZYDIS_MNEMONIC_VMOVSD:
        return Part::whole;
    case ZYDIS_MNEMONIC_MOVLPS:
    case ZYDIS_MNEMONIC_MOVLPD:
    case ZYDIS_MNEMONIC_VMOVLPS:
    case ZYDIS_MNEMONIC_VMOVLPD:
        return Part::low_half;
    case ZYDIS_MNEMONIC_MOVHPS:
    case ZYDIS_MNEMONIC_MOVHPD:
    case ZYDIS_MNEMONIC_VMOVHPS:
    case ZYDIS_MNEMONIC_VMOVHPD:
        return Part::high_half;
    default:
        return Part::none;
    }
}

} // namespace

bool Execution::has_vector_operand() const {
    return std::ranges::any_of(operands(), is_vector);
}

Result<Step> Execution::run_vector() {
    const bool masked = instruction_.avx.mask.mode != ZYDIS_MASK_MODE_INVALID &&
                        instruction_.avx.mask.mode != ZYDIS_MASK_MODE_DISABLED;
    if (part_of(instruction_.mnemonic) == Part::none || masked)
        return unsupported("moat run emulates unmasked moves of vector registers only; use a "
                           "plain load or store");
    const auto visible = operands().first(instruction_.operand_count_visible);
    const Operand& to = visible.front();
    const Operand& from = visible.back();
    if (to.type == ZYDIS_OPERAND_TYPE_MEMORY) {
        MOAT_TRY(store_vector(to, from));
        return advance();
    }
    MOAT_TRY(load_vector(to, from));
    Step step = advance();
    step.vector = static_cast<unsigned>(vector_index(to));
    return step;
}

Result<void> Execution::load_vector(const Operand& to, const Operand& from) {
    Registers::Vector& target = registers_.vectors[vector_index(to)];
    const bool legacy = instruction_.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    const Part part = part_of(instruction_.mnemonic);
    Registers::Vector value{};
    if (part != Part::whole) { // the other half is that of the first source
        const Operand& source = operands_[legacy ? 0 : 1];
        std::ranges::copy_n(registers_.vectors[vector_index(source)].begin(), legacy_bytes,
                            value.begin());
    }
    const std::span into = std::span(value).subspan(part == Part::high_half ? 8 : 0, from.size / 8);
    MOAT_TRY(load(address_of(from), into));
    std::ranges::copy_n(value.begin(), legacy ? legacy_bytes : value.size(), target.begin());
    return {};
}

Result<void> Execution::store_vector(const Operand& to, const Operand& from) {
    const std::size_t first = part_of(instruction_.mnemonic) == Part::high_half ? 8 : 0;
    return store(address_of(to),
                 std::span(registers_.vectors[vector_index(from)]).subspan(first, to.size / 8));
}

} // namespace moat::run
