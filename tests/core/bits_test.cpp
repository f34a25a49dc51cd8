// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "moat/core/bits.hpp"

#include <cstdint>
#include <gtest/gtest.h>
#include <limits>

namespace {

using namespace moat;

constexpr std::uint64_t all_bits = std::numeric_limits<std::uint64_t>::max();

TEST(LowBits, cover_every_width) {
    EXPECT_EQ(low_bits(0), 0U);
    EXPECT_EQ(low_bits(12), 0xfffU);
    EXPECT_EQ(low_bits(63), all_bits >> 1);
    EXPECT_EQ(low_bits(64), all_bits);
}

TEST(FieldMask, is_inclusive_at_both_ends) {
    EXPECT_EQ(field_mask(51, 12), 0x000f'ffff'ffff'f000U);
    EXPECT_EQ(field_mask(0, 0), 1U);
    EXPECT_EQ(field_mask(63, 63), std::uint64_t{1} << 63);
    EXPECT_EQ(field_mask(63, 0), all_bits);
}

TEST(Bit, covers_every_index) {
    for (unsigned index = 0; index != 64; ++index) {
        EXPECT_EQ(bit(index), field_mask(index, index));
        EXPECT_EQ(floor_lg2(bit(index)), index);
        EXPECT_EQ(alignment_lg2(bit(index)), index);
    }
}

TEST(Alignment, rounds_to_multiples) {
    EXPECT_EQ(align_down(0x1fff, 12), 0x1000U);
    EXPECT_EQ(align_up(0x1001, 12), 0x2000U);
    EXPECT_EQ(align_up(0x1000, 12), 0x1000U);
    EXPECT_EQ(align_down(all_bits, 0), all_bits);
    EXPECT_EQ(align_down(all_bits, 63), std::uint64_t{1} << 63);
}

TEST(Alignment, wraps_at_the_top_as_documented) {
    EXPECT_EQ(align_up(all_bits, 12), 0U);
    EXPECT_EQ(align_up(align_down(all_bits, 12), 12), align_down(all_bits, 12));
}

TEST(Alignment, is_told_of_a_number) {
    EXPECT_TRUE(is_aligned(0, 63));
    EXPECT_TRUE(is_aligned(0x20'0000, 21));
    EXPECT_FALSE(is_aligned(0x20'1000, 21));
    EXPECT_EQ(alignment_lg2(0), 64U);
    EXPECT_EQ(alignment_lg2(0x20'1000), 12U);
}

TEST(FloorLg2, rounds_down) {
    EXPECT_EQ(floor_lg2(1), 0U);
    EXPECT_EQ(floor_lg2(0x1fff), 12U);
    EXPECT_EQ(floor_lg2(all_bits), 63U);
}

} // namespace
