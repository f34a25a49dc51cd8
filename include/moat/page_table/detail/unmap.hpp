// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Edit::unmap: removes leaves, and the tables that the range covers as a whole.
#pragma once

#include "moat/page_table/detail/cut.hpp"
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

    /// The common case: [start, last] is one leaf of one entry. Return: false for any other case,
    /// without a change.
    template <unsigned L>
    [[gnu::always_inline]] static bool try_leaf(const EntryWriter<Tree>& writer,
                                                Table<Tree, L> table, std::uint64_t start,
                                                std::uint64_t last) {
        const unsigned index = entry_index<F, L>(start);
        return table.load(index).match([]() __attribute__((always_inline)) { return false; },
                                       [&](Leaf<Tree, L> leaf) __attribute__((always_inline)) {
                                           const std::uint64_t inside = low_bits(entry_lg2<F>(L));
                                           if (last - start != inside || (start & inside) != 0 ||
                                               F::template leaf_group_lg2<L>(leaf.word()) != 0)
                                               return false;
                                           writer.store(table, index, 0);
                                           return true;
                                       },
                                       [&](auto below) __attribute__((always_inline)) {
                                           return try_leaf(writer, below, start, last);
                                       });
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
    template <unsigned L>
    void clear(Table<Tree, L> table, std::uint64_t start, std::uint64_t last) {
        for_each_slot<F, L>(start, last, [&](const Slot& slot) {
            const Entry<Tree, L> entry = table.load(slot.index);
            entry.match([] {},
                        [&](Leaf<Tree, L> leaf) {
                            count_leaf_entry<F, L>(leaf.word(), slot.index, count_);
                            clear_entry(table, slot.index);
                            pending_.cover(slot.start, slot.last);
                        },
                        [&](auto below) {
                            const bool remove = slot.whole(entry_lg2<F>(L)) &&
                                                options_.tables == CoveredTables::remove;
                            if (!remove || options_.flags == FinalFlags::collect)
                                clear(below, slot.start, slot.last);
                            else
                                count_leaves(below, count_);
                            if (remove) {
                                writer_.store(table, slot.index, 0);
                                pending_.cover(slot.start, slot.last);
                                remove_below(entry, memory_, pending_);
                            }
                        });
            return true;
        });
    }

    template <unsigned L>
    void clear_entry(Table<Tree, L> table, unsigned index) {
        if (options_.flags == FinalFlags::ignore) {
            writer_.store(table, index, 0);
            return;
        }
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
