// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Instructions on general registers: moves, arithmetic, exchanges, bits, the stack.
#include "run/instruction/arithmetic.hpp"
#include "run/instruction/execution.hpp"

#include <bit>
#include <utility>

namespace moat::run {

namespace {

[[nodiscard]] Outcome combine(ZydisMnemonic operation, std::uint64_t a, std::uint64_t b, bool carry,
                              unsigned bits) {
    switch (operation) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_XADD:
        return add(a, b, false, bits);
    case ZYDIS_MNEMONIC_ADC:
        return add(a, b, carry, bits);
    case ZYDIS_MNEMONIC_SBB:
        return subtract(a, b, carry, bits);
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_TEST:
        return outcome(a & b, 0, bits);
    case ZYDIS_MNEMONIC_OR:
        return outcome(a | b, 0, bits);
    case ZYDIS_MNEMONIC_XOR:
        return outcome(a ^ b, 0, bits);
    default:
        return subtract(a, b, false, bits); // SUB, CMP
    }
}

} // namespace

Result<void> Execution::run_integer() {
    switch (instruction_.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_MOVDIRI:
    case ZYDIS_MNEMONIC_MOVBE:
        return move();
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
        return arithmetic();
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
    case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_NEG:
        return unary();
    case ZYDIS_MNEMONIC_XCHG:
    case ZYDIS_MNEMONIC_XADD:
        return exchange();
    case ZYDIS_MNEMONIC_CMPXCHG:
        return compare_exchange();
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        return bit();
    case ZYDIS_MNEMONIC_PUSH:
        return push();
    case ZYDIS_MNEMONIC_POP:
        return pop();
    case ZYDIS_MNEMONIC_MOVDIR64B:
        return move_64_bytes();
    default:
        break;
    }
    if (instruction_.meta.category == ZYDIS_CATEGORY_CMOV ||
        instruction_.meta.category == ZYDIS_CATEGORY_SETCC)
        return move_if_condition();
    return unsupported("moat run does not emulate this instruction on a device's region; use a "
                       "plain load or store");
}

Result<void> Execution::move() {
    const Operand& from = operands_[1];
    MOAT_LET(std::uint64_t value, value_of(from));
    if (instruction_.mnemonic == ZYDIS_MNEMONIC_MOVSX ||
        instruction_.mnemonic == ZYDIS_MNEMONIC_MOVSXD)
        value = sign_extended(value, from.size);
    if (instruction_.mnemonic == ZYDIS_MNEMONIC_MOVBE)
        value = std::byteswap(value) >> (64 - from.size);
    return set(operands_[0], value);
}

Result<void> Execution::move_if_condition() {
    const bool condition = holds(instruction_.opcode, registers_.flags);
    if (instruction_.meta.category == ZYDIS_CATEGORY_SETCC)
        return set(operands_[0], condition ? 1 : 0);
    MOAT_LET(const std::uint64_t loaded, value_of(operands_[1]));
    MOAT_LET(const std::uint64_t old, value_of(operands_[0]));
    return set(operands_[0], condition ? loaded : old);
}

Result<void> Execution::arithmetic() {
    const Operand& to = operands_[0];
    MOAT_LET(const std::uint64_t a, value_of(to));
    MOAT_LET(const std::uint64_t b, value_of(operands_[1]));
    const bool carry = (registers_.flags & flag::carry) != 0;
    const Outcome result = combine(instruction_.mnemonic, a, low_bits(b, to.size), carry, to.size);
    if (instruction_.mnemonic != ZYDIS_MNEMONIC_CMP && instruction_.mnemonic != ZYDIS_MNEMONIC_TEST)
        MOAT_TRY(set(to, result.value));
    set_arithmetic_flags(result.flags, flag::arithmetic);
    return {};
}

Result<void> Execution::unary() {
    const Operand& to = operands_[0];
    MOAT_LET(const std::uint64_t a, value_of(to));
    Outcome result;
    std::uint64_t affected = flag::arithmetic;
    switch (instruction_.mnemonic) {
    case ZYDIS_MNEMONIC_INC:
        result = add(a, 1, false, to.size);
        affected &= ~flag::carry;
        break;
    case ZYDIS_MNEMONIC_DEC:
        result = subtract(a, 1, false, to.size);
        affected &= ~flag::carry;
        break;
    case ZYDIS_MNEMONIC_NEG:
        result = subtract(0, a, false, to.size);
        break;
    default: // NOT
        result.value = ~a;
        affected = 0;
        break;
    }
    MOAT_TRY(set(to, result.value));
    set_arithmetic_flags(result.flags, affected);
    return {};
}

