// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Edit::map: maps a whole range with the largest leaves that fit, or fails without a change.
//
// It checks and writes the common case (one run of leaves in one existing table) in place.
// Otherwise `plan` finds overlaps and counts missing tables, the reserve allocates them, and
// `commit` writes and cannot fail. So a concurrent walker sees leaves appear in order and none
// vanish.
#pragma once

#include "moat/page_table/detail/descend.hpp"
#include "moat/page_table/detail/entry_writer.hpp"
#include "moat/page_table/detail/subtree.hpp"
#include "moat/page_table/detail/table_reserve.hpp"
#include "moat/page_table/invalidation.hpp"
#include "moat/page_table/page_table.hpp"

#include <cstdint>
#include <optional>

namespace moat {

struct MapOptions {
    /// The largest leaf has at most 2^largest_leaf_lg2 bytes ("PUD leaves off" is 21).
    unsigned largest_leaf_lg2 = 63;
};

namespace detail {

/// A request with checked values.
struct MapRequest {
    std::uint64_t start;
    std::uint64_t last;
    std::uint64_t physical;
    Word attributes; ///< as Format::attribute_word encodes them
    unsigned largest_leaf_lg2;
};

/// Edit::map_pages, table by table.
template <class Tree, unsigned L, class MemoryOf>
[[nodiscard]] std::uint64_t map_pages(const EntryWriter<Tree>& writer, Table<Tree, L> root,
                                      std::uint64_t start, std::uint64_t count, MemoryOf& memory_of,
                                      Word attributes) {
    using F = typename Tree::Format;
    for (std::uint64_t done = 0; done != count;) {
        const std::uint64_t at = start + (done << F::granule_lg2);
        const auto table = descend<0>(root, at);
        const unsigned first = entry_index<F, 0>(at);
        const std::uint64_t room = bit(table_span_lg2<F>(0) - F::granule_lg2) - first;
        const auto part = static_cast<unsigned>(room < count - done ? room : count - done);
        std::uint64_t any = 0;
        for_each_index(done, part, [&](std::uint64_t page) __attribute__((always_inline)) {
            any |= memory_of(page).value();
        });
        if (!table || any >> F::output_bits != 0 || !is_aligned(any, F::granule_lg2) ||
            !writer.all_absent(*table, first, part))
            return done;
        for_each_index(done, part, [&](std::uint64_t page) __attribute__((always_inline)) {
            writer.store(*table, static_cast<unsigned>(first + (page - done)),
                         F::template leaf_word<0>(memory_of(page).value(), attributes, 0));
        });
        done += part;
    }
    return count;
}

template <class Tree>
class Map {
  public:
    using F = typename Tree::Format;
    template <unsigned L>
    using MaybeTable = std::optional<Table<Tree, L>>;

    Map(const EntryWriter<Tree>& writer, PendingInvalidation<Tree>& pending,
        typename Tree::Memory& memory, const MapRequest& request)
        : writer_(writer), pending_(pending), memory_(memory), request_(request) {}

    /// Maps one run of leaves in an existing table. Return: the result of `across()` for pages in
    /// more than one table; false for any other case, without a change. Static, so that the common
    /// case constructs no object.
    template <unsigned L, class Across>
    [[gnu::always_inline]] static bool try_run(const EntryWriter<Tree>& writer, Table<Tree, L> root,
                                               const MapRequest& request, Across across) {
        if constexpr (can_be_leaf<F>(0))
            if (request.last - request.start == low_bits(entry_lg2<F>(0))) [[likely]]
                return try_table(writer, descend<0>(root, request.start), request);
        const unsigned fit_lg2 = alignment_lg2(request.start | (request.last + 1) |
                                               request.physical | bit(request.largest_leaf_lg2));
        return try_level<highest_leaf_level<F>() < L ? highest_leaf_level<F>() : L>(
            writer, root, fit_lg2, request, across);
    }

    /// Maps pages in two existing tables. Return: false for any other case, without a change.
    template <unsigned L>
    static bool try_two_tables(const EntryWriter<Tree>& writer, Table<Tree, L> root,
                               const MapRequest& request) {
        const auto runs = find_two_runs(root, request.start, request.last);
        if (!runs)
            return false;
        const auto& [lower, upper, in_lower, in_upper] = *runs;
        if (!writer.all_absent(lower, in_lower.first, in_lower.count) ||
            !writer.all_absent(upper, in_upper.first, in_upper.count))
            return false;
        const unsigned largest_group_lg2 = request.largest_leaf_lg2 - entry_lg2<F>(0);
        writer.fill(lower, in_lower.first, in_lower.count, request.physical, request.attributes,
                    largest_group_lg2);
        writer.fill(upper, in_upper.first, in_upper.count,
                    request.physical + (in_upper.start - request.start), request.attributes,
                    largest_group_lg2);
        return true;
    }

