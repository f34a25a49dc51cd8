// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every format as bits, without the engine: geometry, encoding and decoding, groups, accessed and
// dirty. golden_words_test.cpp has the words of the specifications.
#include "moat/core/bits.hpp"
#include "moat/page_table/attributes.hpp"

#include "formats.hpp"

#include <cstdint>
#include <gtest/gtest.h>
#include <ostream>
#include <random>
#include <vector>

namespace moat::tests {
namespace {

constexpr std::uint32_t every_attribute = 0x3ff;
constexpr std::uint64_t seed = 20260307;

/// Calls `visit.operator()<L>()` for each level that a tree of the format can have.
template <class F, class Visit, unsigned L = 0>
void for_each_level(Visit&& visit) {
    visit.template operator()<L>();
    if constexpr (L + 1 < F::most_levels)
        for_each_level<F, Visit, L + 1>(std::forward<Visit>(visit));
}

/// Calls `visit(group_lg2)` for each kind of leaf of `level`.
template <class F, class Visit>
void for_each_group(unsigned level, Visit&& visit) {
    for (unsigned group = 0; group != 32; ++group)
        if ((F::leaf_groups(level) & bit(group)) != 0)
            visit(group);
}

template <class F>
std::vector<Attributes> representable_sets() {
    std::vector<Attributes> sets;
    for (std::uint32_t i = 0; i <= every_attribute; ++i)
        if (F::representable(static_cast<Attributes>(i)))
            sets.push_back(static_cast<Attributes>(i));
    return sets;
}

/// The part of `flag` that a leaf with `asked` holds after encoding. `preset`: the flags that
/// software presets.
constexpr Attributes held(FlagUpdate update, Attributes asked, Attributes flag, Attributes preset) {
    return update == FlagUpdate::none       ? Attributes::none
           : update == FlagUpdate::hardware ? asked & flag
                                            : (asked & flag) | preset;
}

template <class F>
constexpr Attributes expected(Attributes asked) {
    const Attributes dirty = has(asked, Attributes::write) ? Attributes::dirty : Attributes::none;
    return (asked - accessed_and_dirty) |
           held(F::capabilities.accessed, asked, Attributes::accessed, Attributes::accessed) |
           held(F::capabilities.dirty, asked, Attributes::dirty, dirty);
}

/// Physical addresses of leaves of 2^size_lg2 bytes: the first, the last, and some between.
template <class F>
std::vector<std::uint64_t> physical_addresses(unsigned size_lg2, std::mt19937_64& random) {
    const std::uint64_t mask = low_bits(F::output_bits) & ~low_bits(size_lg2);
    return {0, mask, random() & mask, random() & mask};
}

/// The decoded properties of an entry, compared once rather than for each format and level.
struct Said {
    EntryKind kind = EntryKind::absent;
    unsigned group_lg2 = 0;
    std::uint64_t physical = 0;
    Attributes attributes = Attributes::none;

    friend bool operator==(const Said&, const Said&) = default;

