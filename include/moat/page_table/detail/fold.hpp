// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Edit::fold: replaces a table with one larger leaf that maps the same.
#pragma once

#include "moat/page_table/detail/cut.hpp"
#include "moat/page_table/detail/entry_writer.hpp"
#include "moat/page_table/detail/rewrite.hpp"
#include "moat/page_table/detail/subtree.hpp"
#include "moat/page_table/invalidation.hpp"

#include <cstdint>

namespace moat::detail {

template <class Tree>
class Fold {
  public:
    using F = typename Tree::Format;

    Fold(const EntryWriter<Tree>& writer, PendingInvalidation<Tree>& pending,
         typename Tree::Memory& memory, Break breaking)
        : writer_(writer), pending_(pending), memory_(memory), breaking_(breaking) {}

    /// Replaces the table that covers exactly [start, last] with a leaf one level up.
    template <unsigned L>
    Result<void> run(Table<Tree, L> table, std::uint64_t start, std::uint64_t last) {
        const unsigned index = entry_index<F, L>(start);
        const Entry<Tree, L> entry = table.load(index);
        return entry.match([&] { return mismatch("there is no table to fold", start); },
                           [&](auto) { return mismatch("a leaf maps this already", start); },
                           [&](auto below) {
                               if (last - start != low_bits(entry_lg2<F>(L)))
                                   return below_or_mismatch(below, start, last);
                               return fold(table, index, entry, below, start);
                           });
    }

  private:
    static Result<void> mismatch(const char* sentence, std::uint64_t address) {
        return fail(ErrorCode::mismatch, sentence, {"address", address});
    }

    template <unsigned L>
    Result<void> below_or_mismatch(Table<Tree, L> below, std::uint64_t start, std::uint64_t last) {
        if constexpr (L > 0)
            return run(below, start, last);
        else
            return mismatch("no larger leaf has this size", start);
    }

    template <unsigned L>
    Result<void> fold(Table<Tree, L> table, unsigned index, Entry<Tree, L> entry,
                      Table<Tree, L - 1> below, std::uint64_t start) {
        if (!can_be_leaf<F>(L))
            return fail(ErrorCode::unsupported, "the format has no leaf of this size",
                        {"start", start}, {"size", bit(entry_lg2<F>(L))});
        if (F::capabilities.level_change == LiveChange::break_before_make &&
            breaking_ == Break::forbidden)
            return fail(ErrorCode::refused,
                        "the format folds a live table only by break-before-make", {"start", start},
                        {"size", bit(entry_lg2<F>(L))});
        if (const auto alike = all_alike(below, start); !alike)
            return std::unexpected(alike.error());
        pending_.cover(start, start + low_bits(entry_lg2<F>(L)));
        if (F::capabilities.level_change == LiveChange::break_before_make) {
            writer_.store(table, index, 0);
            remove_below(entry, memory_, pending_);
            const Word leaf = folded<L>(below, FlagUpdate::none);
            const Invalidated how = pending_.invalidate_tables();
            writer_.store(table, index,
                          F::merge_accessed_dirty(leaf, folded<L>(below, FlagUpdate::none)));
            pending_.retire_tables(how); // not before the flags were read from it
        } else {
            writer_.store(table, index, folded<L>(below, F::capabilities.dirty));
            remove_below(entry, memory_, pending_);
        }
        return {};
    }

    /// Whether every entry is a leaf with the same attributes, on contiguous memory aligned for the
    /// larger leaf.
    template <unsigned L>
    Result<void> all_alike(Table<Tree, L> table, std::uint64_t start) const {
        const Entry<Tree, L> first = table.load(0);
        if (first.kind() != EntryKind::leaf)
            return mismatch("not every entry of the table is a leaf", start);
        const std::uint64_t physical = F::template leaf_physical<L>(first.word());
        const Attributes attributes = stable_attributes<L>(first.word());
        if (!is_aligned(physical, entry_lg2<F>(L + 1)))
            return mismatch("the memory is not aligned to the larger leaf", start);
        for (unsigned i = 0; i != Table<Tree, L>::entries; ++i) {
            const std::uint64_t address = start + (std::uint64_t{i} << entry_lg2<F>(L));
            const Word word = table.load(i).word();
            if (F::template kind<L>(word) != EntryKind::leaf)
                return mismatch("not every entry of the table is a leaf", address);
            if (F::template leaf_physical<L>(word) !=
                    physical + align_down(address - start, group_bytes_lg2<L>(word)) ||
                stable_attributes<L>(word) != attributes)
                return mismatch("the leaves are not one piece of memory with one set of attributes",
                                address);
        }
        return {};
    }

    template <unsigned L>
    static unsigned group_bytes_lg2(Word word) {
        return entry_lg2<F>(L) + F::template leaf_group_lg2<L>(word);
    }

    template <unsigned L>
    static Attributes stable_attributes(Word word) {
        return F::template leaf_attributes<L>(word) - accessed_and_dirty;
    }

    /// The leaf of level L that maps the same as `below`. Hardware may set dirty in the old table
    /// until the invalidation, and nobody reads it there; so a writable leaf becomes dirty at once.
    template <unsigned L>
    static Word folded(Table<Tree, L - 1> below, FlagUpdate dirty_meanwhile) {
        const Word first = below.load(0).word();
        Attributes attributes = F::template leaf_attributes<L - 1>(first);
        for (unsigned i = 0; i != Table<Tree, L - 1>::entries; ++i)
            attributes |=
                F::template leaf_attributes<L - 1>(below.load(i).word()) & accessed_and_dirty;
        if (dirty_meanwhile == FlagUpdate::hardware && has(attributes, Attributes::write))
            attributes |= accessed_and_dirty;
        return F::template leaf_word<L>(F::template leaf_physical<L - 1>(first),
                                        exact_attribute_word<F>(attributes), 0);
    }

    const EntryWriter<Tree>& writer_;
    PendingInvalidation<Tree>& pending_;
    typename Tree::Memory& memory_;
    const Break breaking_;
};

} // namespace moat::detail
