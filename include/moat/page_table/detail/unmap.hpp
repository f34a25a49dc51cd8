// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Edit::unmap: removes leaves, and the tables that the range covers as a whole.
#pragma once

#include "moat/page_table/detail/cut.hpp"
#include "moat/page_table/detail/descend.hpp"
#include "moat/page_table/detail/entry_writer.hpp"
#include "moat/page_table/detail/subtree.hpp"
#include "moat/page_table/invalidation.hpp"

#include <cstdint>
#include <optional>

namespace moat {

/// The treatment of tables that the range covers as a whole.
enum class CoveredTables : std::uint8_t {
    remove, ///< unlinked, and freed after the invalidation and a grace period
    keep,   ///< left empty, for mappings that come and go
};

/// Whether unmap reports the accessed and dirty bits.
enum class FinalFlags : std::uint8_t {
    ignore,  ///< plain stores; bits that hardware sets at that moment are lost
    collect, ///< an exchange per entry; exact if the hardware is idle by the edit's end
};

struct UnmapOptions {
    PartialLeaf partial = PartialLeaf::refuse;
    Break breaking = Break::forbidden;
    CoveredTables tables = CoveredTables::remove;
    FinalFlags flags = FinalFlags::ignore;
};

/// The result of an unmap; `leaves` is 0 if nothing was mapped.
struct Unmapped {
    std::uint64_t bytes = 0;             ///< unmapped
    std::uint64_t leaves = 0;            ///< removed, after splitting
    std::uint64_t split = 0;             ///< leaves split at the range's ends
    Attributes flags = Attributes::none; ///< accessed and dirty of all leaves; with collect only
};

namespace detail {

template <class Tree>
class Unmap {
  public:
    using F = typename Tree::Format;

    Unmap(const EntryWriter<Tree>& writer, PendingInvalidation<Tree>& pending,
          typename Tree::Memory& memory, const UnmapOptions& options)
        : writer_(writer), pending_(pending), memory_(memory), options_(options) {}

    /// The common case: [start, last] is one leaf of one entry, or leaves of a part of one table.
    /// Return: what it unmapped; the result of `across()` if the first of the leaves is a page and
    /// they cross to another table; nothing, without a change, in any other case.
    template <unsigned L, class Across>
    [[gnu::always_inline]] static LeafCount try_run(const EntryWriter<Tree>& writer,
                                                    Table<Tree, L> table, std::uint64_t start,
                                                    std::uint64_t last, Across across) {
        const unsigned index = entry_index<F, L>(start);
        return table.load(index).match(
            []() __attribute__((always_inline)) { return LeafCount(); },
            [&](Leaf<Tree, L> leaf) __attribute__((always_inline)) {
                const std::uint64_t inside = low_bits(entry_lg2<F>(L));
                if (last - start == inside && (L == 0 || (start & inside) == 0) &&
                    F::template leaf_group_lg2<L>(leaf.word()) == 0) [[likely]] {
                    writer.store(table, index, 0);
                    return LeafCount{.bytes = inside + 1, .leaves = 1};
                }
                if (L == 0 && !same_block(start, last, table_span_lg2<F>(L))) [[unlikely]]
                    return across();
                return clear_run(writer, table, start, last);
            },
            [&](auto below) __attribute__((always_inline)) {
                return try_run(writer, below, start, last, across);
            });
    }

    /// The next most common: pages of two tables. Return: as try_run.
    template <unsigned L>
    static LeafCount try_two_tables(const EntryWriter<Tree>& writer, Table<Tree, L> root,
                                    std::uint64_t start, std::uint64_t last) {
        const auto runs = find_two_runs(root, start, last);
        if (!runs || is_cut(runs->lower, runs->in_lower.first, start) ||
            is_cut(runs->upper, runs->in_upper.count - 1, last + 1))
            return {};
        LeafCount done = writer.clear(runs->lower, runs->in_lower.first, runs->in_lower.count);
        done += writer.clear(runs->upper, 0, runs->in_upper.count);
        return done;
    }

    template <unsigned L>
    Result<Unmapped> run(Table<Tree, L> root, std::uint64_t start, std::uint64_t last) {
        Cut<Tree> cut(writer_, pending_, memory_);
        if (auto done = cut.run(root, start, last, options_.partial, options_.breaking); !done)
            return std::unexpected(done.error());
        result_.split = cut.leaves_split();
        clear(root, start, last);
        result_.bytes = count_.bytes;
        result_.leaves = count_.leaves;
        return result_;
    }