    friend void PrintTo(const Said& said, std::ostream* out) { // NOLINT: gtest's name
        *out << "kind " << static_cast<unsigned>(said.kind) << ", group " << said.group_lg2
             << std::hex << ", physical " << said.physical << ", attributes "
             << static_cast<unsigned>(said.attributes);
    }
};

template <class F, unsigned L>
Said leaf_said(Word word) {
    return {F::template kind<L>(word), F::template leaf_group_lg2<L>(word),
            F::template leaf_physical<L>(word), F::template leaf_attributes<L>(word)};
}

/// Return: whether it is correct; otherwise the test has failed.
[[nodiscard]] bool expect_said(const Said& said, const Said& expected, Word word) {
    EXPECT_EQ(said, expected) << "by " << std::hex << word;
    return said == expected;
}

template <class F>
void geometry_adds_up() {
    EXPECT_LE(F::fewest_levels, F::most_levels);
    EXPECT_GE(F::fewest_levels, 1U);
    EXPECT_LE(input_bits<F>(), 64U);
    for (unsigned level = 0; level != F::most_levels; ++level) {
        if (level + 1 < F::most_levels) {
            EXPECT_EQ(F::index_bits(level), F::granule_lg2 - 3) << "level " << level;
        }
        EXPECT_GE(F::index_bits(level), 1U) << "level " << level;
        for_each_group<F>(level, [level](unsigned group) {
            EXPECT_LE(group, F::index_bits(level)) << "level " << level;
            EXPECT_LT(entry_lg2<F>(level) + group, F::output_bits) << "level " << level;
        });
    }
    EXPECT_TRUE(F::leaf_groups(0) & 1U) << "a page of the granule is a leaf";
}

template <class F>
void leaf_holds_what_was_asked_for() {
    std::mt19937_64 random(seed);
    const std::vector<Attributes> sets = representable_sets<F>();
    ASSERT_FALSE(sets.empty());
    for_each_level<F>([&]<unsigned L>() {
        for_each_group<F>(L, [&](unsigned group) {
            for (const std::uint64_t physical :
                 physical_addresses<F>(entry_lg2<F>(L) + group, random))
                for (const Attributes asked : sets) {
                    const Word word =
                        F::template leaf_word<L>(physical, F::attribute_word(asked), group);
                    if (!expect_said(leaf_said<F, L>(word),
                                     {EntryKind::leaf, group, physical, expected<F>(asked)}, word))
                        return;
                }
        });
    });
}

template <class F>
void decoded_leaf_encodes_to_itself() {
    for (const Attributes asked : representable_sets<F>()) {
        const Word once = F::template leaf_word<0>(0, F::attribute_word(asked), 0);
        const Attributes read = F::template leaf_attributes<0>(once);
        EXPECT_TRUE(F::representable(read));
        EXPECT_EQ(F::template leaf_word<0>(0, F::attribute_word(read), 0), once);
    }
}

template <class F>
void permissions_of_nothing_are_not_representable() {
    EXPECT_FALSE(F::representable(Attributes::none));
    EXPECT_FALSE(F::representable(Attributes::special));
    EXPECT_TRUE(F::representable(read_write));
    EXPECT_TRUE(F::representable(read_only));
}

template <class F>
void accessed_and_dirty_do_not_decide_what_is_representable() {
    for (std::uint32_t i = 0; i <= every_attribute; ++i) {
        const auto asked = static_cast<Attributes>(i);
        EXPECT_EQ(F::representable(asked), F::representable(asked - accessed_and_dirty)) << i;
    }
}

template <class F>
void entries_of_a_group_tell_the_same_leaf() {
    std::mt19937_64 random(seed);
    const Word attributes = F::attribute_word(read_write);
    for_each_level<F>([&]<unsigned L>() {
        for_each_group<F>(L, [&](unsigned group) {
            for (const std::uint64_t physical :
                 physical_addresses<F>(entry_lg2<F>(L) + group, random)) {
                Word word = F::template leaf_word<L>(physical, attributes, group);
                for (std::uint64_t i = 0; i != bit(group); ++i) {
                    if (!expect_said(leaf_said<F, L>(word),
                                     {EntryKind::leaf, group, physical, expected<F>(read_write)},
                                     word))
                        return;
                    if (group != 0)
                        word += F::template entry_step<L>(group);
                }
            }
        });
    });
}

template <class F>
void a_step_leads_to_the_next_plain_leaf() {
    const Word attributes = F::attribute_word(read_write);
    for_each_level<F>([&]<unsigned L>() {
        if constexpr ((F::leaf_groups(L) & 1U) != 0) {
            const std::uint64_t size = bit(entry_lg2<F>(L));
            EXPECT_EQ(F::template leaf_word<L>(size, attributes, 0) + F::template entry_step<L>(0),
                      F::template leaf_word<L>(2 * size, attributes, 0));
        }
    });
}

template <class F>
void table_entry_leads_to_its_table() {
    std::mt19937_64 random(seed);
    for_each_level<F>([&]<unsigned L>() {
        if constexpr (L > 0)
            for (const std::uint64_t physical : physical_addresses<F>(F::granule_lg2, random)) {
                const Word word = F::template table_word<L>(physical);
                const Said said{.kind = F::template kind<L>(word),
                                .physical = F::template table_physical<L>(word)};
                if (!expect_said(said, {.kind = EntryKind::table, .physical = physical}, word))
                    return;
            }
    });
}

template <class F>
void zero_is_absent_and_the_last_level_has_no_tables() {
    std::mt19937_64 random(seed);
    for_each_level<F>([&]<unsigned L>() {
        if (!expect_said({.kind = F::template kind<L>(0)}, {.kind = EntryKind::absent}, 0))
            return;
        for (unsigned i = 0; i != 10000; ++i) {
            const Word word = random();
            const EntryKind kind = F::template kind<L>(word);
            const bool must_not_be = (kind == EntryKind::table && L == 0) ||
                                     (kind == EntryKind::leaf && !can_be_leaf<F>(L));
            if (must_not_be && !expect_said({.kind = kind}, {.kind = EntryKind::absent}, word))
                return;
        }
    });
}

template <class F>
void merge_gives_what_either_entry_has() {
    for (const Attributes asked : representable_sets<F>()) {
        const Attributes plain = asked - accessed_and_dirty;
        const Word word = F::template leaf_word<0>(0, F::attribute_word(plain), 0);
        const Word used = F::template leaf_word<0>(0, F::attribute_word(asked), 0);
        EXPECT_EQ(F::merge_accessed_dirty(word, used), used);
        EXPECT_EQ(F::merge_accessed_dirty(used, word), used);
        EXPECT_EQ(F::merge_accessed_dirty(word, word), word);
    }
}

template <class F>
void merge_into_other_permissions_brings_nothing_but_the_flags() {
    for (const Attributes into : representable_sets<F>())
        for (const Attributes from : representable_sets<F>()) {
            const Word merged =
                F::merge_accessed_dirty(F::attribute_word(into), F::attribute_word(from));
            if (!expect_said(
                    {.attributes = F::template leaf_attributes<0>(merged) - accessed_and_dirty},
                    {.attributes = into - accessed_and_dirty}, merged))
                return;
        }
}

template <class F>
void clear_takes_away_just_what_it_names() {
    for (const Attributes asked : representable_sets<F>())
        for (const Attributes which :
             {Attributes::none, Attributes::accessed, Attributes::dirty, accessed_and_dirty}) {
            const Word word = F::template leaf_word<0>(0, F::attribute_word(asked), 0);
            const Word cleared = F::clear_accessed_dirty(word, which);
            Said wanted = leaf_said<F, 0>(word);
            wanted.attributes = wanted.attributes - which;
            if (!expect_said(leaf_said<F, 0>(cleared), wanted, cleared))
                return;
        }
}

template <class C>
struct FormatTest : ::testing::Test {};

TYPED_TEST_SUITE(FormatTest, AllFormats, FormatName);

/// One typed test, not twelve: each costs compilers 90 ms a format, whatever its contents.
TYPED_TEST(FormatTest, is_of_one_piece) {
    using F = typename TypeParam::Format;
    geometry_adds_up<F>();
    leaf_holds_what_was_asked_for<F>();
    decoded_leaf_encodes_to_itself<F>();
    permissions_of_nothing_are_not_representable<F>();
    accessed_and_dirty_do_not_decide_what_is_representable<F>();
    entries_of_a_group_tell_the_same_leaf<F>();
    a_step_leads_to_the_next_plain_leaf<F>();
    table_entry_leads_to_its_table<F>();
    zero_is_absent_and_the_last_level_has_no_tables<F>();
    merge_gives_what_either_entry_has<F>();
    merge_into_other_permissions_brings_nothing_but_the_flags<F>();
    clear_takes_away_just_what_it_names<F>();
}

} // namespace
} // namespace moat::tests
