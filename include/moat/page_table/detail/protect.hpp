// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Edit::protect and Edit::clear_accessed_dirty: change the bits of existing leaves.
#pragma once

#include "moat/page_table/detail/cut.hpp"
#include "moat/page_table/detail/rewrite.hpp"

#include <cstdint>

namespace moat {

struct ProtectOptions {
    PartialLeaf partial = PartialLeaf::refuse;
    Break breaking = Break::forbidden;
};

/// The result of a protect; `leaves` is 0 if nothing was mapped.
struct Protected {
    std::uint64_t bytes = 0;  ///< with the new attributes
    std::uint64_t leaves = 0; ///< after splitting
    std::uint64_t split = 0;  ///< leaves split at the range's ends
};

namespace detail {

template <class Tree>
class Protect {
  public:
    using F = typename Tree::Format;

    Protect(const EntryWriter<Tree>& writer, PendingInvalidation<Tree>& pending,
            typename Tree::Memory& memory, const ProtectOptions& options)
        : writer_(writer), pending_(pending), memory_(memory), options_(options) {}

    template <unsigned L>
    Result<Protected> run(Table<Tree, L> root, std::uint64_t start, std::uint64_t last,
                          Attributes attributes) {
        if (options_.breaking == Break::forbidden &&
            F::capabilities.group_change == LiveChange::break_before_make)
            if (auto allowed = find_group(root, start, last); !allowed)
                return std::unexpected(allowed.error());
        Cut<Tree> cut(writer_, pending_, memory_);
        if (auto done = cut.run(root, start, last, options_.partial, options_.breaking); !done)
            return std::unexpected(done.error());
        result_.split = cut.leaves_split();
        change(root, start, last, attributes);
        return result_;
    }

  private:
    /// A group changes its attributes only by break-before-make, like its size.
    template <unsigned L>
    Result<void> find_group(Table<Tree, L> table, std::uint64_t start, std::uint64_t last) {
        Result<void> allowed;
        for_each_slot<F, L>(start, last, [&](const Slot& slot) {
            allowed =
                table.load(slot.index)
                    .match([]() -> Result<void> { return {}; },
                           [&](Leaf<Tree, L> leaf) -> Result<void> {
                               if (F::template leaf_group_lg2<L>(leaf.word()) == 0)
                                   return {};
                               return fail(ErrorCode::refused,
                                           "the format changes a group of entries only by "
                                           "break-before-make",
                                           {"leaf", align_down(slot.start, leaf.size_lg2())},
                                           {"leaf_size", leaf.size().value()});
                           },
                           [&](auto below) { return find_group(below, slot.start, slot.last); });
            return allowed.has_value();
        });
        return allowed;
    }

    template <unsigned L>
    void change(Table<Tree, L> table, std::uint64_t start, std::uint64_t last,
                Attributes attributes) {
        for_each_slot<F, L>(start, last, [&](const Slot& slot) {
            table.load(slot.index)
                .match([] {},
                       [&](Leaf<Tree, L> leaf) {
                           const PlacedLeaf<Tree, L> placed(table, slot.index, leaf, slot.start);
                           result_.bytes += bit(entry_lg2<F>(L));
                           if (placed.first != slot.index)
                               return;
                           ++result_.leaves;
                           Rewrite<Tree>(writer_, pending_).protect(placed, attributes);
                       },
                       [&](auto below) { change(below, slot.start, slot.last, attributes); });
            return true;
        });
    }

    const EntryWriter<Tree>& writer_;
    PendingInvalidation<Tree>& pending_;
    typename Tree::Memory& memory_;
    const ProtectOptions options_;
    Protected result_;
};

/// Clears `which` in all entries of each leaf that [start, last] touches, and calls
/// `visit(Input start, ByteCount size, Attributes had)` for each leaf that had one.
template <class Tree, class Visit>
class ClearFlags {
  public:
    using F = typename Tree::Format;
    using Input = typename Tree::Input;

    ClearFlags(const EntryWriter<Tree>& writer, PendingInvalidation<Tree>& pending,
               Attributes which, Visit& visit)
        : writer_(writer), pending_(pending), which_(which), visit_(visit) {}

    template <unsigned L>
    void run(Table<Tree, L> table, std::uint64_t start, std::uint64_t last) {
        std::uint64_t done_below = start;
        for_each_slot<F, L>(start, last, [&](const Slot& slot) {
            if (slot.last >= done_below)
                table.load(slot.index)
                    .match([] {},
                           [&](Leaf<Tree, L> leaf) {
                               const PlacedLeaf<Tree, L> placed(table, slot.index, leaf,
                                                                slot.start);
                               clear_leaf(placed);
                               done_below = placed.last() + 1;
                           },
                           [&](auto below) { run(below, slot.start, slot.last); });
            return true;
        });
    }

  private:
    template <unsigned L>
    void clear_leaf(const PlacedLeaf<Tree, L>& leaf) {
        Attributes had = Attributes::none;
        for (unsigned member = 0; member != leaf.members(); ++member)
            had |= clear_entry(leaf.table, leaf.first + member);
        if (had == Attributes::none)
            return;
        pending_.cover(leaf.start, leaf.last());
        visit_(Input(leaf.start), leaf.leaf.size(), had);
    }

    template <unsigned L>
    Attributes clear_entry(Table<Tree, L> table, unsigned index) {
        Word old = table.load(index).word();
        for (;;) {
            if (F::template kind<L>(old) != EntryKind::leaf)
                return Attributes::none;
            const Attributes had = F::template leaf_attributes<L>(old) & which_;
            if (had == Attributes::none ||
                writer_.compare_exchange(table, index, old, F::clear_accessed_dirty(old, which_)))
                return had;
        }
    }

    const EntryWriter<Tree>& writer_;
    PendingInvalidation<Tree>& pending_;
    const Attributes which_;
    Visit& visit_;
};

} // namespace detail

} // namespace moat
