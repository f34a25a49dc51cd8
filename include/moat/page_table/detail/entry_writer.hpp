// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// EntryWriter: the only way to change an entry. An Edit owns one and passes it to its operations.
#pragma once

#include "moat/core/check.hpp"
#include "moat/page_table/detail/geometry.hpp"
#include "moat/page_table/entry.hpp"

#include <atomic>
#include <cstdint>

namespace moat {

template <class Tree>
class Edit;

/// What entries map.
struct LeafCount {
    std::uint64_t bytes = 0;
    std::uint64_t leaves = 0;

    LeafCount& operator+=(const LeafCount& other) {
        bytes += other.bytes;
        leaves += other.leaves;
        return *this;
    }
};

/// Counts the leaves among entries of one level; a group counts at its first entry.
template <PageTableFormat F, unsigned L>
class LeafCounter {
  public:
    /// Without a branch where the format has no groups.
    [[gnu::always_inline]] void add(Word word, std::uint64_t index) {
        const bool is_leaf = F::template kind<L>(word) == EntryKind::leaf;
        entries_ += is_leaf ? 1 : 0;
        if constexpr (F::leaf_groups(L) > 1)
            followers_ +=
                is_leaf && !is_aligned(index, F::template leaf_group_lg2<L>(word)) ? 1 : 0;
    }

    [[nodiscard]] LeafCount count() const {
        return {.bytes = entries_ << entry_lg2<F>(L), .leaves = entries_ - followers_};
    }

  private:
    std::uint64_t entries_ = 0;
    std::uint64_t followers_ = 0; ///< entries of a group behind its first
};

/// Calls `visit(index)` for `count` indices from `first` on, eight an iteration: compilers do not
/// unroll loops over atomics. 64 bits, so that `index + 1` cannot wrap and needs no instruction.
template <class Visit>
[[gnu::always_inline]] inline void for_each_index(std::uint64_t first, std::uint64_t count,
                                                  Visit visit) {
    for (std::uint64_t eights = count / 8; eights != 0; --eights, first += 8) {
        visit(first);
        visit(first + 1);
        visit(first + 2);
        visit(first + 3);
        visit(first + 4);
        visit(first + 5);
        visit(first + 6);
        visit(first + 7);
    }
    for (std::uint64_t rest = count % 8; rest != 0; --rest, ++first)
        visit(first);
}

template <class Tree>
class EntryWriter {
  public:
    using F = typename Tree::Format;
    using Ref = typename Tree::Sync::template AtomicRef<Word>;

    /// Release: a walker that loads the entry sees all writes before it.
    template <unsigned L>
    [[gnu::always_inline]] void store(Table<Tree, L> table, unsigned index, Word word) const {
        Ref(table.words_[index]).store(word, std::memory_order_release);
    }

    /// For entries that hardware may write to: loses none of its bits.
    template <unsigned L>
    Word exchange(Table<Tree, L> table, unsigned index, Word word) const {
        return Ref(table.words_[index]).exchange(word, std::memory_order_acq_rel);
    }

    /// Return: whether the entry was `expected`; otherwise `expected` becomes its value.
    template <unsigned L>
    bool compare_exchange(Table<Tree, L> table, unsigned index, Word& expected,
                          Word desired) const {
        return Ref(table.words_[index])
            .compare_exchange_strong(expected, desired, std::memory_order_acq_rel,
                                     std::memory_order_acquire);
    }

    /// A table that this edit allocated and has not linked yet.
    template <unsigned L>
    Table<Tree, L> unlinked(typename Tree::Memory& memory, PhysicalAddress table) const {
        return Table<Tree, L>(memory.words(table), &memory);
    }

    /// Whether `count` entries from `first` on are absent.
    template <unsigned L>
    [[gnu::always_inline]] bool all_absent(Table<Tree, L> table, unsigned first,
                                           unsigned count) const {
        Word any = 0;
        for_each_index(first, count, [&](std::uint64_t index) __attribute__((always_inline)) {
            any |= look(table.words_[index]);
        });
        return any == 0;
    }

