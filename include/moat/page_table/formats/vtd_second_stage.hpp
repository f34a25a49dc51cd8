// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// VT-d second-stage tables with 3, 4 or 5 levels; leaves of 4K, 2M and 1G.
// Source: Intel Virtualization Technology for Directed I/O, 3.7 "Second-Stage Translation" and 9.8
// "Second-Stage Paging Entries" (SS-PML5E to SS-PTE).
// Witness: QEMU's unit, for 4 levels (tests/witness/vtd_witness_test.cpp).
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/types.hpp"
#include "moat/page_table/attributes.hpp"
#include "moat/page_table/format.hpp"

#include <cstdint>
#include <string_view>

namespace moat::formats {

/// `Levels` is 3 (39-bit addresses), 4 (48) or 5 (57), as the unit's CAP.SAGAW offers them; 2M and
/// 1G leaves need CAP.SSLPS. `AccessedDirty` is hardware only where ECAP.SSADS is there and the
/// PASID entry's SSADE enables it; without it both bits are left 0. There is no present bit: an
/// entry that permits neither reads nor writes is absent, and writes alone can be permitted. The
/// snoop bit asks for ECAP.SC in legacy mode (reserved otherwise).
template <unsigned Levels, FlagUpdate AccessedDirty = FlagUpdate::none>
    requires(Levels >= 3 && Levels <= 5 && AccessedDirty != FlagUpdate::software)
struct VtdSecondStage {
    using Input = Iova;
    static constexpr std::string_view name = Levels == 3   ? "VT-d second stage, 3 levels"
                                             : Levels == 4 ? "VT-d second stage, 4 levels"
                                                           : "VT-d second stage, 5 levels";
    static constexpr unsigned granule_lg2 = 12;
    static constexpr unsigned fewest_levels = Levels;
    static constexpr unsigned most_levels = Levels;
    static constexpr unsigned output_bits = 52;
    static constexpr bool sign_extended = false;
    /// 6.2.4: after a change of page size alone the unit uses the old or the new translation until
    /// the invalidation.
    static constexpr FormatCapabilities capabilities = {.level_change = LiveChange::in_place,
                                                        .group_change = LiveChange::in_place,
                                                        .accessed = AccessedDirty,
                                                        .dirty = AccessedDirty};

    static constexpr bool tracked = AccessedDirty == FlagUpdate::hardware;
    static constexpr Word read = bit(0);
    static constexpr Word write = bit(1);
    static constexpr Word page_size = bit(7);
    static constexpr Word accessed = tracked ? bit(8) : 0;
    static constexpr Word dirty = tracked ? bit(9) : 0;
    static constexpr Word snoop = bit(11);
    static constexpr Word special = bit(52); // ignored by hardware, 61:52

    static constexpr unsigned index_bits(unsigned) { return 9; }

    static constexpr std::uint32_t leaf_groups(unsigned level) { return level <= 2 ? 1 : 0; }

    static constexpr bool representable(Attributes a) {
        constexpr Attributes known =
            read_write | Attributes::snoop | Attributes::special | accessed_and_dirty;
        return (a & read_write) != Attributes::none && has(known, a);
    }

    static constexpr Word attribute_word(Attributes a) {
        using detail::word_if;
        return word_if(a, Attributes::read, read) | word_if(a, Attributes::write, write) |
               word_if(a, Attributes::accessed, accessed) | word_if(a, Attributes::dirty, dirty) |
               word_if(a, Attributes::snoop, snoop) | word_if(a, Attributes::special, special);
    }

    template <unsigned L>
    static constexpr Word leaf_word(std::uint64_t physical, Word attributes, unsigned) {
        return physical | attributes | (L == 0 ? 0 : page_size);
    }

    template <unsigned L>
    static constexpr Word entry_step(unsigned) {
        return bit(granule_lg2 + 9 * L);
    }

    template <unsigned L>
    static constexpr EntryKind kind(Word word) {
        if ((word & (read | write)) == 0)
            return EntryKind::absent;
        if constexpr (L == 0)
            return EntryKind::leaf;
        else if constexpr (L > 2)
            return EntryKind::table;
        else
            return (word & page_size) != 0 ? EntryKind::leaf : EntryKind::table;
    }

    template <unsigned L>
    static constexpr unsigned leaf_group_lg2(Word) {
        return 0;
    }

    template <unsigned L>
    static constexpr std::uint64_t leaf_physical(Word word) {
        return word & field_mask(51, granule_lg2 + 9 * L);
    }

    template <unsigned L>
    static constexpr Attributes leaf_attributes(Word word) {
        using detail::properties_in;
        return properties_in(word, read, Attributes::read) |
               properties_in(word, write, Attributes::write) |
               properties_in(word, snoop, Attributes::snoop) |
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

    /// A table's entry permits everything: the leaf decides. Accessed is preset, so that the unit
    /// need not write to it.
    template <unsigned L>
    static constexpr Word table_word(std::uint64_t physical) {
        return physical | read | write | accessed;
    }

    template <unsigned L>
    static constexpr std::uint64_t table_physical(Word word) {
        return word & field_mask(51, 12);
    }
};

static_assert(PageTableFormat<VtdSecondStage<3>>);
static_assert(PageTableFormat<VtdSecondStage<4>>);
static_assert(PageTableFormat<VtdSecondStage<5, FlagUpdate::hardware>>);

} // namespace moat::formats
