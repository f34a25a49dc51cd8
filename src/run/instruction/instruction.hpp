// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// emulate: executes one x86-64 instruction whose memory operand lies in a device's region. The
// preloaded library and the supervisor call it for an access that faulted.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/core/result.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace moat::run {

/// What an instruction may read and change.
struct Registers {
    using Vector = std::array<std::byte, 64>; ///< a ZMM register; XMM and YMM are its first bytes

    std::array<std::uint64_t, 16> general = {}; ///< in the order of encoding: RAX, RCX, RDX, RBX...
    std::uint64_t instruction_pointer = 0;
    std::uint64_t flags = 0;
    std::uint64_t fs_base = 0;
    std::uint64_t gs_base = 0;
    std::array<Vector, 32> vectors = {};
};

/// The memory that an instruction accesses: the device's region or any other. False: the access
/// faults. At most 8 bytes a call: wider accesses are split, lowest address first.
struct InstructionMemory {
    FunctionRef<bool(std::uint64_t address, std::span<std::byte> into)> load;
    FunctionRef<bool(std::uint64_t address, std::span<const std::byte> from)> store;
};

struct Step {
    unsigned length = 0;                 ///< of the instruction, in bytes
    std::optional<unsigned> vector = {}; ///< the vector register that changed
};

/// Executes the instruction at the beginning of `code`, which lies at the instruction pointer and
/// faulted at `fault_address`, and advances the instruction pointer. A repeated string instruction
/// stops where it leaves the page of the fault, with the instruction pointer at itself, as after an
/// interrupt. Reads nothing beyond `code`. A locked instruction is not atomic.
///
/// Errors: mismatch (no instruction, or one that does not access `fault_address`), unsupported, io
/// (a load or store returned false). `registers` are then unchanged, except by completed
/// repetitions.
[[nodiscard]] Result<Step> emulate(Registers& registers, std::span<const std::byte> code,
                                   std::uint64_t fault_address, const InstructionMemory& memory);

} // namespace moat::run
