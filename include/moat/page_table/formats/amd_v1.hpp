// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// AMD IOMMU v1 (host) tables with 1 to 6 levels; leaves of every power of two from 4K to 2^51.
// Source: AMD I/O Virtualization Technology (IOMMU) Specification, 48882, 2.2.3 "I/O Page Tables
// for Host Translations", tables 14 and 15. Witness: QEMU's unit, for 4 levels
// (tests/audit/qemu_iommu_test.cpp).
#pragma once

#include "moat/core/types.hpp"
#include "moat/page_table/detail/shared_bits.hpp"

#include <bit>
#include <cstdint>
#include <string_view>

namespace moat::formats {

/// The device table entry's Mode is the number of levels, which may grow. NextLevel in an entry is
/// the level of the table below, 0 for a leaf of the level's own size, or 7 for a leaf of 2^k times
/// that (k >= 1), repeated in 2^k entries. The address encodes the size of the latter: bits 12 to n
/// - 1 are ones and bit n is clear for 2^(n+1) bytes.
///
/// `AccessedDirty::hardware` needs the extended features HASup and HDSup, and both enabled by the
/// device table entry's HAD; otherwise both bits stay 0. `Levels` is the number of levels of trees
/// that do not grow, a constant for every operation; 0 is any number.
template <FlagUpdate AccessedDirty = FlagUpdate::none, unsigned Levels = 0>
    requires(AccessedDirty != FlagUpdate::software && Levels <= 6)
struct AmdV1 : AccessedDirtyBits<AccessedDirty == FlagUpdate::none ? 0 : bit(5),
                                 AccessedDirty == FlagUpdate::none ? 0 : bit(6)> {
    using Base = AccessedDirtyBits<AccessedDirty == FlagUpdate::none ? 0 : bit(5),
                                   AccessedDirty == FlagUpdate::none ? 0 : bit(6)>;
    using Input = Iova;
    static constexpr std::string_view name = "AMD IOMMU v1";
    static constexpr unsigned granule_lg2 = 12;
    static constexpr unsigned fewest_levels = Levels != 0 ? Levels : 1;
    static constexpr unsigned most_levels = Levels != 0 ? Levels : 6;
    static constexpr unsigned output_bits = 52;
    static constexpr bool sign_extended = false;
    /// The specification needs no break-before-make: the IOMMU reads entries whole, and each entry
    /// of a half-written group translates on its own.
    static constexpr FormatCapabilities capabilities = {.level_change = LiveChange::in_place,
                                                        .group_change = LiveChange::in_place,
                                                        .accessed = AccessedDirty,
                                                        .dirty = AccessedDirty};

    static constexpr Word present = bit(0);
    static constexpr Word special = bit(1); // ignored by hardware, 4:1
    using Base::accessed;
    using Base::dirty;
    static constexpr unsigned next_level_shift = 9;
    static constexpr Word next_level = field_mask(11, 9); // 0 and 7: a leaf
    static constexpr Word force_coherent = bit(60);
    static constexpr Word read = bit(61);
    static constexpr Word write = bit(62);

    /// Table 15: the sixth level is indexed by address bits 63:57.
    static constexpr unsigned index_bits(unsigned level) { return level == 5 ? 7 : 9; }

    /// Leaves are smaller than 2^52, and the sixth level has none (table 15). Some hardware has an
    /// erratum for 512G leaves: its driver caps leaves at 256G.
    static constexpr std::uint32_t leaf_groups(unsigned level) {
        return level < 4 ? 0x1ff : level == 4 ? 0xf : 0;
    }

    static constexpr bool representable(Attributes a) {
        constexpr Attributes known =
            read_write | Attributes::snoop | Attributes::special | accessed_and_dirty;
        return (a & read_write) != Attributes::none && has(known, a);
    }

    static constexpr Word attribute_word(Attributes a) {
        using detail::word_if;
        return present | word_if(a, Attributes::read, read) | word_if(a, Attributes::write, write) |
               word_if(a, Attributes::accessed, accessed) | word_if(a, Attributes::dirty, dirty) |
               word_if(a, Attributes::snoop, force_coherent) |
               word_if(a, Attributes::special, special);
    }

    template <unsigned L>
    static constexpr Word leaf_word(std::uint64_t physical, Word attributes, unsigned group_lg2) {
        const Word size = next_level | field_mask(granule_lg2 + 9 * L + group_lg2 - 2, granule_lg2);
        return physical | attributes | (group_lg2 == 0 ? 0 : size);
    }

    template <unsigned L>
    static constexpr Word entry_step(unsigned group_lg2) {
        return group_lg2 == 0 ? bit(granule_lg2 + 9 * L) : 0;
    }

    /// Treats an entry that skips a level, which the engine never writes, as one that faults.
    template <unsigned L>
    static constexpr EntryKind kind(Word word) {
        const Word what = word & (present | next_level);
        if (L != 0 && what == (present | (Word{L} << next_level_shift)))
            return EntryKind::table;
        const bool is_leaf = what == present || what == (present | next_level);
        return leaf_groups(L) != 0 && is_leaf ? EntryKind::leaf : EntryKind::absent;
    }

    template <unsigned L>
    static constexpr unsigned leaf_group_lg2(Word word) {
        if ((word & next_level) == 0)
            return 0;
        return 1 + static_cast<unsigned>(std::countr_one(word >> (granule_lg2 + 9 * L)));
    }

    template <unsigned L>
    static constexpr std::uint64_t leaf_physical(Word word) {
        const std::uint64_t address = word & field_mask(51, granule_lg2);
        // The ones encode the size, not the address; adding 1 at their bottom carries into the
        // clear bit above.
        const std::uint64_t ones = address & ~(address + bit(granule_lg2));
        return (word & next_level) == 0 ? address : address & ~ones;
    }

    template <unsigned L>
    static constexpr Attributes leaf_attributes(Word word) {
        using detail::properties_in;
        return properties_in(word, read, Attributes::read) |
               properties_in(word, write, Attributes::write) |
               properties_in(word, force_coherent, Attributes::snoop) |
               properties_in(word, special, Attributes::special) |
               properties_in(word, accessed, Attributes::accessed) |
               properties_in(word, dirty, Attributes::dirty);
    }

    /// Permits everything: the leaf decides. The specification counts levels from 1, so an entry of
    /// level L here leads to a table of its level L. Presets accessed, so that the IOMMU never
    /// writes to it.
    template <unsigned L>
    static constexpr Word table_word(std::uint64_t physical) {
        return physical | present | read | write | accessed | (Word{L} << next_level_shift);
    }

    template <unsigned L>
    static constexpr std::uint64_t table_physical(Word word) {
        return word & field_mask(51, 12);
    }
};

static_assert(PageTableFormat<AmdV1<>>);
static_assert(PageTableFormat<AmdV1<FlagUpdate::hardware>>);
static_assert(PageTableFormat<AmdV1<FlagUpdate::none, 4>>);

} // namespace moat::formats
