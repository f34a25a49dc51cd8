// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Unlinked tables whose invalidation failed: hardware may still walk them, so the PageTable frees
// them at its end. invalidation.hpp adds them.
#pragma once

#include "moat/page_table/table_memory.hpp"
#include "moat/sync/concept.hpp"

#include <atomic>

namespace moat {

template <SyncPolicy Sync, TableMemory Memory>
class HeldTables {
  public:
    HeldTables() = default;

    /// No thread adds to either meanwhile.
    HeldTables(HeldTables&& other) noexcept : first_(other.first_.load(std::memory_order_relaxed)) {
        other.first_.store(nullptr, std::memory_order_relaxed);
    }

    HeldTables& operator=(HeldTables&&) = delete;
    HeldTables(const HeldTables&) = delete;
    HeldTables& operator=(const HeldTables&) = delete;

    ~HeldTables() {
        TableHeader* header = first_.load(std::memory_order_relaxed);
        while (header != nullptr) {
            TableHeader* const next = header->next;
            static_cast<Memory*>(header->memory)->release(header->table, header->bytes_lg2);
            header = next;
        }
    }

    /// Any thread. The header holds the table and its memory.
    void add(TableHeader& header) {
        TableHeader* first = first_.load(std::memory_order_relaxed);
        do
            header.next = first;
        while (!first_.compare_exchange_strong(first, &header, std::memory_order_release,
                                               std::memory_order_relaxed));
    }

  private:
    typename Sync::template Atomic<TableHeader*> first_{nullptr};
};

} // namespace moat
