// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Decoding by Zydis; operands, addresses and accesses of an instruction.
#include "run/instruction/instruction.hpp"

#include "run/instruction/arithmetic.hpp"
#include "run/instruction/execution.hpp"

#include <algorithm>
#include <cstring>

namespace moat::run {

namespace {

constexpr std::size_t longest_instruction = 15;

[[nodiscard]] std::uint64_t first_bytes(std::span<const std::byte> code) {
    std::uint64_t number = 0;
    for (const std::byte each : code.first(std::min<std::size_t>(code.size(), 8)))
        number = number << 8 | std::to_integer<std::uint64_t>(each);
    return number;
}

/// The 64-bit register that contains `name`.
[[nodiscard]] std::size_t general_index(ZydisRegister name) {
    const ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, name);
    return static_cast<std::size_t>(whole - ZYDIS_REGISTER_RAX);
}

[[nodiscard]] bool is_high_byte(ZydisRegister name) {
    return name >= ZYDIS_REGISTER_AH && name <= ZYDIS_REGISTER_BH;
}

[[nodiscard]] bool is_general(ZydisRegister name) {
    return name >= ZYDIS_REGISTER_AL && name <= ZYDIS_REGISTER_R15;
}

} // namespace

Result<Step> emulate(Registers& registers, std::span<const std::byte> code,
                     std::uint64_t fault_address, const InstructionMemory& memory) {
    Execution execution(registers, memory, fault_address);
    MOAT_TRY(execution.decode(code));
    return execution.run();
}

Result<void> Execution::decode(std::span<const std::byte> code) {
    ZydisDecoder decoder;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    const std::size_t size = std::min(code.size(), longest_instruction);
    if (size == 0 || ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, code.data(), size, &instruction_,
                                                        operands_.data())))
        return fail(ErrorCode::mismatch, "no instruction at the instruction pointer",
                    {"ip", registers_.instruction_pointer}, {"bytes", first_bytes(code)});
    return {};
}

Result<Step> Execution::run() {
    switch (instruction_.meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_UNCOND_BR:
        return unsupported("the program calls or jumps to an address read from a device's region");
    case ZYDIS_CATEGORY_CLFLUSHOPT:
    case ZYDIS_CATEGORY_CLWB:
        return advance();
    default:
        break;
    }
    if (instruction_.mnemonic == ZYDIS_MNEMONIC_CLFLUSH)
        return advance();
    if (!accesses_fault_address())
        return fail(ErrorCode::mismatch, "the instruction does not access the address that faulted",
                    {"ip", registers_.instruction_pointer}, {"address", fault_address_});
    if (instruction_.meta.category == ZYDIS_CATEGORY_STRINGOP)
        return run_string();
    if (has_vector_operand())
        return run_vector();
    MOAT_TRY(run_integer());
    return advance();
}

Step Execution::advance() {
    registers_.instruction_pointer += instruction_.length;
    return {.length = instruction_.length};
}

std::span<const ZydisDecodedOperand> Execution::operands() const {
    return std::span(operands_).first(instruction_.operand_count);
}

std::uint64_t Execution::register_value(ZydisRegister name) const {
    if (name == ZYDIS_REGISTER_RIP || name == ZYDIS_REGISTER_EIP)
        return registers_.instruction_pointer + instruction_.length;
    if (!is_general(name))
        return 0;
    const std::uint64_t whole = registers_.general[general_index(name)];
    if (is_high_byte(name))
        return whole >> 8 & 0xff;
    return low_bits(whole, ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, name));
}

void Execution::set_register(ZydisRegister name, std::uint64_t value) {
    if (!is_general(name))
        return;
    std::uint64_t& whole = registers_.general[general_index(name)];
    const unsigned bits = ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, name);
    const unsigned shift = is_high_byte(name) ? 8 : 0;
    const std::uint64_t mask = low_bits(~std::uint64_t{0}, bits) << shift;
    if (bits == 32)
        whole = low_bits(value, 32); // clears the upper half
    else
        whole = (whole & ~mask) | (value << shift & mask);
}

