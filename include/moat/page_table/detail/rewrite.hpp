// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Changing leaves that are live: other properties, smaller leaves; in place where the format allows
// it, else absent first. What the hardware notes in accessed and dirty meanwhile is never lost.
// Split and protect use it.
#pragma once

#include "moat/page_table/detail/entry_writer.hpp"
#include "moat/page_table/detail/table_reserve.hpp"
#include "moat/page_table/invalidation.hpp"

#include <cstdint>

namespace moat::detail {

/// The attribute bits for exactly `attributes`, accessed and dirty included: what a format presets
/// is taken back where it is not asked for.
template <class F>
[[nodiscard]] constexpr Word exact_attribute_word(Attributes attributes) {
    return F::clear_accessed_dirty(F::attribute_word(attributes),
                                   accessed_and_dirty - (attributes & accessed_and_dirty));
}

/// A leaf of level L as it stands in a table.
template <class Tree, unsigned L>
struct PlacedLeaf {
    using F = typename Tree::Format;

    Table<Tree, L> table;
    unsigned first; ///< the index of the group's first entry
    Leaf<Tree, L> leaf;
    std::uint64_t start; ///< the input address of its first byte

    PlacedLeaf(Table<Tree, L> in, unsigned index, Leaf<Tree, L> found, std::uint64_t inside)
        : table(in), first(index & ~static_cast<unsigned>(low_bits(group_lg2(found)))), leaf(found),
          start(align_down(inside, found.size_lg2())) {}

    static unsigned group_lg2(Leaf<Tree, L> found) {
        return F::template leaf_group_lg2<L>(found.word());
    }

    [[nodiscard]] unsigned members() const { return 1U << group_lg2(leaf); }

    [[nodiscard]] std::uint64_t last() const { return start + low_bits(leaf.size_lg2()); }

    [[nodiscard]] std::uint64_t physical_of(unsigned member) const {
        return leaf.physical().value() + (std::uint64_t{member} << entry_lg2<F>(L));
    }
};

template <class Tree>
class Rewrite {
  public:
    using F = typename Tree::Format;

    Rewrite(const EntryWriter<Tree>& writer, PendingInvalidation<Tree>& pending)
        : writer_(writer), pending_(pending) {}

    /// A leaf of more than one entry becomes its members; each translates as before. Members that
    /// others have changed since are left alone.
    template <unsigned L>
    void split_group(const PlacedLeaf<Tree, L>& leaf) {
        const Word flags =
            replace_members(leaf, F::capabilities.group_change, [&](unsigned member, Word old) {
                const Attributes attributes = F::template leaf_attributes<L>(old);
                return F::template leaf_word<L>(leaf.physical_of(member),
                                                exact_attribute_word<F>(attributes), 0);
            });
        // Hardware notes the use of any member in one of them. It is a use of each.
        for (unsigned member = 0; member != leaf.members(); ++member)
            merge_flags(leaf, member, flags);
    }

    /// Every entry of the leaf gets `attributes`; accessed and dirty stay as they are.
    template <unsigned L>
    void protect(const PlacedLeaf<Tree, L>& leaf, Attributes attributes) {
        const Word bits = exact_attribute_word<F>(attributes - accessed_and_dirty);
        const unsigned group_lg2 = leaf.group_lg2(leaf.leaf);
        const Word first = F::template leaf_word<L>(leaf.leaf.physical().value(), bits, group_lg2);
        const Word step = group_lg2 == 0 ? 0 : F::template entry_step<L>(group_lg2);
        const LiveChange how = group_lg2 == 0 ? LiveChange::in_place : F::capabilities.group_change;
        replace_members(leaf, how, [&](unsigned member, Word old) {
            return F::merge_accessed_dirty(first + member * step, old);
        });
    }

