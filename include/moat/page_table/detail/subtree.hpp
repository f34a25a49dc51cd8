// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A table with everything below it: counts what it maps, and frees it. For operations whose range
// covers a whole table.
#pragma once

#include "moat/page_table/detail/entry_writer.hpp"
#include "moat/page_table/invalidation.hpp"

#include <cstdint>

namespace moat::detail {

/// The sum of what a subtree maps.
struct LeafCount {
    std::uint64_t bytes = 0;
    std::uint64_t leaves = 0;
};

/// Adds one entry of a leaf: its bytes, and the leaf if it is the group's first entry.
template <class F, unsigned L>
void count_leaf_entry(Word word, unsigned index, LeafCount& count) {
    count.bytes += bit(entry_lg2<F>(L));
    count.leaves += is_aligned(index, F::template leaf_group_lg2<L>(word)) ? 1 : 0;
}

template <class Tree, unsigned L>
void count_leaves(Table<Tree, L> table, LeafCount& count) {
    for (unsigned i = 0; i != Table<Tree, L>::entries; ++i)
        table.load(i).match(
            [] {},
            [&](auto leaf) { count_leaf_entry<typename Tree::Format, L>(leaf.word(), i, count); },
            [&](auto below) { count_leaves(below, count); });
}

template <class Tree, unsigned L>
[[nodiscard]] bool maps_nothing(Table<Tree, L> table) {
    for (unsigned i = 0; i != Table<Tree, L>::entries; ++i)
        if (!table.load(i).match([] { return true; }, [](auto) { return false; },
                                 [](auto below) { return maps_nothing(below); }))
            return false;
    return true;
}

/// Queues the table below `entry` and all tables below that to be freed. Keeps their entries:
/// hardware and readers may still use them.
template <class Tree, unsigned L>
void remove_below(Entry<Tree, L> entry, typename Tree::Memory& memory,
                  PendingInvalidation<Tree>& pending) {
    using F = typename Tree::Format;
    entry.match([] {}, [](auto) {},
                [&](auto below) {
                    for (unsigned i = 0; i != decltype(below)::entries; ++i)
                        remove_below(below.load(i), memory, pending);
                    pending.remove(memory,
                                   PhysicalAddress(F::template table_physical<L>(entry.word())),
                                   F::granule_lg2);
                });
}

} // namespace moat::detail