std::uint64_t Execution::address_of(const Operand& operand) const {
    const ZydisDecodedOperandMem& parts = operand.mem;
    std::uint64_t address = static_cast<std::uint64_t>(parts.disp.value);
    address += register_value(parts.base) + register_value(parts.index) * parts.scale;
    if (parts.base == ZYDIS_REGISTER_RSP)
        address += stack_adjustment_;
    address = low_bits(address, instruction_.address_width);
    if (parts.segment == ZYDIS_REGISTER_FS)
        address += registers_.fs_base;
    if (parts.segment == ZYDIS_REGISTER_GS)
        address += registers_.gs_base;
    return address;
}

Result<std::uint64_t> Execution::value_of(const Operand& operand) {
    switch (operand.type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        if (!is_general(operand.reg.value))
            return unsupported("the instruction moves a register of another kind; use a general "
                               "or vector register");
        return register_value(operand.reg.value);
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        return operand.imm.value.u;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        return load_number(address_of(operand), operand.size);
    default:
        return unsupported("the instruction has a far pointer");
    }
}

Result<void> Execution::set(const Operand& operand, std::uint64_t value) {
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY)
        return store_number(address_of(operand), value, operand.size);
    if (!is_general(operand.reg.value))
        return unsupported("the instruction changes a register of another kind; use a general or "
                           "vector register");
    set_register(operand.reg.value, value);
    return {};
}

bool Execution::accesses_fault_address() const {
    return std::ranges::any_of(operands(), [&](const Operand& each) {
        if (each.type != ZYDIS_OPERAND_TYPE_MEMORY)
            return false;
        if (instruction_.meta.category == ZYDIS_CATEGORY_BITBYTE &&
            operands_[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
            return true; // the bit's number is part of the address: bit() checks it
        return fault_address_ - address_of(each) < each.size / 8;
    });
}

Result<void> Execution::load(std::uint64_t address, std::span<std::byte> into) {
    for (std::size_t at = 0; at < into.size(); at += 8)
        if (!memory_.load(address + at,
                          into.subspan(at, std::min<std::size_t>(8, into.size() - at))))
            return fail(ErrorCode::io, "the instruction loads from an address that faults",
                        {"ip", registers_.instruction_pointer}, {"address", address + at});
    return {};
}

Result<void> Execution::store(std::uint64_t address, std::span<const std::byte> from) {
    for (std::size_t at = 0; at < from.size(); at += 8)
        if (!memory_.store(address + at,
                           from.subspan(at, std::min<std::size_t>(8, from.size() - at))))
            return fail(ErrorCode::io, "the instruction stores to an address that faults",
                        {"ip", registers_.instruction_pointer}, {"address", address + at});
    return {};
}

Result<std::uint64_t> Execution::load_number(std::uint64_t address, unsigned bits) {
    std::array<std::byte, 8> bytes{};
    if (bits == 0 || bits > 64)
        return unsupported("the instruction accesses more than a register");
    MOAT_TRY(load(address, std::span(bytes).first(bits / 8)));
    std::uint64_t value = 0;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
}

Result<void> Execution::store_number(std::uint64_t address, std::uint64_t value, unsigned bits) {
    std::array<std::byte, 8> bytes{};
    if (bits == 0 || bits > 64)
        return unsupported("the instruction accesses more than a register");
    std::memcpy(bytes.data(), &value, sizeof value);
    return store(address, std::span(bytes).first(bits / 8));
}

std::unexpected<Error> Execution::unsupported(const char* sentence) const {
    return fail(ErrorCode::unsupported, sentence, {"ip", registers_.instruction_pointer},
                {"address", fault_address_});
}

void Execution::set_arithmetic_flags(std::uint64_t flags, std::uint64_t affected) {
    registers_.flags = (registers_.flags & ~affected) | (flags & affected);
}

} // namespace moat::run