    /// Clears `count` entries from `first` on with plain stores. Return: the leaves that they held.
    template <unsigned L>
    LeafCount clear(Table<Tree, L> table, unsigned first, unsigned count) const {
        LeafCounter<F, L> found;
        for_each_index(first, count, [&](std::uint64_t index) __attribute__((always_inline)) {
            found.add(look(table.words_[index]), index);
            put(table.words_[index], 0);
        });
        return found.count();
    }

    /// Writes the leaves that map `count` entries from `first` on to memory from `physical` on, in
    /// the largest groups that fit, up to 2^largest_group_lg2 entries.
    template <unsigned L>
    [[gnu::always_inline]] void fill(Table<Tree, L> table, unsigned first, unsigned count,
                                     std::uint64_t physical, Word attributes,
                                     unsigned largest_group_lg2 = 63) const {
        if constexpr (F::leaf_groups(L) <= 1) {
            fill_run(table, first, count, F::template leaf_word<L>(physical, attributes, 0),
                     F::template entry_step<L>(0));
        } else {
            fill_groups(table, first, count, physical, attributes, largest_group_lg2);
        }
    }

    /// The same, unless an entry is present. Return: whether it wrote. Not inlined, so that the
    /// loops are compiled once: for each number of levels, their accesses become calls.
    template <unsigned L>
    [[gnu::noinline]] bool fill_if_absent(Table<Tree, L> table, unsigned first, unsigned count,
                                          std::uint64_t physical, Word attributes,
                                          unsigned largest_group_lg2) const {
        if (!all_absent(table, first, count))
            return false;
        fill(table, first, count, physical, attributes, largest_group_lg2);
        return true;
    }

  private:
    friend class Edit<Tree>;

    EntryWriter() = default;

    [[gnu::always_inline]] static Word look(const Word& word) {
        return Ref(const_cast<Word&>(word)).load(std::memory_order_acquire);
    }

    [[gnu::always_inline]] static void put(Word& word, Word value) {
        Ref(word).store(value, std::memory_order_release);
    }

    template <unsigned L>
    [[gnu::always_inline]] static void fill_run(Table<Tree, L> table, unsigned first,
                                                unsigned count, Word word, Word step) {
        Word* place = table.words_ + first;
        for (; count >= 8; count -= 8, place += 8, word += 8 * step) {
            put(place[0], word);
            put(place[1], word + step);
            put(place[2], word + 2 * step);
            put(place[3], word + 3 * step);
            put(place[4], word + 4 * step);
            put(place[5], word + 5 * step);
            put(place[6], word + 6 * step);
            put(place[7], word + 7 * step);
        }
        for (; count != 0; --count, ++place, word += step)
            put(*place, word);
    }

    template <unsigned L>
    static void fill_groups(Table<Tree, L> table, unsigned first, unsigned count,
                            std::uint64_t physical, Word attributes, unsigned largest_group_lg2) {
        constexpr unsigned lg2 = entry_lg2<F>(L);
        constexpr unsigned smallest_group = alignment_lg2(F::leaf_groups(L) & ~std::uint32_t{1});
        // Addresses that never align make plain leaves only: one run.
        if (!is_aligned((physical >> lg2) ^ first, smallest_group) ||
            count < (1U << smallest_group) || largest_group_lg2 < smallest_group) {
            fill_run(table, first, count, F::template leaf_word<L>(physical, attributes, 0),
                     F::template entry_step<L>(0));
            return;
        }
        while (count != 0) {
            const unsigned group_lg2 =
                fitting_group_lg2<F, L>(first, physical >> lg2, count, largest_group_lg2);
            const unsigned members = 1U << group_lg2;
            // Up to the next possible group, plain leaves are one run.
            const unsigned to_group =
                static_cast<unsigned>(bit(smallest_group) - (first & low_bits(smallest_group)));
            const unsigned run = group_lg2 != 0 ? members : to_group < count ? to_group : count;
            fill_run(table, first, run, F::template leaf_word<L>(physical, attributes, group_lg2),
                     F::template entry_step<L>(group_lg2));
            first += run;
            count -= run;
            physical += std::uint64_t{run} << lg2;
        }
    }
};

} // namespace moat
