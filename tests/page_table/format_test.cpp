// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every format as bits: geometry, encoding and decoding, groups, accessed and dirty.
// Nothing of the engine. The words that the specifications ask for are in golden_words_test.cpp.
#include "moat/core/bits.hpp"
#include "moat/page_table/attributes.hpp"

#include "formats.hpp"

#include <cstdint>
#include <gtest/gtest.h>
#include <random>
#include <vector>

namespace moat::tests {
namespace {

template <class C>
struct FormatTest : ::testing::Test {};

TYPED_TEST_SUITE(FormatTest, AllFormats, FormatName);

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

/// What of `flag` a leaf with `asked` holds after encoding. `preset`: what software presets.
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

TYPED_TEST(FormatTest, geometry_adds_up) {
    using F = typename TypeParam::Format;
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

TYPED_TEST(FormatTest, leaf_holds_what_was_asked_for) {
    using F = typename TypeParam::Format;
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
                    ASSERT_EQ(F::template kind<L>(word), EntryKind::leaf) << std::hex << word;
                    ASSERT_EQ(F::template leaf_group_lg2<L>(word), group) << std::hex << word;
                    ASSERT_EQ(F::template leaf_physical<L>(word), physical) << std::hex << word;
                    ASSERT_EQ(F::template leaf_attributes<L>(word), expected<F>(asked))
                        << std::hex << word << " for " << static_cast<unsigned>(asked);
                }
        });
    });
}

TYPED_TEST(FormatTest, decoded_leaf_encodes_to_itself) {
    using F = typename TypeParam::Format;
    for (const Attributes asked : representable_sets<F>()) {
        const Word once = F::template leaf_word<0>(0, F::attribute_word(asked), 0);
        const Attributes read = F::template leaf_attributes<0>(once);
        EXPECT_TRUE(F::representable(read));
        EXPECT_EQ(F::template leaf_word<0>(0, F::attribute_word(read), 0), once);
    }
}

TYPED_TEST(FormatTest, permissions_of_nothing_are_not_representable) {
    using F = typename TypeParam::Format;
    EXPECT_FALSE(F::representable(Attributes::none));
    EXPECT_FALSE(F::representable(Attributes::special));
    EXPECT_TRUE(F::representable(read_write));
    EXPECT_TRUE(F::representable(read_only));
}

TYPED_TEST(FormatTest, accessed_and_dirty_do_not_decide_what_is_representable) {
    using F = typename TypeParam::Format;
    for (std::uint32_t i = 0; i <= every_attribute; ++i) {
        const auto asked = static_cast<Attributes>(i);
        EXPECT_EQ(F::representable(asked), F::representable(asked - accessed_and_dirty)) << i;
    }
}

TYPED_TEST(FormatTest, entries_of_a_group_tell_the_same_leaf) {
    using F = typename TypeParam::Format;
    std::mt19937_64 random(seed);
    const Word attributes = F::attribute_word(read_write);
    for_each_level<F>([&]<unsigned L>() {
        for_each_group<F>(L, [&](unsigned group) {
            for (const std::uint64_t physical :
                 physical_addresses<F>(entry_lg2<F>(L) + group, random)) {
                Word word = F::template leaf_word<L>(physical, attributes, group);
                for (std::uint64_t i = 0; i != bit(group); ++i) {
                    ASSERT_EQ(F::template kind<L>(word), EntryKind::leaf);
                    ASSERT_EQ(F::template leaf_group_lg2<L>(word), group) << "entry " << i;
                    ASSERT_EQ(F::template leaf_physical<L>(word), physical) << "entry " << i;
                    ASSERT_EQ(F::template leaf_attributes<L>(word), expected<F>(read_write));
                    if (group != 0)
                        word += F::template entry_step<L>(group);
                }
            }
        });
    });
}

