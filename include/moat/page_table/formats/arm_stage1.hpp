// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Arm VMSAv8-64 stage 1 tables of the EL1&0 regime: 4K, 16K and 64K granules, contiguous groups.
// Source: Arm ARM (DDI 0487), D8.3.1 "VMSAv8-64 descriptor formats", D8.4 "Memory access control",
// D8.5 "Hardware updates to the translation tables". Witness: unicorn's Arm MMU (tests/witness),
// which has no hardware updates and ignores the contiguous bit.
#pragma once

#include "moat/page_table/detail/arm_vmsa.hpp"

#include <cstdint>
#include <string_view>

namespace moat::formats {

/// The tables of TTBR0_EL1, or of TTBR1_EL1 without the address bits above the input size. The
/// caller sets MAIR_EL1 to 0x04ff: attribute 0 is normal write-back memory (0xff), attribute 1
/// Device-nGnRE (0x04). Normal memory is inner shareable.
///
/// Where the hardware tracks dirty leaves, "writable" is DBM and "dirty" is AP[2] clear, so a clean
/// writable leaf reads as read-only until the first write. A software bit keeps "dirty" when a leaf
/// becomes read-only.
template <ArmConfig Config = ArmConfig{}>
struct ArmStage1 : ArmVmsa<Config, 0> {
    using Base = ArmVmsa<Config, 0>;
    using Input = VirtualAddress;
    static constexpr std::string_view name =
        Config.granule_lg2 == 12   ? "Arm VMSAv8-64 stage 1, 4K granule"
        : Config.granule_lg2 == 14 ? "Arm VMSAv8-64 stage 1, 16K granule"
                                   : "Arm VMSAv8-64 stage 1, 64K granule";

    static constexpr Word device = Word{1} << 2; // AttrIndx, 4:2
    static constexpr Word user = bit(6);         // AP[1]
    static constexpr Word read_only = bit(7);    // AP[2]
    static constexpr Word not_global = bit(11);
    static constexpr Word privileged_execute_never = bit(53);
    static constexpr Word user_execute_never = bit(54);

    static constexpr bool representable(Attributes a) {
        constexpr Attributes known = read_write | Attributes::execute | Attributes::user |
                                     Attributes::global | Attributes::uncached |
                                     Attributes::special | accessed_and_dirty;
        return has(a, Attributes::read) && has(known, a);
    }

    /// Each leaf is executable at one privilege level: the kernel never runs user code, nor the
    /// reverse.
    static constexpr Word attribute_word(Attributes a) {
        using detail::word_if;
        const Word execute_never = privileged_execute_never | user_execute_never;
        const Word may_execute =
            has(a, Attributes::user) ? user_execute_never : privileged_execute_never;
        return Base::inner_shareable | Base::access_word(a) |
               (has(a, Base::writable) ? 0 : read_only) | word_if(a, Attributes::user, user) |
               word_if(a, Attributes::uncached, device) |
               word_if(a, Attributes::special, Base::special) |
               (has(a, Attributes::global) ? 0 : not_global) |
               (execute_never & ~word_if(a, Attributes::execute, may_execute));
    }

    template <unsigned L>
    static constexpr Attributes leaf_attributes(Word word) {
        using detail::properties_in;
        const Word execute_never =
            (word & user) != 0 ? user_execute_never : privileged_execute_never;
        return Attributes::read | written_attributes(word) |
               properties_in(~word, execute_never, Attributes::execute) |
               properties_in(word, user, Attributes::user) |
               properties_in(~word, not_global, Attributes::global) |
               properties_in(word, device, Attributes::uncached) |
               properties_in(word, Base::special, Attributes::special) |
               properties_in(word, Base::accessed, Attributes::accessed);
    }

    static constexpr Word merge_accessed_dirty(Word word, Word other) {
        const Word merged = word | (other & Base::accessed);
        if (!Base::tracks_dirty || !has(written_attributes(other), Attributes::dirty))
            return merged;
        return (word & Base::dirty_modifier) != 0 ? merged & ~read_only
                                                  : merged | Base::dirty_earlier;
    }

    static constexpr Word clear_accessed_dirty(Word word, Attributes which) {
        using detail::word_if;
        const Word cleared = word & ~(word_if(which, Attributes::accessed, Base::accessed) |
                                      word_if(which, Attributes::dirty, Base::dirty_earlier));
        return cleared | word_if(which, Attributes::dirty, clean(word));
    }

  private:
    static constexpr Attributes written_attributes(Word word) {
        return Base::written_attributes(word, ~word, read_only);
    }

    /// The bit that makes a writable leaf clean; 0 where dirty is not tracked.
    static constexpr Word clean(Word word) {
        return Base::tracks_dirty && (word & Base::dirty_modifier) != 0 ? read_only : 0;
    }
};

static_assert(PageTableFormat<ArmStage1<>>);
static_assert(PageTableFormat<ArmStage1<ArmConfig{.granule_lg2 = 14}>>);
static_assert(PageTableFormat<ArmStage1<ArmConfig{.granule_lg2 = 16}>>);

} // namespace moat::formats
