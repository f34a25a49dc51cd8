// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// CompletionWord: how a driver learns that a unit has completed its queue. The last command makes
// the unit write a number to this word.
#pragma once

#include "moat/iommu/detail/unit_tables.hpp"
#include "moat/iommu/unit_registers.hpp"

#include <cstdint>

namespace moat::iommu {

/// Not thread-safe: the caller holds the unit's lock.
template <TableMemory Memory, SyncPolicy Sync>
class CompletionWord {
  public:
    /// `where`: zeroed memory for 8 bytes, of which VT-d's unit writes 4.
    CompletionWord(Memory& memory, PhysicalAddress where) : memory_(memory), where_(where) {}

    [[nodiscard]] PhysicalAddress where() const { return where_; }

    /// The number for the next wait: the word does not hold it.
    [[nodiscard]] std::uint32_t next() { return ++number_ == 0 ? ++number_ : number_; }

    /// Returns whether the unit wrote the number of the last `next`. Gives up when `relax` says so
    /// or has_stopped() returns true.
    template <UnitRegisters Registers, class HasStopped>
    [[nodiscard]] bool wait(Registers& registers, HasStopped&& has_stopped) {
        for (unsigned attempt = 0; !is_written(); ++attempt) {
            const bool hope = registers.relax(attempt);
            if (is_written())
                return true;
            if (!hope || has_stopped())
                return false;
        }
        return true;
    }

  private:
    [[nodiscard]] bool is_written() const {
        return static_cast<std::uint32_t>(load_word<Sync>(*memory_.words(where_))) == number_;
    }

    Memory& memory_;
    const PhysicalAddress where_;
    std::uint32_t number_ = 0;
};

} // namespace moat::iommu