    template <unsigned L>
    Result<void> run(Table<Tree, L> root) {
        const auto& [start, last, physical, attributes, largest] = request_;
        if (!plan(root, start, last, physical))
            return fail(ErrorCode::overlap, "the range overlaps a mapping", {"start", start},
                        {"size", last - start + 1}, {"mapped_at", conflict_});
        TableReserve<Tree> reserve(memory_);
        if (auto reserved = reserve.add(tables_needed_); !reserved)
            return std::unexpected(reserved.error());
        commit<L>(root, start, last, physical, reserve);
        return {};
    }

  private:
    template <unsigned Leaf, unsigned L, class Across>
    [[gnu::always_inline]] static bool try_level(const EntryWriter<Tree>& writer,
                                                 Table<Tree, L> root, unsigned fit_lg2,
                                                 const MapRequest& request, Across across) {
        if constexpr (can_be_leaf<F>(Leaf))
            if (fit_lg2 >= entry_lg2<F>(Leaf)) {
                if (same_block(request.start, request.last, table_span_lg2<F>(Leaf))) [[likely]]
                    return try_table(writer, descend<Leaf>(root, request.start), request);
                return Leaf == 0 && across();
            }
        if constexpr (Leaf > 0)
            return try_level<Leaf - 1>(writer, root, fit_lg2, request, across);
        else
            return false;
    }

    template <unsigned Leaf>
    [[gnu::always_inline]] static bool
    try_table(const EntryWriter<Tree>& writer, MaybeTable<Leaf> table, const MapRequest& request) {
        if (!table)
            return false;
        const unsigned first = entry_index<F, Leaf>(request.start);
        if (request.last - request.start == low_bits(entry_lg2<F>(Leaf))) {
            if (table->load(first).kind() != EntryKind::absent)
                return false;
            writer.store(*table, first,
                         F::template leaf_word<Leaf>(request.physical, request.attributes, 0));
            return true;
        }
        const unsigned count = entry_index<F, Leaf>(request.last) - first + 1;
        return writer.fill_if_absent(*table, first, count, request.physical, request.attributes,
                                     request.largest_leaf_lg2 - entry_lg2<F>(Leaf));
    }

    /// Whether whole entries of level L become leaves, given the memory of one of them.
    template <unsigned L>
    [[nodiscard]] bool makes_leaves(std::uint64_t physical) const {
        return can_be_leaf<F>(L) && entry_lg2<F>(L) <= request_.largest_leaf_lg2 &&
               is_aligned(physical, entry_lg2<F>(L));
    }

    /// Return: false on an overlap, at `conflict_`.
    template <unsigned L>
    bool plan(Table<Tree, L> table, std::uint64_t start, std::uint64_t last,
              std::uint64_t physical) {
        return for_each_run<F, L>(
            start, last,
            [&](const Slot& slot) {
                return plan_entry(table, slot, physical + (slot.start - start), false);
            },
            [&](const EntryRun& run) {
                return plan_run(table, run, physical + (run.start - start));
            });
    }

    template <unsigned L>
    bool plan_run(Table<Tree, L> table, const EntryRun& run, std::uint64_t physical) {
        const bool is_leaf = makes_leaves<L>(physical);
        if (is_leaf && writer_.all_absent(table, run.first, run.count))
            return true;
        for (unsigned i = 0; i != run.count; ++i) {
            const Slot slot = run.slot(i, entry_lg2<F>(L));
            if (!plan_entry(table, slot, physical + (slot.start - run.start), is_leaf))
                return false;
        }
        return true;
    }

    template <unsigned L>
    bool plan_entry(Table<Tree, L> table, const Slot& slot, std::uint64_t physical, bool is_leaf) {
        return table.load(slot.index)
            .match(
                [&] {
                    if (!is_leaf)
                        plan_missing<L>(slot.start, slot.last, physical);
                    return true;
                },
                [&](auto) { return conflict(slot.start); },
                [&](auto below) {
                    if (!is_leaf)
                        return plan(below, slot.start, slot.last, physical);
                    replaces_tables_ = true;
                    return maps_nothing(below) || conflict(slot.start);
                });
    }