  private:
    /// Clears the entries of [start, last] if these are whole entries of one table, not all of it,
    /// and none holds a table. Return: as try_run.
    template <unsigned L>
    [[gnu::noinline]] static LeafCount clear_run(const EntryWriter<Tree>& writer,
                                                 Table<Tree, L> table, std::uint64_t start,
                                                 std::uint64_t last) {
        constexpr unsigned lg2 = entry_lg2<F>(L);
        constexpr unsigned span_lg2 = table_span_lg2<F>(L);
        if (F::leaf_groups(L) != 1 || !is_aligned(start | (last + 1), lg2) ||
            !same_block(start, last, span_lg2) || last - start == low_bits(span_lg2))
            return {};
        const unsigned first = entry_index<F, L>(start);
        const auto count = static_cast<unsigned>((last - start + 1) >> lg2);
        if constexpr (L != 0)
            for (unsigned i = first; i != first + count; ++i)
                if (table.load(i).kind() == EntryKind::table)
                    return {};
        return writer.clear(table, first, count);
    }

    /// Whether the entry is of a group that lies across `boundary`, one of the entry's ends.
    static bool is_cut(Table<Tree, 0> table, unsigned index, std::uint64_t boundary) {
        if constexpr (F::leaf_groups(0) == 1)
            return false;
        return table.load(index).match(
            [] { return false; },
            [&](Leaf<Tree, 0> leaf) { return !is_aligned(boundary, leaf.size_lg2()); },
            [](auto) { return false; });
    }

    /// After the cut, an entry that the range covers in part holds no leaf.
    template <unsigned L>
    void clear(Table<Tree, L> table, std::uint64_t start, std::uint64_t last) {
        for_each_run<F, L>(
            start, last,
            [&](const Slot& slot) {
                table.load(slot.index)
                    .match([] {}, [](auto) {},
                           [&](auto below) { clear(below, slot.start, slot.last); });
                return true;
            },
            [&](const EntryRun& run) {
                if constexpr (L == 0)
                    clear_pages(table, run);
                else
                    clear_entries(table, run);
                return true;
            });
    }

    /// A run of level 0 is invalidated as one, holes included.
    void clear_pages(Table<Tree, 0> table, const EntryRun& run) {
        if (options_.flags == FinalFlags::collect) {
            clear_entries(table, run);
            return;
        }
        const LeafCount found = writer_.clear(table, run.first, run.count);
        count_ += found;
        if (found.leaves != 0)
            cover(table, run, 0, run.count);
    }

    /// Leaves side by side are invalidated as one.
    template <unsigned L>
    void clear_entries(Table<Tree, L> table, const EntryRun& run) {
        const bool collect = options_.flags == FinalFlags::collect;
        LeafCounter<F, L> found;
        unsigned first = 0; // of the leaves side by side
        for (unsigned i = 0; i != run.count; ++i) {
            const unsigned index = run.first + i;
            const Entry<Tree, L> entry = table.load(index);
            const auto end_leaves = [&] {
                cover(table, run, first, i);
                first = i + 1;
            };
            entry.match(
                end_leaves,
                [&](Leaf<Tree, L> leaf) {
                    found.add(leaf.word(), index);
                    if (collect)
                        collect_entry(table, index);
                    else
                        writer_.store(table, index, 0);
                },
                [&](auto below) {
                    end_leaves();
                    clear_table(table, run.slot(i, entry_lg2<F>(L)), entry, below);
                });
        }
        cover(table, run, first, run.count);
        count_ += found.count();
    }

    /// Invalidates the entries of a run from its first-th up to its end-th.
    template <unsigned L>
    void cover(Table<Tree, L>, const EntryRun& run, unsigned first, unsigned end) {
        if (first != end)
            pending_.cover(run.slot(first, entry_lg2<F>(L)).start,
                           run.slot(end - 1, entry_lg2<F>(L)).last);
    }

    template <unsigned L>
    void clear_table(Table<Tree, L> table, const Slot& slot, Entry<Tree, L> entry,
                     Table<Tree, L - 1> below) {
        const bool remove = options_.tables == CoveredTables::remove;
        const bool collect = options_.flags == FinalFlags::collect;
        if (!remove || collect)
            clear(below, slot.start, slot.last);
        if (!remove)
            return;
        writer_.store(table, slot.index, 0);
        pending_.cover(slot.start, slot.last);
        remove_below(entry, memory_, pending_, collect ? nullptr : &count_);
    }

    template <unsigned L>
    void collect_entry(Table<Tree, L> table, unsigned index) {
        const Word old = writer_.exchange(table, index, 0);
        result_.flags |= F::template leaf_attributes<L>(old) & accessed_and_dirty;
    }

    const EntryWriter<Tree>& writer_;
    PendingInvalidation<Tree>& pending_;
    typename Tree::Memory& memory_;
    const UnmapOptions options_;
    LeafCount count_;
    Unmapped result_;
};

} // namespace detail

} // namespace moat
