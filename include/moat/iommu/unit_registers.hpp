// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the drivers of IOMMUs (the folders beside this file) have in common: UnitRegisters, the
// policy that accesses registers: mapped, through an emulator's socket, or a test's; and Coherence.
#pragma once

#include <concepts>
#include <cstdint>

namespace moat::iommu {

template <class R>
concept UnitRegisters = requires(R& registers, unsigned offset, std::uint32_t word,
                                 std::uint64_t value, unsigned attempt) {
    { registers.read32(offset) } -> std::same_as<std::uint32_t>;
    { registers.read64(offset) } -> std::same_as<std::uint64_t>;
    // In order, and after every earlier store to memory; complete at the latest when `relax`
    // returns or a register is read. A load from memory after a read of a register is later than
    // the read.
    registers.write32(offset, word);
    registers.write64(offset, value);
    // Called between polls of something that the unit should change; `attempt` counts from 0.
    // Return: false to stop polling.
    { registers.relax(attempt) } -> std::same_as<bool>;
};

/// How a unit is treated that reports not to read through the processors' caches (VT-d: ECAP.C;
/// SMMUv3: IDR0.COHACC).
enum class Coherence : std::uint8_t {
    reported, ///< such a unit is refused: nothing here flushes caches
    known,    ///< it sees processors' writes nevertheless, such as an emulator
};

} // namespace moat::iommu
