// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How a range of addresses maps to the entries of one table. Integers only; the operations know the
// entries.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/page_table/format.hpp"

#include <cstdint>

namespace moat {

/// Whether both addresses lie in the same aligned block of 2^block_lg2 bytes.
[[nodiscard]] constexpr bool same_block(std::uint64_t a, std::uint64_t b, unsigned block_lg2) {
    return block_lg2 >= 64 || ((a ^ b) >> block_lg2) == 0;
}

/// The part of a range that one entry covers; both ends inclusive.
struct Slot {
    unsigned index;
    std::uint64_t start;
    std::uint64_t last;

    /// Whether the part is a whole entry of 2^covered_lg2 bytes.
    [[nodiscard]] constexpr bool whole(unsigned covered_lg2) const {
        return last - start == low_bits(covered_lg2);
    }
};

/// Calls `visit(Slot)` in order for each entry of a table of level L that [start, last] touches,
/// until one returns false. Return: whether none did. The range lies within one table.
template <PageTableFormat F, unsigned L, class Visit>
[[gnu::always_inline]] constexpr bool for_each_slot(std::uint64_t start, std::uint64_t last,
                                                    Visit&& visit) {
    const unsigned last_index = entry_index<F, L>(last);
    for (unsigned index = entry_index<F, L>(start); index != last_index; ++index) {
        const std::uint64_t slot_last = start | low_bits(entry_lg2<F>(L));
        if (!visit(Slot{index, start, slot_last}))
            return false;
        start = slot_last + 1;
    }
    return visit(Slot{last_index, start, last});
}

/// Neighbouring entries of one table that a range covers as a whole.
struct EntryRun {
    unsigned first;
    unsigned count;
    std::uint64_t start; ///< the input address of the first entry's first byte

    /// The part of the range that the run's i-th entry, of 2^covered_lg2 bytes, covers.
    [[nodiscard]] constexpr Slot slot(unsigned i, unsigned covered_lg2) const {
        const std::uint64_t slot_start = start + (std::uint64_t{i} << covered_lg2);
        return {first + i, slot_start, slot_start + low_bits(covered_lg2)};
    }
};

/// Calls, in order and until one returns false, `part(Slot)` for an entry of a table of level L
/// that [start, last] covers only in part, and `run(EntryRun)` for all those that it covers as a
/// whole. Return: whether none returned false. The range is whole pages within one table.
template <PageTableFormat F, unsigned L, class Part, class Whole>
[[gnu::always_inline]] constexpr bool for_each_run(std::uint64_t start, std::uint64_t last,
                                                   Part&& part, Whole&& run) {
    unsigned first = entry_index<F, L>(start);
    const unsigned last_index = entry_index<F, L>(last);
    if constexpr (L == 0) {
        return run(EntryRun{first, last_index - first + 1, start});
    } else {
        constexpr std::uint64_t inside = low_bits(entry_lg2<F>(L));
        const bool cut_short = (last & inside) != inside;
        if ((start & inside) != 0 || (first == last_index && cut_short)) {
            const Slot head = {first, start, first == last_index ? last : start | inside};
            const bool goes_on = part(head);
            if (!goes_on || first == last_index)
                return goes_on;
            start = head.last + 1;
            ++first;
        }
        const unsigned count = last_index - first + (cut_short ? 0 : 1);
        if (count != 0 && !run(EntryRun{first, count, start}))
            return false;
        return !cut_short || part(Slot{last_index, last & ~inside, last});
    }
}

/// The last input address of the part of the space that holds `start`: of memory, of the space, or
/// of its lower half; none if `levels` levels do not translate `start`.
template <PageTableFormat F>
struct InputSpace {
    bool contains_start;
    std::uint64_t last;

    static constexpr InputSpace of(std::uint64_t start, unsigned levels) {
        const unsigned bits = input_bits<F>(levels);
        if constexpr (F::sign_extended) {
            const std::uint64_t lower_last = low_bits(bits - 1);
            if (start <= lower_last)
                return {true, lower_last};
            return {start >= ~lower_last, ~std::uint64_t{0}};
        } else {
            return {start <= low_bits(bits), low_bits(bits)};
        }
    }

    /// Whether [start, start + size) lies inside; an empty range does not.
    [[nodiscard]] constexpr bool contains(std::uint64_t start, std::uint64_t size) const {
        // In a space of 2^64, and only there, size - 1 would wrap to a valid length.
        if (input_bits<F>() == 64 && size == 0)
            return false;
        return contains_start && size - 1 <= last - start;
    }
};

/// log2 of the largest group, at most 2^most_lg2 entries, that can begin at entry `entry` for
/// memory at the entry-sized block `physical_entry`, with `count` entries left.
template <PageTableFormat F, unsigned L>
[[nodiscard]] constexpr unsigned fitting_group_lg2(std::uint64_t entry,
                                                   std::uint64_t physical_entry,
                                                   std::uint64_t count, unsigned most_lg2) {
    const unsigned aligned = alignment_lg2(entry | physical_entry | bit(most_lg2));
    const unsigned filled = floor_lg2(count);
    return floor_lg2(F::leaf_groups(L) & low_bits((aligned < filled ? aligned : filled) + 1));
}

} // namespace moat
