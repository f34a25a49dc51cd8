// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Memory of page tables for scenarios that run the shipped engine under the explorer.
#pragma once

#include "moat/core/check.hpp"
#include "moat/core/result.hpp"
#include "moat/page_table/table_memory.hpp"

#include "lab/explore/explored_sync.hpp"

#include <array>
#include <cstddef>

namespace moat::scenarios {

/// Tables in the arena; their physical address is their offset there. An execution never reuses a
/// released table, so that the explorer catches any later read of it.
class ArenaTables {
  public:
    static constexpr std::size_t most = 16;

    Result<PhysicalAddress> allocate(unsigned bytes_lg2) {
        explore::Arena& arena = explore::Machine::current().arena();
        void* const words = arena.allocate(bit(bytes_lg2), bit(bytes_lg2));
        if (words == nullptr)
            return fail(ErrorCode::no_memory, "the arena has no room for a table");
        return PhysicalAddress(arena.offset_of(words));
    }

    void release(PhysicalAddress table, unsigned bytes_lg2) {
        if (table < linked_end_)
            ExploredSync::check(invalidated_.load(std::memory_order_seq_cst),
                                "a linked table is freed before its invalidation");
        explored::announce(explore::Kind::free, words(table), bit(bytes_lg2));
        ++released_;
    }

    /// All tables so far are linked, and a device may cache their entries.
    void all_are_linked() {
        linked_end_ = PhysicalAddress(explore::Machine::current().arena().offset_of(
            explore::Machine::current().arena().allocate(1, 1)));
    }

    void invalidated() { invalidated_.store(true, std::memory_order_seq_cst); }

    [[nodiscard]] unsigned released() const { return released_; }

    [[nodiscard]] Word* words(PhysicalAddress table) const {
        return reinterpret_cast<Word*>(explore::Machine::current().arena().base() + table.value());
    }

    /// Headers outlive their tables.
    [[nodiscard]] TableHeader& header(PhysicalAddress table) {
        for (std::size_t i = 0; i != most; ++i)
            if (owners_[i] == table || owners_[i] == PhysicalAddress(0)) {
                owners_[i] = table;
                return headers_[i];
            }
        MOAT_CHECK(false, "the scenario makes few tables");
        return headers_[0];
    }

  private:
    std::array<PhysicalAddress, most> owners_{};
    std::array<TableHeader, most> headers_{};
    unsigned released_ = 0;
    PhysicalAddress linked_end_{0};
    ExploredSync::Atomic<bool> invalidated_{false};
};

} // namespace moat::scenarios
