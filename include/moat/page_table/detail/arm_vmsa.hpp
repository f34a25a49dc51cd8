// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The common part of Arm's VMSAv8-64 stages 1 and 2: geometry, descriptor types, access flags, the
// contiguous bit. arm_stage1.hpp and arm_stage2.hpp add their attributes.
// Source: Arm ARM (DDI 0487), D8.2 "Translation process", D8.3 "Translation table descriptor
// formats", D8.7 "Other descriptor fields"; its level 3 is level 0 here.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/types.hpp"
#include "moat/page_table/attributes.hpp"
#include "moat/page_table/format.hpp"

#include <cstdint>

namespace moat::formats {

/// The setup of the translation control register (TCR_ELx, VTCR_EL2, or the SMMU's).
struct ArmConfig {
    unsigned granule_lg2 = 12; ///< 12, 14 or 16: TG0
    unsigned input_bits = 48;  ///< 25 to 48: 64 - T0SZ
    /// Hardware: HA is set (FEAT_HAFDBS). Software: the access flag is preset.
    FlagUpdate accessed = FlagUpdate::software;
    /// Hardware: HD is set (FEAT_HAFDBS), which needs HA.
    FlagUpdate dirty = FlagUpdate::none;
    /// In place: every processor has FEAT_BBM level 2 and raises no TLB conflict abort. (Level 1
    /// would need the nT bit, which is not used.)
    LiveChange size_change = LiveChange::break_before_make;

    [[nodiscard]] constexpr bool valid() const {
        const bool granule = granule_lg2 == 12 || granule_lg2 == 14 || granule_lg2 == 16;
        const bool flags = accessed != FlagUpdate::none && dirty != FlagUpdate::software &&
                           (dirty == FlagUpdate::none || accessed == FlagUpdate::hardware);
        return granule && flags && input_bits >= 25 && input_bits <= 48;
    }
};

/// `ConcatenationLg2`: log2 of the tables side by side at the top, 0 for stage 1 and up to 4 for
/// stage 2, which then needs the fewest levels. Output addresses have 48 bits; FEAT_LPA and
/// FEAT_LPA2 (52 bits, larger blocks) are not supported.
template <ArmConfig Config, unsigned ConcatenationLg2>
    requires(Config.valid())
struct ArmVmsa {
    static constexpr unsigned granule_lg2 = Config.granule_lg2;
    static constexpr unsigned full_index_bits = granule_lg2 - 3;
    static constexpr unsigned most_levels =
        (Config.input_bits - granule_lg2 - ConcatenationLg2 + full_index_bits - 1) /
        full_index_bits;
    static constexpr unsigned fewest_levels = most_levels;
    static constexpr unsigned output_bits = 48;
    static constexpr bool sign_extended = false;
    /// D8.17 "Using break-before-make when updating translation table entries".
    static constexpr FormatCapabilities capabilities = {.level_change = Config.size_change,
                                                        .group_change = Config.size_change,
                                                        .accessed = Config.accessed,
                                                        .dirty = Config.dirty};

    static constexpr bool tracks_dirty = Config.dirty == FlagUpdate::hardware;
    static constexpr Word valid = bit(0);
    static constexpr Word not_block = bit(1); // a table; in the last level, a page
    static constexpr Word inner_shareable = Word{3} << 8;
    static constexpr Word accessed = bit(10);
    static constexpr Word dirty_modifier = bit(51); // DBM: the hardware may make it writable
    static constexpr Word contiguous = bit(52);
    static constexpr Word dirty_earlier = bit(55); // software's: dirty, though no longer writable
    static constexpr Word special = bit(56);       // software's, 58:55

    /// A leaf permits writes now if it has all of these properties.
    static constexpr Attributes writable =
        tracks_dirty ? Attributes::write | Attributes::dirty : Attributes::write;

    /// AF, DBM and the software bit. The stage adds its bit for writing.
    static constexpr Word access_word(Attributes a) {
        using detail::word_if;
        const Word access = Config.accessed == FlagUpdate::hardware
                                ? word_if(a, Attributes::accessed, accessed)
                                : accessed;
        if constexpr (!tracks_dirty)
            return access;
        return access | (has(a, Attributes::write) ? dirty_modifier
                                                   : word_if(a, Attributes::dirty, dirty_earlier));
    }

    /// Write and dirty of a leaf; `permission` has `write_bit` where it permits writes now.
    static constexpr Attributes written_attributes(Word word, Word permission, Word write_bit) {
        using detail::properties_in;
        if constexpr (!tracks_dirty)
            return properties_in(permission, write_bit, Attributes::write);
        return properties_in(word, dirty_modifier, Attributes::write) |
               properties_in(permission, write_bit, Attributes::dirty) |
               properties_in(word, dirty_earlier, Attributes::dirty);
    }

    static constexpr unsigned index_bits(unsigned level) {
        return level + 1 < most_levels
                   ? full_index_bits
                   : Config.input_bits - granule_lg2 - full_index_bits * (most_levels - 1);
    }

    /// Blocks of the 4K granule are 1G and 2M, of 16K 32M, of 64K 512M.
    static constexpr unsigned highest_block_level = granule_lg2 == 12 ? 2 : 1;

    /// D8.7 "The Contiguous bit": how many entries it joins.
    static constexpr unsigned contiguous_lg2(unsigned level) {
        return granule_lg2 == 12 ? 4 : granule_lg2 == 14 && level == 0 ? 7 : 5;
    }

    /// A short top table has no group that exceeds it.
    static constexpr std::uint32_t leaf_groups(unsigned level) {
        if (level > highest_block_level)
            return 0;
        return contiguous_lg2(level) <= index_bits(level) ? 1U | 1U << contiguous_lg2(level) : 1U;
    }

    template <unsigned L>
    static constexpr Word leaf_word(std::uint64_t physical, Word attributes, unsigned group_lg2) {
        return physical | attributes | valid | (L == 0 ? not_block : 0) |
               (group_lg2 == 0 ? 0 : contiguous);
    }

    template <unsigned L>
    static constexpr Word entry_step(unsigned) {
        return bit(granule_lg2 + full_index_bits * L);
    }

    /// In the last level and in levels without blocks, the block type is reserved and faults.
    template <unsigned L>
    static constexpr EntryKind kind(Word word) {
        const bool is_valid = (word & valid) != 0;
        const bool is_block = (word & not_block) == 0;
        if constexpr (L == 0)
            return is_valid && !is_block ? EntryKind::leaf : EntryKind::absent;
        else if constexpr (L > highest_block_level)
            return is_valid && !is_block ? EntryKind::table : EntryKind::absent;
        else if (!is_valid)
            return EntryKind::absent;
        else
            return is_block ? EntryKind::leaf : EntryKind::table;
    }

    template <unsigned L>
    static constexpr unsigned leaf_group_lg2(Word word) {
        return (word & contiguous) != 0 ? contiguous_lg2(L) : 0;
    }

    template <unsigned L>
    static constexpr std::uint64_t leaf_physical(Word word) {
        constexpr unsigned lg2 = granule_lg2 + full_index_bits * L;
        return word & ((word & contiguous) != 0 ? field_mask(47, lg2 + contiguous_lg2(L))
                                                : field_mask(47, lg2));
    }

    /// Restricts nothing: the leaf decides.
    template <unsigned L>
    static constexpr Word table_word(std::uint64_t physical) {
        return physical | valid | not_block;
    }

    template <unsigned L>
    static constexpr std::uint64_t table_physical(Word word) {
        return word & field_mask(47, granule_lg2);
    }
};

} // namespace moat::formats
