// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// AMD IOMMU v1 (host) tables with 1 to 6 levels; leaves of every power of two from 4K to 2^51.
// Source: AMD I/O Virtualization Technology (IOMMU) Specification, 48882, 2.2.3 "I/O Page Tables
// for Host Translations", tables 14 and 15. Witness: unwitnessed so far.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/types.hpp"
#include "moat/page_table/attributes.hpp"
#include "moat/page_table/format.hpp"

#include <bit>
#include <cstdint>
#include <string_view>

namespace moat::formats {

/// The tree grows at its top: the device table entry's Mode is the number of levels. An entry names
/// the level that it leads to in NextLevel; 0 is a leaf of the level's own size, 7 a leaf of 2^k
/// times that (k >= 1), repeated in 2^k entries and with its size told by the address: all ones
/// from bit 12 up to below the lowest clear bit n, for a leaf of 2^(n+1) bytes.
///
/// `AccessedDirty` is hardware only where the extended features' HASup and HDSup are there and the
/// device table entry's HAD enables both; without it both bits are left 0.
template <FlagUpdate AccessedDirty = FlagUpdate::none>
    requires(AccessedDirty != FlagUpdate::software)
struct AmdV1 {
    using Input = Iova;
    static constexpr std::string_view name = "AMD IOMMU v1";
    static constexpr unsigned granule_lg2 = 12;
    static constexpr unsigned fewest_levels = 1;
    static constexpr unsigned most_levels = 6;
    static constexpr unsigned output_bits = 52;
    static constexpr bool sign_extended = false;
    /// The specification asks for no break-before-make: every entry is read whole, and each of a
    /// half-written group translates on its own.
    static constexpr FormatCapabilities capabilities = {.level_change = LiveChange::in_place,
                                                        .group_change = LiveChange::in_place,
                                                        .accessed = AccessedDirty,
                                                        .dirty = AccessedDirty};

    static constexpr bool tracked = AccessedDirty == FlagUpdate::hardware;
    static constexpr Word present = bit(0);
    static constexpr Word special = bit(1); // ignored by hardware, 4:1
    static constexpr Word accessed = tracked ? bit(5) : 0;
    static constexpr Word dirty = tracked ? bit(6) : 0;
    static constexpr unsigned next_level_shift = 9;
    static constexpr Word next_level = field_mask(11, 9); // 0 and 7: a leaf
    static constexpr Word force_coherent = bit(60);
    static constexpr Word read = bit(61);
    static constexpr Word write = bit(62);

    /// Table 15: the sixth level is indexed by address bits 63:57.
    static constexpr unsigned index_bits(unsigned level) { return level == 5 ? 7 : 9; }

    /// Leaves are smaller than 2^52, and the sixth level has none (table 15). Shipped hardware is
    /// known to get the 512G leaf wrong: a driver for it caps leaves at 256G.
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

    /// An entry that skips a level, which the engine never writes, is taken as one that faults.
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
        // The ones that tell the size are no part of the address; adding 1 at the bottom of them
        // carries into the clear bit above.
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

    static constexpr Word merge_accessed_dirty(Word word, Word other) {
        return word | (other & (accessed | dirty));
    }

    static constexpr Word clear_accessed_dirty(Word word, Attributes which) {
        return word & ~(detail::word_if(which, Attributes::accessed, accessed) |
                        detail::word_if(which, Attributes::dirty, dirty));
    }

    /// A table's entry permits everything: the leaf decides. The specification counts levels from
    /// 1, so the table that an entry of level L leads to is its level L. Accessed is preset, so
    /// that the IOMMU need not write to it.
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

} // namespace moat::formats
