// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Arm VMSAv8-64 stage 2 tables: 4K, 16K and 64K granules, contiguous groups, concatenated tops.
// Source: Arm ARM (DDI 0487), D8.2 "Concatenated translation tables", D8.3.1 "VMSAv8-64 descriptor
// formats", D8.4 "Memory access control", D8.5 "Hardware updates to the translation tables".
// Witness: unicorn's Arm MMU (tests/witness), which has no hardware updates and ignores the
// contiguous bit.
#pragma once

#include "moat/page_table/detail/arm_vmsa.hpp"

#include <cstdint>
#include <string_view>

namespace moat::formats {

/// The tables of an SMMU or a hypervisor for a device or a guest; the input is the intermediate
/// physical address. The top level has up to 16 tables side by side, so the start level
/// (VTCR_EL2.SL0) is the lowest that holds the input size. MemAttr without FEAT_S2FWB: normal
/// write-back memory, or Device-nGnRE. Both privilege levels may execute, or neither.
///
/// Where the hardware tracks dirty leaves, "writable" is DBM and "dirty" is S2AP[1], so a clean
/// writable leaf reads as read-only until the first write. A software bit keeps "dirty" when a leaf
/// becomes read-only.
template <ArmConfig Config = ArmConfig{.input_bits = 40}>
struct ArmStage2 : ArmVmsa<Config, 4> {
    using Base = ArmVmsa<Config, 4>;
    using Input = Iova;
    static constexpr std::string_view name =
        Config.granule_lg2 == 12   ? "Arm VMSAv8-64 stage 2, 4K granule"
        : Config.granule_lg2 == 14 ? "Arm VMSAv8-64 stage 2, 16K granule"
                                   : "Arm VMSAv8-64 stage 2, 64K granule";

    static constexpr Word write_back = Word{15} << 2; // MemAttr, 5:2
    static constexpr Word device = Word{1} << 2;
    static constexpr Word cacheable = bit(5); // set in write_back, clear in device
    static constexpr Word read = bit(6);      // S2AP[0]
    static constexpr Word write = bit(7);     // S2AP[1]
    static constexpr Word execute_never = bit(54);

    static constexpr bool representable(Attributes a) {
        constexpr Attributes known = read_write | Attributes::execute | Attributes::uncached |
                                     Attributes::special | accessed_and_dirty;
        return (a & read_write) != Attributes::none && has(known, a);
    }

    static constexpr Word attribute_word(Attributes a) {
        using detail::word_if;
        return Base::inner_shareable | Base::access_word(a) | word_if(a, Base::writable, write) |
               word_if(a, Attributes::read, read) |
               (has(a, Attributes::uncached) ? device : write_back) |
               word_if(a, Attributes::special, Base::special) |
               (has(a, Attributes::execute) ? 0 : execute_never);
    }

    template <unsigned L>
    static constexpr Attributes leaf_attributes(Word word) {
        using detail::properties_in;
        return properties_in(word, read, Attributes::read) | written_attributes(word) |
               properties_in(~word, execute_never, Attributes::execute) |
               properties_in(~word, cacheable, Attributes::uncached) |
               properties_in(word, Base::special, Attributes::special) |
               properties_in(word, Base::accessed, Attributes::accessed);
    }

    static constexpr Word merge_accessed_dirty(Word word, Word other) {
        const Word merged = word | (other & Base::accessed);
        if (!Base::tracks_dirty || !has(written_attributes(other), Attributes::dirty))
            return merged;
        return merged | ((word & Base::dirty_modifier) != 0 ? write : Base::dirty_earlier);
    }

    static constexpr Word clear_accessed_dirty(Word word, Attributes which) {
        using detail::word_if;
        return word & ~(word_if(which, Attributes::accessed, Base::accessed) |
                        word_if(which, Attributes::dirty, Base::dirty_earlier | made_dirty(word)));
    }

  private:
    static constexpr Attributes written_attributes(Word word) {
        return Base::written_attributes(word, word, write);
    }

    /// The bit that the hardware set in a writable leaf; 0 where dirty is not tracked.
    static constexpr Word made_dirty(Word word) {
        return Base::tracks_dirty && (word & Base::dirty_modifier) != 0 ? write : 0;
    }
};

static_assert(PageTableFormat<ArmStage2<>>);
static_assert(PageTableFormat<ArmStage2<ArmConfig{.granule_lg2 = 14}>>);
static_assert(PageTableFormat<ArmStage2<ArmConfig{.granule_lg2 = 16}>>);

} // namespace moat::formats
