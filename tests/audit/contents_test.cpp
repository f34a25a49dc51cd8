// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a medium should hold: patterns that name their origin, and the cases that stored them.
#include "audit/contents.hpp"
#include "audit/pattern.hpp"

#include <algorithm>
#include <gtest/gtest.h>
#include <vector>

namespace moat::tests {
namespace {

using audit::Case;
using audit::Contents;
using audit::Medium;
using audit::Origin;

constexpr Medium disk{.size = ByteCount(1 << 20), .unit = ByteCount(512)};

std::vector<std::byte> pattern(std::size_t bytes, Origin from) {
    std::vector<std::byte> made(bytes);
    fill_pattern(made, from);
    return made;
}

TEST(Pattern, differs_by_case_and_place_and_is_no_canary) {
    const auto one = pattern(4096, {12, 8192});
    const auto other_case = pattern(4096, {13, 8192});
    const auto other_place = pattern(4096, {12, 8200});
    for (std::size_t at = 0; at != one.size(); at += 8) {
        const auto word = std::span(one).subspan(at, 8);
        EXPECT_FALSE(std::ranges::equal(word, std::span(other_case).subspan(at, 8))) << at;
        EXPECT_FALSE(std::ranges::equal(word, std::span(other_place).subspan(at, 8))) << at;
    }
    EXPECT_TRUE(std::ranges::none_of(
        one, [](std::byte each) { return (each & std::byte{0x80}) != std::byte{0}; }));
    EXPECT_EQ(audit::compare_pattern(one, {12, 8192}).bytes, 0U);
    EXPECT_EQ(audit::compare_pattern(other_case, {12, 8192}).bytes, 4096U);
}

TEST(Pattern, continues_at_any_byte) {
    const auto whole = pattern(2048, {7, 0});
    for (const std::size_t begin : {1U, 8U, 511U, 513U}) {
        const auto part = std::span(whole).subspan(begin, 1000);
        EXPECT_TRUE(std::ranges::equal(pattern(1000, {7, begin}), part)) << begin;
    }
}

TEST(Pattern, counts_whole_words_that_differ) {
    auto bytes = pattern(100, {3, 13}); // its first word has 3 bytes, its last one 1
    bytes[4] ^= std::byte{1};
    bytes[99] ^= std::byte{1};
    const auto wrong = audit::compare_pattern(bytes, {3, 13});
    EXPECT_EQ(wrong.first, 3U);
    EXPECT_EQ(wrong.bytes, 9U);
}

TEST(Pattern, names_its_origin_at_any_alignment) {
    for (const std::uint64_t number : {0UL, 12UL, 200'000UL, 5'000'000'000UL})
        for (std::uint64_t at : {0UL, 8UL, 505UL, 4096UL, (1UL << 20) - 16}) {
            const auto bytes = pattern(16, {number, at});
            const auto found = audit::origin_of(bytes, number + 3, 1 << 20);
            ASSERT_TRUE(found) << number << ' ' << at;
            EXPECT_EQ(found->case_number, number);
            EXPECT_EQ(found->at, at);
            EXPECT_FALSE(audit::origin_of(bytes, number + 3, at)) << "beyond the medium";
        }
    EXPECT_FALSE(audit::origin_of(pattern(16, {12, 0}), 11, 1 << 20)) << "a later case";
    EXPECT_FALSE(audit::origin_of(std::vector<std::byte>(64), 1000, 1 << 20)) << "zeros";
    EXPECT_FALSE(audit::origin_of(pattern(7, {12, 0}), 20, 1 << 20)) << "too short";
}

class ContentsTest : public testing::Test {
  protected:
    ContentsTest() { contents.begin(disk); }

    static Case at(std::uint64_t number, std::uint64_t position, std::uint64_t bytes) {
        return {.number = number, .length = ByteCount(bytes), .position = position};
    }

    /// A medium that does what it should.
    std::vector<std::byte> store(const Case& about, bool is_certain = true) {
        std::vector<std::byte> data(about.length.value());
        Contents::fill(data, disk, about);
        contents.note(about, is_certain);
        return data;
    }

