// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Bits and layouts that several formats share. Each format documents its source.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/page_table/attributes.hpp"
#include "moat/page_table/format.hpp"

#include <cstdint>

namespace moat::formats {

/// Accessed and dirty as one bit each; 0 for a format without them.
template <Word Accessed, Word Dirty>
struct AccessedDirtyBits {
    static constexpr Word accessed = Accessed;
    static constexpr Word dirty = Dirty;

    static constexpr Word merge_accessed_dirty(Word word, Word other) {
        return word | (other & (accessed | dirty));
    }

    static constexpr Word clear_accessed_dirty(Word word, Attributes which) {
        return word & ~(detail::word_if(which, Attributes::accessed, accessed) |
                        detail::word_if(which, Attributes::dirty, dirty));
    }
};

/// Intel's layout: 512 entries a table, addresses in bits 51:12, and bit 7 in leaves of 2M and 1G.
template <Word Accessed, Word Dirty>
struct IntelLayout : AccessedDirtyBits<Accessed, Dirty> {
    static constexpr unsigned granule_lg2 = 12;
    static constexpr unsigned output_bits = 52;
    static constexpr Word page_size = bit(7);

    static constexpr unsigned index_bits(unsigned) { return 9; }

    static constexpr std::uint32_t leaf_groups(unsigned level) { return level <= 2 ? 1 : 0; }

    template <unsigned L>
    static constexpr Word leaf_word(std::uint64_t physical, Word attributes, unsigned) {
        return physical | attributes | (L == 0 ? 0 : page_size);
    }

    template <unsigned L>
    static constexpr Word entry_step(unsigned) {
        return bit(granule_lg2 + 9 * L);
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
    static constexpr std::uint64_t table_physical(Word word) {
        return word & field_mask(51, granule_lg2);
    }
};

} // namespace moat::formats
