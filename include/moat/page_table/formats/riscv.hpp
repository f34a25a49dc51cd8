// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RISC-V Sv39, Sv48 and Sv57 tables; a leaf in any level, and 64K groups with Svnapot.
// Source: RISC-V Instruction Set Manual, volume II, "Supervisor-Level ISA": Sv39, Sv48, Sv57, and
// "Svnapot", "Svpbmt", "Svade", "Svadu". Witness: unicorn's RISC-V MMU (tests/witness), which sets
// accessed and dirty but knows no Svnapot and no Svpbmt: their leaves are unwitnessed so far.
#pragma once

#include "moat/core/types.hpp"
#include "moat/page_table/detail/shared_bits.hpp"

#include <cstdint>
#include <string_view>

namespace moat::formats {

struct RiscvConfig {
    unsigned levels = 3;  ///< 3 (Sv39), 4 (Sv48) or 5 (Sv57): satp.MODE
    bool svnapot = false; ///< 64K groups
    bool svpbmt = false;  ///< uncached leaves; without it only the physical address decides
    /// Hardware: Svadu (menvcfg.ADUE). Software: Svade, a clear bit faults.
    FlagUpdate accessed_dirty = FlagUpdate::software;

    [[nodiscard]] constexpr bool valid() const {
        return levels >= 3 && levels <= 5 && accessed_dirty != FlagUpdate::none;
    }
};

/// Uncached is the IO type of Svpbmt. A leaf may permit execution alone; one that permits writes
/// permits reads.
template <RiscvConfig Config = RiscvConfig{}>
    requires(Config.valid())
struct RiscV : AccessedDirtyBits<bit(6), bit(7)> {
    using Input = VirtualAddress;
    static constexpr std::string_view name = Config.levels == 3   ? "RISC-V Sv39"
                                             : Config.levels == 4 ? "RISC-V Sv48"
                                                                  : "RISC-V Sv57";
    static constexpr unsigned granule_lg2 = 12;
    static constexpr unsigned fewest_levels = Config.levels;
    static constexpr unsigned most_levels = Config.levels;
    static constexpr unsigned output_bits = 56;
    static constexpr bool sign_extended = true;
    /// "Supervisor Memory-Management Fence Instruction": until the next fence the hart may use any
    /// translation that was valid since the last one, even where a superpage replaced a table.
    static constexpr FormatCapabilities capabilities = {.level_change = LiveChange::in_place,
                                                        .group_change = LiveChange::in_place,
                                                        .accessed = Config.accessed_dirty,
                                                        .dirty = Config.accessed_dirty};

    static constexpr Word valid = bit(0);
    static constexpr Word read = bit(1);
    static constexpr Word write = bit(2);
    static constexpr Word execute = bit(3);
    static constexpr Word permissions = read | write | execute; // none of them: a table
    static constexpr Word user = bit(4);
    static constexpr Word global = bit(5);
    static constexpr Word special = bit(8);              // software's, 9:8
    static constexpr Word napot_64k = bit(63) | bit(13); // N, and PPN[3:0] = 1000
    static constexpr Word napot = bit(63);
    static constexpr Word io = Word{2} << 61;     // PBMT, 62:61
    static constexpr unsigned physical_shift = 2; // PPN, 53:10, is the address without 11:0

    static constexpr unsigned index_bits(unsigned) { return 9; }

    static constexpr std::uint32_t leaf_groups(unsigned level) {
        return Config.svnapot && level == 0 ? 1U | 1U << 4 : 1U;
    }

    static constexpr bool representable(Attributes a) {
        constexpr Attributes known = read_write | Attributes::execute | Attributes::user |
                                     Attributes::global | Attributes::special | accessed_and_dirty |
                                     (Config.svpbmt ? Attributes::uncached : Attributes::none);
        return (has(a, Attributes::read) ||
                (a & (read_write | Attributes::execute)) == Attributes::execute) &&
               has(known, a);
    }

    static constexpr Word attribute_word(Attributes a) {
        using detail::word_if;
        const Word preset = Config.accessed_dirty == FlagUpdate::hardware
                                ? 0
                                : accessed | word_if(a, Attributes::write, dirty);
        return valid | preset | word_if(a, Attributes::read, read) |
               word_if(a, Attributes::write, write) | word_if(a, Attributes::execute, execute) |
               word_if(a, Attributes::user, user) | word_if(a, Attributes::global, global) |
               word_if(a, Attributes::special, special) | word_if(a, Attributes::uncached, io) |
               word_if(a, Attributes::accessed, accessed) | word_if(a, Attributes::dirty, dirty);
    }

    template <unsigned L>
    static constexpr Word leaf_word(std::uint64_t physical, Word attributes, unsigned group_lg2) {
        return (physical >> physical_shift) | attributes | (group_lg2 == 0 ? 0 : napot_64k);
    }

    /// The entries of a group are all alike.
    template <unsigned L>
    static constexpr Word entry_step(unsigned group_lg2) {
        return group_lg2 == 0 ? bit(granule_lg2 + 9 * L - physical_shift) : 0;
    }

    template <unsigned L>
    static constexpr EntryKind kind(Word word) {
        if ((word & (valid | permissions)) == valid)
            return L == 0 ? EntryKind::absent : EntryKind::table;
        return (word & valid) != 0 ? EntryKind::leaf : EntryKind::absent;
    }

    template <unsigned L>
    static constexpr unsigned leaf_group_lg2(Word word) {
        return leaf_groups(L) != 1 && (word & napot) != 0 ? 4 : 0;
    }

    template <unsigned L>
    static constexpr std::uint64_t leaf_physical(Word word) {
        const Word number = word & field_mask(53, 10);
        return (leaf_group_lg2<L>(word) != 0 ? number & ~bit(13) : number) << physical_shift;
    }

    template <unsigned L>
    static constexpr Attributes leaf_attributes(Word word) {
        using detail::properties_in;
        return properties_in(word, read, Attributes::read) |
               properties_in(word, write, Attributes::write) |
               properties_in(word, execute, Attributes::execute) |
               properties_in(word, user, Attributes::user) |
               properties_in(word, global, Attributes::global) |
               properties_in(word, special, Attributes::special) |
               properties_in(word, io, Attributes::uncached) |
               properties_in(word, accessed, Attributes::accessed) |
               properties_in(word, dirty, Attributes::dirty);
    }

    /// Every other bit of a table's entry is reserved or zero.
    template <unsigned L>
    static constexpr Word table_word(std::uint64_t physical) {
        return (physical >> physical_shift) | valid;
    }

    template <unsigned L>
    static constexpr std::uint64_t table_physical(Word word) {
        return (word & field_mask(53, 10)) << physical_shift;
    }
};

static_assert(PageTableFormat<RiscV<>>);
static_assert(PageTableFormat<RiscV<RiscvConfig{.levels = 4}>>);
static_assert(PageTableFormat<RiscV<RiscvConfig{.levels = 5, .svnapot = true, .svpbmt = true}>>);

} // namespace moat::formats