    /// Counts the tables that [start, last] needs below an absent entry of level L.
    template <unsigned L>
    void plan_missing(std::uint64_t start, std::uint64_t last, std::uint64_t physical) {
        if constexpr (L > 0) {
            ++tables_needed_;
            const auto below = [&](const Slot& slot) {
                plan_missing<L - 1>(slot.start, slot.last, physical + (slot.start - start));
                return true;
            };
            for_each_run<F, L - 1>(start, last, below, [&](const EntryRun& run) {
                if (!makes_leaves<L - 1>(physical + (run.start - start)))
                    for (unsigned i = 0; i != run.count; ++i)
                        below(run.slot(i, entry_lg2<F>(L - 1)));
                return true;
            });
        }
    }

    bool conflict(std::uint64_t address) {
        conflict_ = address;
        return false;
    }

    template <unsigned L>
    void commit(Table<Tree, L> table, std::uint64_t start, std::uint64_t last,
                std::uint64_t physical, TableReserve<Tree>& reserve) {
        for_each_run<F, L>(
            start, last,
            [&](const Slot& slot) {
                commit_below(table, slot, physical + (slot.start - start), reserve);
                return true;
            },
            [&](const EntryRun& run) {
                commit_run(table, run, physical + (run.start - start), reserve);
                return true;
            });
    }

    template <unsigned L>
    void commit_run(Table<Tree, L> table, const EntryRun& run, std::uint64_t physical,
                    TableReserve<Tree>& reserve) {
        const bool is_leaf = makes_leaves<L>(physical);
        if (!is_leaf || replaces_tables_)
            for (unsigned i = 0; i != run.count; ++i) {
                const Slot slot = run.slot(i, entry_lg2<F>(L));
                if (is_leaf)
                    clear_empty_table(table, slot);
                else
                    commit_below(table, slot, physical + (slot.start - run.start), reserve);
            }
        if constexpr (can_be_leaf<F>(L))
            if (is_leaf)
                writer_.fill(table, run.first, run.count, physical, request_.attributes,
                             request_.largest_leaf_lg2 - entry_lg2<F>(L));
    }

    template <unsigned L>
    void commit_below(Table<Tree, L> table, const Slot& slot, std::uint64_t physical,
                      TableReserve<Tree>& reserve) {
        if constexpr (L > 0)
            commit<L - 1>(ensure_below(table, slot.index, reserve), slot.start, slot.last, physical,
                          reserve);
    }

    /// Removes a table without leaves to make room for a leaf. Nothing was mapped there, but its
    /// entry may be cached: hardware uses the new leaf after the edit's end, or after the
    /// invalidation here if the format needs a break.
    template <unsigned L>
    void clear_empty_table(Table<Tree, L> table, const Slot& slot) {
        if constexpr (L > 0) {
            const Entry<Tree, L> entry = table.load(slot.index);
            if (entry.kind() != EntryKind::table)
                return;
            writer_.store(table, slot.index, 0);
            pending_.cover(slot.start, slot.last);
            remove_below(entry, memory_, pending_);
            if (F::capabilities.level_change == LiveChange::break_before_make)
                pending_.now();
        }
    }

    /// The table below entry `index`; links one if it is missing. A writer of a neighbouring range
    /// may link one first; then this returns that one.
    template <unsigned L>
    Table<Tree, L - 1> ensure_below(Table<Tree, L> table, unsigned index,
                                    TableReserve<Tree>& reserve) {
        std::optional<Table<Tree, L - 1>> found;
        while (!found)
            table.load(index).match(
                [&] {
                    const PhysicalAddress fresh = reserve.take();
                    Word expected = 0;
                    if (!writer_.compare_exchange(table, index, expected,
                                                  F::template table_word<L>(fresh.value())))
                        reserve.give_back(fresh);
                },
                [](auto) { MOAT_CHECK(false, "two edits of the same range at once"); },
                [&](auto below) { found = below; });
        return *found;
    }

    const EntryWriter<Tree>& writer_;
    PendingInvalidation<Tree>& pending_;
    typename Tree::Memory& memory_;
    const MapRequest request_;
    std::uint64_t tables_needed_ = 0;
    bool replaces_tables_ = false;
    std::uint64_t conflict_ = 0;
};

} // namespace detail

} // namespace moat
