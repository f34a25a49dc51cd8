// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tables that a unit reads: a driver allocates those of its lifetime, all or none, and accesses
// words at any time.
#pragma once

#include "moat/core/result.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/concept.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace moat::iommu {

/// Tables of 2^bytes_lg2 zeroed bytes each. Errors: no_memory; nothing is allocated then.
template <TableMemory Memory, std::size_t Count>
[[nodiscard]] Result<std::array<PhysicalAddress, Count>>
allocate_tables(Memory& memory, const std::array<unsigned, Count>& bytes_lg2) {
    std::array<PhysicalAddress, Count> tables;
    for (std::size_t i = 0; i != Count; ++i) {
        const auto table = memory.allocate(bytes_lg2[i]);
        if (!table) {
            while (i-- != 0)
                memory.release(tables[i], bytes_lg2[i]);
            return std::unexpected(table.error());
        }
        tables[i] = *table;
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