TYPED_TEST(FormatTest, a_step_leads_to_the_next_plain_leaf) {
    using F = typename TypeParam::Format;
    const Word attributes = F::attribute_word(read_write);
    for_each_level<F>([&]<unsigned L>() {
        if constexpr ((F::leaf_groups(L) & 1U) != 0) {
            const std::uint64_t size = bit(entry_lg2<F>(L));
            EXPECT_EQ(F::template leaf_word<L>(size, attributes, 0) + F::template entry_step<L>(0),
                      F::template leaf_word<L>(2 * size, attributes, 0));
        }
    });
}

TYPED_TEST(FormatTest, table_entry_leads_to_its_table) {
    using F = typename TypeParam::Format;
    std::mt19937_64 random(seed);
    for_each_level<F>([&]<unsigned L>() {
        if constexpr (L > 0)
            for (const std::uint64_t physical : physical_addresses<F>(F::granule_lg2, random)) {
                const Word word = F::template table_word<L>(physical);
                EXPECT_EQ(F::template kind<L>(word), EntryKind::table) << std::hex << word;
                EXPECT_EQ(F::template table_physical<L>(word), physical) << std::hex << word;
            }
    });
}

TYPED_TEST(FormatTest, zero_is_absent_and_the_last_level_has_no_tables) {
    using F = typename TypeParam::Format;
    std::mt19937_64 random(seed);
    for_each_level<F>([&]<unsigned L>() {
        EXPECT_EQ(F::template kind<L>(0), EntryKind::absent);
        for (unsigned i = 0; i != 10000; ++i) {
            const Word word = random();
            const EntryKind kind = F::template kind<L>(word);
            ASSERT_TRUE(kind != EntryKind::table || L != 0) << std::hex << word;
            ASSERT_TRUE(kind != EntryKind::leaf || can_be_leaf<F>(L)) << std::hex << word;
        }
    });
}

TYPED_TEST(FormatTest, merge_gives_what_either_entry_has) {
    using F = typename TypeParam::Format;
    for (const Attributes asked : representable_sets<F>()) {
        const Attributes plain = asked - accessed_and_dirty;
        const Word word = F::template leaf_word<0>(0, F::attribute_word(plain), 0);
        const Word used = F::template leaf_word<0>(0, F::attribute_word(asked), 0);
        EXPECT_EQ(F::merge_accessed_dirty(word, used), used);
        EXPECT_EQ(F::merge_accessed_dirty(used, word), used);
        EXPECT_EQ(F::merge_accessed_dirty(word, word), word);
    }
}

TYPED_TEST(FormatTest, merge_into_other_permissions_brings_nothing_but_the_flags) {
    using F = typename TypeParam::Format;
    for (const Attributes into : representable_sets<F>())
        for (const Attributes from : representable_sets<F>()) {
            const Word merged =
                F::merge_accessed_dirty(F::attribute_word(into), F::attribute_word(from));
            ASSERT_EQ(F::template leaf_attributes<0>(merged) - accessed_and_dirty,
                      into - accessed_and_dirty)
                << static_cast<unsigned>(from) << " into " << static_cast<unsigned>(into);
        }
}

TYPED_TEST(FormatTest, clear_takes_away_just_what_it_names) {
    using F = typename TypeParam::Format;
    for (const Attributes asked : representable_sets<F>())
        for (const Attributes which :
             {Attributes::none, Attributes::accessed, Attributes::dirty, accessed_and_dirty}) {
            const Word word = F::template leaf_word<0>(0, F::attribute_word(asked), 0);
            const Word cleared = F::clear_accessed_dirty(word, which);
            EXPECT_EQ(F::template kind<0>(cleared), EntryKind::leaf);
            EXPECT_EQ(F::template leaf_attributes<0>(cleared),
                      F::template leaf_attributes<0>(word) - which)
                << static_cast<unsigned>(asked) << " - " << static_cast<unsigned>(which);
        }
}

} // namespace
} // namespace moat::tests