Result<void> Execution::exchange() {
    // Memory first: if its store faults, no register has changed.
    const bool memory_first = operands_[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
    const Operand& memory = operands_[memory_first ? 0 : 1];
    const Operand& other = operands_[memory_first ? 1 : 0];
    MOAT_LET(const std::uint64_t old, value_of(memory));
    MOAT_LET(const std::uint64_t given, value_of(other));
    if (instruction_.mnemonic == ZYDIS_MNEMONIC_XCHG) {
        MOAT_TRY(set(memory, given));
        return set(other, old);
    }
    const Outcome sum = add(old, given, false, memory.size);
    MOAT_TRY(set(memory, sum.value));
    MOAT_TRY(set(other, old));
    set_arithmetic_flags(sum.flags, flag::arithmetic);
    return {};
}

Result<void> Execution::compare_exchange() {
    const Operand& memory = operands_[0];
    MOAT_LET(const std::uint64_t old, value_of(memory));
    MOAT_LET(const std::uint64_t given, value_of(operands_[1]));
    std::uint64_t& accumulator = registers_.general[0];
    const std::uint64_t expected = low_bits(accumulator, memory.size);
    const bool equal = old == expected;
    MOAT_TRY(set(memory, equal ? given : old)); // it always writes
    if (!equal)
        accumulator = memory.size == 32
                          ? old
                          : (accumulator & ~low_bits(~std::uint64_t{0}, memory.size)) | old;
    set_arithmetic_flags(subtract(expected, old, false, memory.size).flags, flag::arithmetic);
    return {};
}

Result<void> Execution::bit() {
    const Operand& memory = operands_[0];
    MOAT_LET(const std::uint64_t number, value_of(operands_[1]));
    const unsigned bits = memory.size;
    std::uint64_t address = address_of(memory);
    if (operands_[1].type == ZYDIS_OPERAND_TYPE_REGISTER) { // signed, of a string of bits
        const auto offset = static_cast<std::int64_t>(sign_extended(number, bits));
        const std::int64_t words = offset >> std::countr_zero(bits);
        address += static_cast<std::uint64_t>(words) * (bits / 8);
    }
    if (fault_address_ - address >= bits / 8)
        return fail(ErrorCode::mismatch, "the instruction does not access the address that faulted",
                    {"ip", registers_.instruction_pointer}, {"address", fault_address_});
    MOAT_LET(const std::uint64_t old, load_number(address, bits));
    const std::uint64_t mask = std::uint64_t{1} << (number & (bits - 1));
    switch (instruction_.mnemonic) {
    case ZYDIS_MNEMONIC_BTS:
        MOAT_TRY(store_number(address, old | mask, bits));
        break;
    case ZYDIS_MNEMONIC_BTR:
        MOAT_TRY(store_number(address, old & ~mask, bits));
        break;
    case ZYDIS_MNEMONIC_BTC:
        MOAT_TRY(store_number(address, old ^ mask, bits));
        break;
    default:
        break; // BT
    }
    set_arithmetic_flags((old & mask) != 0 ? flag::carry : 0, flag::carry);
    return {};
}

Result<void> Execution::push() {
    MOAT_LET(const std::uint64_t value, value_of(operands_[0]));
    std::uint64_t& stack = registers_.general[4];
    const unsigned bits = operands_[0].size;
    MOAT_TRY(store_number(stack - bits / 8, value, bits));
    stack -= bits / 8;
    return {};
}

Result<void> Execution::pop() {
    std::uint64_t& stack = registers_.general[4];
    const unsigned bits = operands_[0].size;
    MOAT_LET(const std::uint64_t value, load_number(stack, bits));
    stack_adjustment_ = bits / 8;
    MOAT_TRY(set(operands_[0], value));
    stack += bits / 8;
    return {};
}

Result<void> Execution::move_64_bytes() {
    std::array<std::byte, 64> bytes{};
    MOAT_TRY(load(address_of(operands_[1]), bytes));
    return store(register_value(operands_[0].reg.value), bytes);
}

} // namespace moat::run
