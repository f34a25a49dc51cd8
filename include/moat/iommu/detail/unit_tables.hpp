// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tables that a unit reads: a driver owns those of its lifetime, and accesses words at any time.
#pragma once

#include "moat/core/result.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/concept.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace moat::iommu {

/// One table; `memory` outlives it.
template <TableMemory Memory>
class UnitTable {
  public:
    /// No table.
    UnitTable() = default;

    /// 2^bytes_lg2 zeroed bytes. Errors: no_memory.
    static Result<UnitTable> allocate(Memory& memory, unsigned bytes_lg2) {
        MOAT_LET(const auto where, memory.allocate(bytes_lg2));
        return UnitTable(memory, where, bytes_lg2);
    }

    UnitTable(UnitTable&& other) noexcept { *this = std::move(other); }

    UnitTable& operator=(UnitTable&& other) noexcept {
        std::swap(memory_, other.memory_);
        std::swap(where_, other.where_);
        std::swap(bytes_lg2_, other.bytes_lg2_);
        return *this;
    }

    ~UnitTable() {
        if (memory_ != nullptr)
            memory_->release(where_, bytes_lg2_);
    }

    [[nodiscard]] PhysicalAddress where() const { return where_; }

    [[nodiscard]] Word* words() const { return memory_->words(where_); }

  private:
    UnitTable(Memory& memory, PhysicalAddress where, unsigned bytes_lg2)
        : memory_(&memory), where_(where), bytes_lg2_(bytes_lg2) {}

    Memory* memory_ = nullptr;
    PhysicalAddress where_;
    unsigned bytes_lg2_ = 0;
};

/// Tables of 2^bytes_lg2 bytes each. Errors: no_memory.
template <TableMemory Memory, std::size_t Count>
[[nodiscard]] Result<std::array<UnitTable<Memory>, Count>>
allocate_tables(Memory& memory, const std::array<unsigned, Count>& bytes_lg2) {
    std::array<UnitTable<Memory>, Count> tables;
    for (std::size_t i = 0; i != Count; ++i) {
        MOAT_LET(auto table, UnitTable<Memory>::allocate(memory, bytes_lg2[i]));
        tables[i] = std::move(table);
    }
    return tables;
}

/// Stores a word that the unit may read at any time. What was stored before is visible then.
template <SyncPolicy Sync>
void store_word(Word& word, std::uint64_t value) {
    typename Sync::template AtomicRef<std::uint64_t>(word).store(value, std::memory_order_release);
}

/// Loads a word that the unit writes.
template <SyncPolicy Sync>
[[nodiscard]] std::uint64_t load_word(Word& word) {
    return typename Sync::template AtomicRef<std::uint64_t>(word).load(std::memory_order_acquire);
}

} // namespace moat::iommu
