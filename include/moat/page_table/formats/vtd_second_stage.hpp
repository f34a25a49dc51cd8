// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// VT-d second-stage tables with 3, 4 or 5 levels; leaves of 4K, 2M and 1G.
// Source: Intel Virtualization Technology for Directed I/O, 3.7 "Second-Stage Translation" and 9.8
// "Second-Stage Paging Entries" (SS-PML5E to SS-PTE).
// Witness: QEMU's unit, for 4 levels (tests/witness/vtd_witness_test.cpp).
#pragma once

#include "moat/core/types.hpp"
#include "moat/page_table/detail/shared_bits.hpp"

#include <cstdint>
#include <string_view>

namespace moat::formats {

/// `Levels` is 3 (39-bit addresses), 4 (48) or 5 (57), as CAP.SAGAW offers them; 2M and 1G leaves
/// need CAP.SSLPS. `AccessedDirty::hardware` needs ECAP.SSADS and the PASID entry's SSADE;
/// otherwise both bits stay 0. There is no present bit: an entry that permits neither reads nor
/// writes is absent, and one may permit writes alone. The snoop bit needs ECAP.SC in legacy mode
/// (reserved otherwise).
template <unsigned Levels, FlagUpdate AccessedDirty = FlagUpdate::none>
    requires(Levels >= 3 && Levels <= 5 && AccessedDirty != FlagUpdate::software)
struct VtdSecondStage : IntelLayout<AccessedDirty == FlagUpdate::none ? 0 : bit(8),
                                    AccessedDirty == FlagUpdate::none ? 0 : bit(9)> {
    using Base = IntelLayout<AccessedDirty == FlagUpdate::none ? 0 : bit(8),
                             AccessedDirty == FlagUpdate::none ? 0 : bit(9)>;
    using Input = Iova;
    static constexpr std::string_view name = Levels == 3   ? "VT-d second stage, 3 levels"
                                             : Levels == 4 ? "VT-d second stage, 4 levels"
                                                           : "VT-d second stage, 5 levels";
    static constexpr unsigned fewest_levels = Levels;
    static constexpr unsigned most_levels = Levels;
    static constexpr bool sign_extended = false;
    /// 6.2.4: after a change of page size alone the unit uses the old or the new translation until
    /// the invalidation.
    static constexpr FormatCapabilities capabilities = {.level_change = LiveChange::in_place,
                                                        .group_change = LiveChange::in_place,
                                                        .accessed = AccessedDirty,
                                                        .dirty = AccessedDirty};

    static constexpr Word read = bit(0);
    static constexpr Word write = bit(1);
    using Base::accessed;
    using Base::dirty;
    static constexpr Word snoop = bit(11);
    static constexpr Word special = bit(52); // ignored by hardware, 61:52

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
    static constexpr EntryKind kind(Word word) {
        if ((word & (read | write)) == 0)
            return EntryKind::absent;
        if constexpr (L == 0)
            return EntryKind::leaf;
        else if constexpr (L > 2)
            return EntryKind::table;
        else
            return (word & Base::page_size) != 0 ? EntryKind::leaf : EntryKind::table;
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

    /// Permits everything: the leaf decides. Presets accessed, so that the unit never writes to it.
    template <unsigned L>
    static constexpr Word table_word(std::uint64_t physical) {
        return physical | read | write | accessed;
    }
};

static_assert(PageTableFormat<VtdSecondStage<3>>);
static_assert(PageTableFormat<VtdSecondStage<4>>);
static_assert(PageTableFormat<VtdSecondStage<5, FlagUpdate::hardware>>);

} // namespace moat::formats