    Contents contents;
};

TEST_F(ContentsTest, knows_nothing_before_a_store) {
    const std::vector<std::byte> zeros(4096);
    EXPECT_FALSE(contents.compare(zeros, at(5, 0, 4096)));
    store(at(6, 100, 512));
    EXPECT_FALSE(contents.compare(zeros, at(7, 0, 4096)));
}

TEST_F(ContentsTest, the_last_store_counts_for_each_unit) {
    auto data = store(at(1, 0, 2048));
    const auto later = store(at(2, 1, 512));
    EXPECT_TRUE(contents.compare(data, at(3, 0, 2048))) << "the second unit is of case 1";
    std::ranges::copy(later, data.begin() + 512);
    EXPECT_FALSE(contents.compare(data, at(3, 0, 2048)));
    EXPECT_FALSE(contents.compare(std::span(data).first(700), at(3, 0, 2048))) << "the rest is not";
}

TEST_F(ContentsTest, uncertain_store_makes_its_units_unknown) {
    const auto data = store(at(1, 0, 1536));
    store(at(2, 1, 512), false);
    auto loaded = data;
    std::ranges::fill(std::span(loaded).subspan(512, 512), std::byte{0});
    EXPECT_FALSE(contents.compare(loaded, at(3, 0, 1536)));
    loaded[1024] ^= std::byte{1};
    EXPECT_TRUE(contents.compare(loaded, at(3, 0, 1536)));
}

TEST_F(ContentsTest, wrong_words_name_the_case_whose_data_they_are) {
    const auto first = store(at(4, 16, 512));
    auto data = store(at(9, 0, 1024));
    std::ranges::copy(std::span(first).subspan(64, 32), data.begin() + 600);
    const auto wrong = contents.compare(data, at(11, 0, 1024));
    ASSERT_TRUE(wrong);
    EXPECT_EQ(wrong->offset, 600U);
    EXPECT_EQ(wrong->bytes, 32U);
    EXPECT_EQ(wrong->expected.case_number, 9U);
    EXPECT_EQ(wrong->expected.at, 600U);
    ASSERT_TRUE(wrong->origin);
    EXPECT_EQ(wrong->origin->case_number, 4U);
    EXPECT_EQ(wrong->origin->at, 16 * 512U + 64);
    EXPECT_EQ(wrong->first_case, 4U) << "a run of the cases from here on stores both";
}

TEST_F(ContentsTest, another_medium_is_unknown) {
    const auto data = store(at(1, 0, 512));
    const std::vector<std::byte> zeros(512);
    contents.begin(disk);
    EXPECT_TRUE(contents.compare(zeros, at(2, 0, 512))) << "a driver that starts again";
    contents.begin({.size = ByteCount(4096), .unit = ByteCount(512)});
    EXPECT_FALSE(contents.compare(zeros, at(2, 0, 512)));
}

TEST_F(ContentsTest, medium_that_is_not_kept_is_unknown_after_a_start) {
    const Medium store_of_a_driver{.size = ByteCount(8192), .is_kept = false};
    contents.begin(store_of_a_driver);
    auto data = store(at(1, 0, 2048));
    data[100] ^= std::byte{1};
    EXPECT_TRUE(contents.compare(data, at(2, 0, 2048)));
    contents.begin(store_of_a_driver);
    EXPECT_FALSE(contents.compare(data, at(2, 0, 2048)));
}

TEST_F(ContentsTest, ends_where_the_cases_of_a_plan_end) {
    contents.begin({});
    EXPECT_FALSE(contents.compare(store(at(1, 5, 512)), at(2, 5, 512)));
    contents.begin({.size = ByteCount(600), .unit = ByteCount(512)});
    contents.note(at(1, 0, 2048), true);
    contents.note(at(1, ~std::uint64_t{0}, 2048), true);
    EXPECT_TRUE(contents.compare(std::vector<std::byte>(2048), at(2, 0, 2048)));
}

TEST(Plan, positions_repeat_overlap_and_stay_on_the_medium) {
    using audit::Content;
    const std::vector<audit::Operation> operations = {
        {.name = "read",
         .granule = ByteCount(512),
         .longest = ByteCount(1 << 20),
         .content = Content::loads},
        {.name = "identify", .granule = ByteCount(512), .longest = ByteCount(512)}};
    const audit::Plan plan(operations, audit::Placements::both, 1, disk);
    const audit::Plan again(operations, audit::Placements::both, 1, disk);
    std::vector<std::uint64_t> used;
    for (std::uint64_t number = 0; number != 2000; ++number) {
        const Case made = plan.at(number);
        EXPECT_EQ(made.position, again.at(number).position);
        EXPECT_LE(made.position * 512 + made.length.value(), disk.size.value()) << number;
        EXPECT_TRUE(made.operation == 0 || made.position == 0) << number;
        used.push_back(made.position);
    }
    std::ranges::sort(used);
    for (const std::uint64_t position : {1U, 7U, 16U, 112U})
        EXPECT_TRUE(std::ranges::binary_search(used, position)) << position;
    EXPECT_GT(used.back(), 1000U) << "the end";
}

} // namespace
} // namespace moat::tests
