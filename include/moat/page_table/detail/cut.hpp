// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Splits the leaves that lie across the two ends of a range, before an operation changes a part of
// them. There are at most two; all checks and reservations come before the first split.
#pragma once

#include "moat/page_table/detail/rewrite.hpp"
#include "moat/page_table/detail/table_reserve.hpp"
#include "moat/page_table/page_table.hpp"

#include <cstdint>

namespace moat {

/// The treatment of a leaf that lies only partly in the range of an operation.
enum class PartialLeaf : std::uint8_t {
    refuse, ///< the operation fails and changes nothing
    split,  ///< smaller leaves replace it; those outside the range translate as before
};

/// Whether an operation may remove live translations for a moment, also beside its range, on
/// hardware with break-before-make. With `allowed`, the edit owns every leaf that it touches as a
/// whole; a device that uses such a leaf at that moment faults.
enum class Break : std::uint8_t { forbidden, allowed };

namespace detail {

template <class Tree>
class Cut {
  public:
    using F = typename Tree::Format;

    Cut(const EntryWriter<Tree>& writer, PendingInvalidation<Tree>& pending,
        typename Tree::Memory& memory)
        : rewrite_(writer, pending), memory_(memory), reserve_(memory) {}

    /// Splits so that no leaf lies across either end of [start, last]. Errors: refused (by either
    /// policy; the error names the leaf), no_memory; it changes nothing then.
    template <unsigned L>
    Result<void> run(Table<Tree, L> root, std::uint64_t start, std::uint64_t last,
                     PartialLeaf partial, Break breaking) {
        const Edge edges[] = {{start, start}, {last, last + 1}};
        if (!is_crossed(root, edges[0]) && !is_crossed(root, edges[1])) [[likely]]
            return {};
        for (const Edge& edge : edges)
            if (auto allowed = inspect(root, edge, partial, breaking); !allowed)
                return allowed;
        if (auto reserved = reserve_.add(tables_needed_); !reserved)
            return reserved;
        for (const Edge& edge : edges)
            split_at(root, edge);
        return {};
    }

    /// How many leaves it split.
    [[nodiscard]] std::uint64_t leaves_split() const { return leaves_split_; }

  private:
    /// An end of the range. The walks go to the address inside, since another edit may free a table
    /// that only the other side of the boundary lies in. A leaf across the boundary has both.
    struct Edge {
        std::uint64_t inside;
        std::uint64_t boundary; ///< 0 at 2^64, where every leaf ends
    };

    /// Whether a leaf lies across the boundary.
    template <unsigned L>
    [[nodiscard]] bool is_crossed(Table<Tree, L> table, const Edge& edge) const {
        return table.load(entry_index<F, L>(edge.inside))
            .match([] { return false; },
                   [&](Leaf<Tree, L> leaf) { return !is_aligned(edge.boundary, leaf.size_lg2()); },
                   [&](auto below) { return is_crossed(below, edge); });
    }

    template <unsigned L>
    Result<void> inspect(Table<Tree, L> table, const Edge& edge, PartialLeaf partial,
                         Break breaking) {
        return table.load(entry_index<F, L>(edge.inside))
            .match([]() -> Result<void> { return {}; },
                   [&](Leaf<Tree, L> leaf) -> Result<void> {
                       if (is_aligned(edge.boundary, leaf.size_lg2()))
                           return {};
                       return inspect_leaf(leaf, edge.boundary, partial, breaking);
                   },
                   [&](auto below) { return inspect(below, edge, partial, breaking); });
    }

    template <unsigned L>
    Result<void> inspect_leaf(Leaf<Tree, L> leaf, std::uint64_t boundary, PartialLeaf partial,
                              Break breaking) {
        const std::uint64_t start = align_down(boundary, leaf.size_lg2());
        if (partial == PartialLeaf::refuse)
            return fail(ErrorCode::refused, "the range covers a leaf in part",
                        {"boundary", boundary}, {"leaf", start},
                        {"leaf_size", leaf.size().value()});
        const bool grouped = F::template leaf_group_lg2<L>(leaf.word()) != 0;
        const bool lower = !is_aligned(boundary, entry_lg2<F>(L));
        const bool breaks =
            (grouped && F::capabilities.group_change == LiveChange::break_before_make) ||
            (lower && F::capabilities.level_change == LiveChange::break_before_make);
        if (breaks && breaking == Break::forbidden)
            return fail(
                ErrorCode::refused, "the format splits a live leaf only by break-before-make",
                {"boundary", boundary}, {"leaf", start}, {"leaf_size", leaf.size().value()});
        for (unsigned level = 1; level <= L; ++level)
            tables_needed_ += is_aligned(boundary, entry_lg2<F>(level)) ? 0 : 1;
        return {};
    }

    template <unsigned L>
    void split_at(Table<Tree, L> table, const Edge& edge) {
        const unsigned index = entry_index<F, L>(edge.inside);
        bool again = true;
        while (again)
            again = table.load(index).match(
                [] { return false; },
                [&](Leaf<Tree, L> leaf) {
                    if (is_aligned(edge.boundary, leaf.size_lg2()))
                        return false;
                    split(PlacedLeaf<Tree, L>(table, index, leaf, edge.inside));
                    return true;
                },
                [&](auto below) {
                    split_at(below, edge);
                    return false;
                });
    }

    template <unsigned L>
    void split(const PlacedLeaf<Tree, L>& leaf) {
        ++leaves_split_;
        if (leaf.members() > 1)
            rewrite_.split_group(leaf);
        else if constexpr (L > 0)
            rewrite_.split_level(leaf, memory_, reserve_);
    }

    Rewrite<Tree> rewrite_;
    typename Tree::Memory& memory_;
    TableReserve<Tree> reserve_;
    std::uint64_t tables_needed_ = 0;
    std::uint64_t leaves_split_ = 0;
};

} // namespace detail

} // namespace moat
