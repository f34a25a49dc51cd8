// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Executes one instruction natively: a signal handler gives the thread the registers and the trap
// flag, and gets both back after the instruction.
#pragma once

#include "run/instruction/instruction.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace moat::run {

enum class NativeEnd : std::uint8_t { done, fault, invalid };

struct NativeRun {
    NativeEnd end = NativeEnd::done;
    std::uint64_t fault_address = 0;
    Registers registers = {}; ///< after it
};

/// Runs `code`, all repetitions of a string instruction. FS and GS keep the thread's bases. Not
/// thread-safe.
[[nodiscard]] NativeRun execute_natively(const Registers& registers,
                                         std::span<const std::byte> code);

} // namespace moat::run
