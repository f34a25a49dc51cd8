// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Execution: one decoded instruction with the registers and memory that it works on. Operands are
// read and written here; what instructions do is in integer.cpp, string.cpp and vector.cpp.
#pragma once

#include "moat/core/result.hpp"

#include "run/instruction/instruction.hpp"

#include <Zydis/Zydis.h>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace moat::run {

class Execution {
  public:
    Execution(Registers& registers, const InstructionMemory& memory, std::uint64_t fault_address)
        : registers_(registers), memory_(memory), fault_address_(fault_address) {}

    /// Errors: mismatch, no instruction at the beginning of `code`.
    [[nodiscard]] Result<void> decode(std::span<const std::byte> code);

    /// Errors: those of emulate.
    [[nodiscard]] Result<Step> run();

  private:
    using Operand = ZydisDecodedOperand;

    // Operands.
    [[nodiscard]] std::span<const Operand> operands() const;
    [[nodiscard]] std::uint64_t register_value(ZydisRegister name) const;
    void set_register(ZydisRegister name, std::uint64_t value);
    [[nodiscard]] std::uint64_t address_of(const Operand& operand) const;
    [[nodiscard]] Result<std::uint64_t> value_of(const Operand& operand);
    [[nodiscard]] Result<void> set(const Operand& operand, std::uint64_t value);

    // Memory.
    [[nodiscard]] bool accesses_fault_address() const;
    [[nodiscard]] Result<void> load(std::uint64_t address, std::span<std::byte> into);
    [[nodiscard]] Result<void> store(std::uint64_t address, std::span<const std::byte> from);
    [[nodiscard]] Result<std::uint64_t> load_number(std::uint64_t address, unsigned bits);
    [[nodiscard]] Result<void> store_number(std::uint64_t address, std::uint64_t value,
                                            unsigned bits);

    [[nodiscard]] std::unexpected<Error> unsupported(const char* sentence) const;
    void set_arithmetic_flags(std::uint64_t flags, std::uint64_t affected);
    /// The instruction is complete.
    [[nodiscard]] Step advance();

    // integer.cpp
    [[nodiscard]] Result<void> run_integer();
    [[nodiscard]] Result<void> move();
    [[nodiscard]] Result<void> move_if_condition();
    [[nodiscard]] Result<void> arithmetic();
    [[nodiscard]] Result<void> unary();
    [[nodiscard]] Result<void> exchange();
    [[nodiscard]] Result<void> compare_exchange();
    [[nodiscard]] Result<void> bit();
    [[nodiscard]] Result<void> push();
    [[nodiscard]] Result<void> pop();
    [[nodiscard]] Result<void> move_64_bytes();

    // string.cpp
    [[nodiscard]] Result<Step> run_string();
    [[nodiscard]] Result<void> repetition();
    [[nodiscard]] bool stays_in_page() const;

    // vector.cpp
    [[nodiscard]] bool has_vector_operand() const;
    [[nodiscard]] Result<Step> run_vector();
    [[nodiscard]] Result<void> load_vector(const Operand& to, const Operand& from);
    [[nodiscard]] Result<void> store_vector(const Operand& to, const Operand& from);

    Registers& registers_;
    const InstructionMemory& memory_;
    std::uint64_t fault_address_;
    ZydisDecodedInstruction instruction_ = {};
    std::array<Operand, ZYDIS_MAX_OPERAND_COUNT> operands_ = {};
    std::uint64_t stack_adjustment_ = 0; ///< of RSP in addresses: 8 in POP's destination
};

} // namespace moat::run
