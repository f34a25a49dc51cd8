// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The PageTableFormat concept: what the engine needs of a format, and the geometry that follows.
// formats/ has the bits, the engine the algorithms.
//
// Terms. An *entry* is one 64-bit word of a table. Level 0 is the level whose entries can only be
// leaves; the top level holds the root table. A *leaf* may be made of a *group* of 2^k neighbouring
// entries of one level (Arm's contiguous bit, RISC-V's Svnapot, AMD's next level 7); k = 0 is the
// plain leaf of one entry.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/types.hpp"
#include "moat/page_table/attributes.hpp"

#include <concepts>
#include <cstdint>
#include <string_view>

namespace moat {

/// One entry of a table, as the hardware reads it.
using Word = std::uint64_t;

enum class EntryKind : std::uint8_t { absent, leaf, table };

/// How a live entry may change into one with the same translation: between a leaf and a table of
/// smaller leaves, or between a group and its members.
enum class LiveChange : std::uint8_t {
    in_place,          ///< one store; the hardware may use the old or the new entry for a while
    break_before_make, ///< absent first, then an invalidation, then the new entry
};

/// What sets the accessed or dirty bit of a leaf.
enum class FlagUpdate : std::uint8_t {
    none,     ///< the format has no such bit
    software, ///< the hardware faults where the bit is clear; the engine presets it
    hardware, ///< the hardware sets it, at any time, in any entry of a group
};

/// The hardware's rules for live entries; the engine follows them.
struct FormatCapabilities {
    LiveChange level_change; ///< between a leaf and a table
    LiveChange
        group_change; ///< between a group and its members; in_place where there are no groups
    FlagUpdate accessed;
    FlagUpdate dirty;
};

/// A format of page tables: bits only, all static. `L` is a level.
template <class F>
concept PageTableFormat = requires(Word word, std::uint64_t physical, Attributes attributes,
                                   unsigned level, unsigned group_lg2) {
    // The kind of address that it translates: Iova or VirtualAddress.
    typename F::Input;
    // A display name: "x86-64, 4 levels".
    { F::name } -> std::convertible_to<std::string_view>;
    // log2 of the smallest page, also of every table except the top one.
    { F::granule_lg2 } -> std::convertible_to<unsigned>;
    // The valid numbers of levels; different where the top can grow.
    { F::fewest_levels } -> std::convertible_to<unsigned>;
    { F::most_levels } -> std::convertible_to<unsigned>;
    // Physical addresses are below 2^output_bits.
    { F::output_bits } -> std::convertible_to<unsigned>;
    // Whether the upper half of input addresses has all high bits set.
    { F::sign_extended } -> std::convertible_to<bool>;
    { F::capabilities } -> std::convertible_to<FormatCapabilities>;
    // How many address bits index a table of this level; granule_lg2 - 3 except in a top table.
    { F::index_bits(level) } -> std::same_as<unsigned>;
    // Bit k set: a group of 2^k entries of this level can be a leaf. 0: no leaves at this level.
    { F::leaf_groups(level) } -> std::same_as<std::uint32_t>;
    // Whether a leaf can have exactly these properties, ignoring accessed and dirty.
    { F::representable(attributes) } -> std::same_as<bool>;
    // The bits of a leaf that depend on neither level, address nor group.
    { F::attribute_word(attributes) } -> std::same_as<Word>;
    // The first entry of a leaf; `physical` is aligned to the leaf's size.
    { F::template leaf_word<0>(physical, word, group_lg2) } -> std::same_as<Word>;
    // The difference to the next entry of the same leaf (group_lg2 > 0), or of a next leaf with
    // contiguous memory (group_lg2 = 0).
    { F::template entry_step<0>(group_lg2) } -> std::same_as<Word>;
    // The kind of an entry of level L; 0 is absent in every format.
    { F::template kind<0>(word) } -> std::same_as<EntryKind>;
    // A leaf entry's group, the group's first physical address, and properties.
    { F::template leaf_group_lg2<0>(word) } -> std::same_as<unsigned>;
    { F::template leaf_physical<0>(word) } -> std::same_as<std::uint64_t>;
    { F::template leaf_attributes<0>(word) } -> std::same_as<Attributes>;
    // The first leaf entry with the accessed and dirty bits of both.
    { F::merge_accessed_dirty(word, word) } -> std::same_as<Word>;
    // The leaf entry without the accessed and dirty bits that `attributes` names.
    { F::clear_accessed_dirty(word, attributes) } -> std::same_as<Word>;
    // An entry of level L for the table at `physical`, and the reverse.
    { F::template table_word<1>(physical) } -> std::same_as<Word>;
    { F::template table_physical<1>(word) } -> std::same_as<std::uint64_t>;
};

/// log2 of the bytes that one entry of `level` covers.
template <PageTableFormat F>
[[nodiscard]] constexpr unsigned entry_lg2(unsigned level) {
    return F::granule_lg2 + level * (F::granule_lg2 - 3);
}

/// log2 of the bytes that a whole table of `level` covers.
template <PageTableFormat F>
[[nodiscard]] constexpr unsigned table_span_lg2(unsigned level) {
    return entry_lg2<F>(level) + F::index_bits(level);
}

/// The address bits that a tree of `levels` levels translates, at most 64.
template <PageTableFormat F>
[[nodiscard]] constexpr unsigned input_bits(unsigned levels = F::most_levels) {
    return table_span_lg2<F>(levels - 1);
}

/// log2 of the bytes of a table of `level` in memory: the granule, or more for a concatenated top
/// table.
template <PageTableFormat F>
[[nodiscard]] constexpr unsigned table_bytes_lg2(unsigned level) {
    const unsigned needed = F::index_bits(level) + 3;
    return needed > F::granule_lg2 ? needed : F::granule_lg2;
}

/// The index of `address` in a table of level L.
template <PageTableFormat F, unsigned L>
[[nodiscard]] constexpr unsigned entry_index(std::uint64_t address) {
    return static_cast<unsigned>((address >> entry_lg2<F>(L)) & low_bits(F::index_bits(L)));
}

template <PageTableFormat F>
[[nodiscard]] constexpr bool can_be_leaf(unsigned level) {
    return F::leaf_groups(level) != 0;
}

/// The highest level that can hold a leaf.
template <PageTableFormat F>
[[nodiscard]] constexpr unsigned highest_leaf_level() {
    unsigned level = F::most_levels - 1;
    while (level != 0 && !can_be_leaf<F>(level))
        --level;
    return level;
}

} // namespace moat