    /// A leaf of one entry becomes a table of leaves one level down; each translates as before.
    /// Another writer of a part of the leaf may do the same first; then it is done.
    template <unsigned L>
        requires(L > 0)
    void split_level(const PlacedLeaf<Tree, L>& leaf, typename Tree::Memory& memory,
                     TableReserve<Tree>& reserve) {
        const PhysicalAddress below = reserve.take();
        const Word link = F::template table_word<L>(below.value());
        pending_.cover(leaf.start, leaf.last());
        if (F::capabilities.level_change == LiveChange::break_before_make) {
            const Word old = writer_.exchange(leaf.table, leaf.first, 0);
            MOAT_CHECK(F::template kind<L>(old) == EntryKind::leaf,
                       "who splits by break-before-make owns the whole leaf");
            pending_.now();
            fill_below<L>(memory, below, old);
            writer_.store(leaf.table, leaf.first, link);
            return;
        }
        Word old = leaf.leaf.word();
        do {
            if (F::template kind<L>(old) != EntryKind::leaf) {
                clear_below<L>(memory, below);
                reserve.give_back(below);
                return;
            }
            fill_below<L>(memory, below, old);
        } while (!writer_.compare_exchange(leaf.table, leaf.first, old, link));
    }

  private:
    /// Replaces each entry of the leaf by `fresh(member, old)`, given what it was just then.
    /// Return: an entry of the leaf with accessed and dirty as any entry had them.
    template <unsigned L, class Fresh>
    Word replace_members(const PlacedLeaf<Tree, L>& leaf, LiveChange how, Fresh fresh) {
        pending_.cover(leaf.start, leaf.last());
        Word flags = leaf.leaf.word();
        if (how == LiveChange::in_place) {
            for (unsigned member = 0; member != leaf.members(); ++member)
                flags = F::merge_accessed_dirty(flags, replace_in_place(leaf, member, fresh));
            return flags;
        }
        for (unsigned member = 0; member != leaf.members(); ++member)
            flags = F::merge_accessed_dirty(flags,
                                            writer_.exchange(leaf.table, leaf.first + member, 0));
        pending_.now();
        for (unsigned member = 0; member != leaf.members(); ++member)
            writer_.store(leaf.table, leaf.first + member, fresh(member, flags));
        return flags;
    }

    /// Return: what was replaced, or the leaf's own word where another writer was there first.
    template <unsigned L, class Fresh>
    Word replace_in_place(const PlacedLeaf<Tree, L>& leaf, unsigned member, Fresh fresh) {
        Word old = leaf.table.load(leaf.first + member).word();
        do {
            const bool same_leaf = F::template kind<L>(old) == EntryKind::leaf &&
                                   F::template leaf_group_lg2<L>(old) == leaf.group_lg2(leaf.leaf);
            if (!same_leaf)
                return leaf.leaf.word();
        } while (
            !writer_.compare_exchange(leaf.table, leaf.first + member, old, fresh(member, old)));
        return old;
    }

    /// Adds the flags of `from` to what has become of a member, if it maps still.
    template <unsigned L>
    void merge_flags(const PlacedLeaf<Tree, L>& leaf, unsigned member, Word from) {
        Word old = leaf.table.load(leaf.first + member).word();
        while (F::template kind<L>(old) == EntryKind::leaf &&
               !writer_.compare_exchange(leaf.table, leaf.first + member, old,
                                         F::merge_accessed_dirty(old, from))) {
        }
    }

    /// Plain leaves, so that any of them can be cut out next.
    template <unsigned L>
    void fill_below(typename Tree::Memory& memory, PhysicalAddress below, Word leaf) const {
        const Attributes attributes = F::template leaf_attributes<L>(leaf);
        writer_.fill(writer_.template unlinked<L - 1>(memory, below), 0,
                     Table<Tree, L - 1>::entries, F::template leaf_physical<L>(leaf),
                     exact_attribute_word<F>(attributes), 0);
    }

    template <unsigned L>
    void clear_below(typename Tree::Memory& memory, PhysicalAddress below) const {
        const auto table = writer_.template unlinked<L - 1>(memory, below);
        for (unsigned i = 0; i != Table<Tree, L - 1>::entries; ++i)
            writer_.store(table, i, 0);
    }

    const EntryWriter<Tree>& writer_;
    PendingInvalidation<Tree>& pending_;
};

} // namespace moat::detail
