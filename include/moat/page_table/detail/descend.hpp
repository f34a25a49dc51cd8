// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The way down to one table, and to the two last tables of a range that crosses from one to the
// next. Each step goes through a snapshot.
#pragma once

#include "moat/page_table/detail/geometry.hpp"
#include "moat/page_table/entry.hpp"

#include <cstdint>
#include <optional>

namespace moat::detail {

/// The table of level `Target` on the way to `address`, if it exists.
template <unsigned Target, class Tree, unsigned L>
[[gnu::always_inline]] inline std::optional<Table<Tree, Target>> descend(Table<Tree, L> table,
                                                                         std::uint64_t address) {
    using Found = std::optional<Table<Tree, Target>>;
    if constexpr (L == Target)
        return table;
    else
        return table.load(entry_index<typename Tree::Format, L>(address))
            .match([]() __attribute__((always_inline)) { return Found(); },
                   [](auto) __attribute__((always_inline)) { return Found(); },
                   [&](auto below)
                       __attribute__((always_inline)) { return descend<Target>(below, address); });
}

/// Pages in two neighbouring tables of level 0.
template <class Tree>
struct TwoRuns {
    Table<Tree, 0> lower;
    Table<Tree, 0> upper;
    EntryRun in_lower;
    EntryRun in_upper;
};

/// Where [start, last], which crosses from one table of pages to the next, lies if it is no longer
/// than a table, both exist, and the table above them is one. Most ranges that cross are such.
template <class Tree, unsigned L>
[[gnu::always_inline]] inline std::optional<TwoRuns<Tree>>
find_two_runs(Table<Tree, L> root, std::uint64_t start, std::uint64_t last) {
    using F = typename Tree::Format;
    constexpr unsigned span_lg2 = table_span_lg2<F>(0);
    if constexpr (L > 0) {
        if (last - start > low_bits(span_lg2) || !same_block(start, last, table_span_lg2<F>(1)))
            return std::nullopt;
        const auto above = descend<1>(root, start);
        if (!above)
            return std::nullopt;
        const auto lower = descend<0>(*above, start);
        const auto upper = descend<0>(*above, last);
        const unsigned first = entry_index<F, 0>(start);
        if (lower && upper)
            return TwoRuns<Tree>{*lower,
                                 *upper,
                                 {first, Table<Tree, 0>::entries - first, start},
                                 {0, entry_index<F, 0>(last) + 1, align_down(last, span_lg2)}};
    }
    return std::nullopt;
}

} // namespace moat::detail
