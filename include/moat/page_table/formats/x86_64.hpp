// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// x86-64 page tables with 4 or 5 levels; leaves of 4K, 2M and 1G.
// Source: Intel SDM volume 3A, chapter 4 "Paging", 4.5, tables 4-14 to 4-20; AMD64 APM volume 2,
// 5.3. Witness: QEMU's x86 MMU and, where it runs, KVM (tests/witness).
#pragma once

#include "moat/core/types.hpp"
#include "moat/page_table/detail/shared_bits.hpp"

#include <cstdint>
#include <string_view>

namespace moat::formats {

/// `Levels` is 4 (48-bit addresses) or 5 (57-bit, CR4.LA57). Uncached is PCD | PWT, UC in the PAT's
/// reset state; the PAT bit stays 0.
template <unsigned Levels>
    requires(Levels == 4 || Levels == 5)
struct X86_64 : IntelLayout<bit(5), bit(6)> {
    using Input = VirtualAddress;
    static constexpr std::string_view name = Levels == 4 ? "x86-64, 4 levels" : "x86-64, 5 levels";
    static constexpr unsigned fewest_levels = Levels;
    static constexpr unsigned most_levels = Levels;
    static constexpr bool sign_extended = true;
    /// SDM 4.10.2.3: for a change of page size alone the processor uses the old or the new entry.
    static constexpr FormatCapabilities capabilities = {.level_change = LiveChange::in_place,
                                                        .group_change = LiveChange::in_place,
                                                        .accessed = FlagUpdate::hardware,
                                                        .dirty = FlagUpdate::hardware};

    static constexpr Word present = bit(0);
    static constexpr Word writable = bit(1);
    static constexpr Word user = bit(2);
    static constexpr Word write_through = bit(3);
    static constexpr Word cache_disable = bit(4);
    static constexpr Word global = bit(8);
    static constexpr Word special = bit(9); // ignored by hardware, 11:9
    static constexpr Word execute_disable = bit(63);

    static constexpr bool representable(Attributes a) {
        constexpr Attributes known = read_write | Attributes::execute | Attributes::user |
                                     Attributes::global | Attributes::uncached |
                                     Attributes::special | accessed_and_dirty;
        return has(a, Attributes::read) && has(known, a);
    }

    static constexpr Word attribute_word(Attributes a) {
        using detail::word_if;
        return present | word_if(a, Attributes::write, writable) |
               word_if(a, Attributes::user, user) |
               word_if(a, Attributes::uncached, cache_disable | write_through) |
               word_if(a, Attributes::accessed, accessed) | word_if(a, Attributes::dirty, dirty) |
               word_if(a, Attributes::global, global) | word_if(a, Attributes::special, special) |
               (has(a, Attributes::execute) ? 0 : execute_disable);
    }

    template <unsigned L>
    static constexpr EntryKind kind(Word word) {
        if constexpr (L == 0)
            return (word & present) != 0 ? EntryKind::leaf : EntryKind::absent;
        else if constexpr (L > 2)
            return (word & present) != 0 ? EntryKind::table : EntryKind::absent;
        else if ((word & (present | page_size)) == present)
            return EntryKind::table;
        else
            return (word & present) != 0 ? EntryKind::leaf : EntryKind::absent;
    }

    template <unsigned L>
    static constexpr Attributes leaf_attributes(Word word) {
        using detail::properties_in;
        return Attributes::read | properties_in(word, writable, Attributes::write) |
               properties_in(~word, execute_disable, Attributes::execute) |
               properties_in(word, user, Attributes::user) |
               properties_in(word, cache_disable, Attributes::uncached) |
               properties_in(word, global, Attributes::global) |
               properties_in(word, special, Attributes::special) |
               properties_in(word, accessed | dirty, accessed_and_dirty);
    }

    /// Permits everything: the leaf decides. Presets accessed, so that the processor never writes
    /// to it.
    template <unsigned L>
    static constexpr Word table_word(std::uint64_t physical) {
        return physical | present | writable | user | accessed;
    }
};

static_assert(PageTableFormat<X86_64<4>>);
static_assert(PageTableFormat<X86_64<5>>);

} // namespace moat::formats
