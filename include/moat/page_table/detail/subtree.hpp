// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A table with everything below it: counts what it maps, and frees it. For operations whose range
// covers a whole table.
#pragma once

#include "moat/page_table/detail/entry_writer.hpp"
#include "moat/page_table/invalidation.hpp"

namespace moat::detail {

template <class Tree, unsigned L>
[[nodiscard]] bool maps_nothing(Table<Tree, L> table) {
    for (unsigned i = 0; i != Table<Tree, L>::entries; ++i)
        if (!table.load(i).match([] { return true; }, [](auto) { return false; },
                                 [](auto below) { return maps_nothing(below); }))
            return false;
    return true;
}

/// Queues the table below `entry` and all tables below that to be freed, and adds what they map to
/// `count`, if there is one. Keeps their entries: hardware and readers may still use them.
template <class Tree, unsigned L>
void remove_below(Entry<Tree, L> entry, typename Tree::Memory& memory,
                  PendingInvalidation<Tree>& pending, LeafCount* count = nullptr) {
    using F = typename Tree::Format;
    const auto remove_entries = [&]<unsigned B>(Table<Tree, B> below) {
        constexpr unsigned entries = Table<Tree, B>::entries;
        LeafCounter<F, B> found;
        const auto visit = [&](unsigned index) {
            const Entry<Tree, B> each = below.load(index);
            found.add(each.word(), index);
            if constexpr (B > 0)
                remove_below(each, memory, pending, count);
        };
        static_assert(entries % 4 == 0);
        for (unsigned i = 0; i != entries && (B > 0 || count != nullptr); i += 4) {
            visit(i);
            visit(i + 1);
            visit(i + 2);
            visit(i + 3);
        }
        if (count != nullptr)
            *count += found.count();
        pending.remove(memory, PhysicalAddress(F::template table_physical<L>(entry.word())),
                       F::granule_lg2);
    };
    entry.match([] {}, [](auto) {}, remove_entries);
}

} // namespace moat::detail
