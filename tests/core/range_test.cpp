// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "moat/core/bits.hpp"
#include "moat/core/range.hpp"
#include "moat/core/text.hpp"

#include <cstdint>
#include <gtest/gtest.h>
#include <limits>
#include <vector>

namespace {

using namespace moat;
using namespace moat::literals;

constexpr std::uint64_t top = std::numeric_limits<std::uint64_t>::max();

IovaRange range(std::uint64_t start, std::uint64_t size) {
    return {Iova(start), ByteCount(size)};
}

TEST(RangeAtTheTop, may_end_at_two_to_the_64) {
    const IovaRange last_page = range(top - 0xfff, 0x1000);
    EXPECT_EQ(last_page.last(), Iova(top));
    EXPECT_TRUE(last_page.contains(Iova(top)));
    EXPECT_FALSE(last_page.contains(Iova(0)));
    EXPECT_FALSE(last_page.overlaps(range(0, 0x1000)));
    EXPECT_TRUE(last_page.overlaps(range(top, 1)));
}

TEST(RangeAtTheTop, may_hold_every_byte_but_one) {
    const IovaRange all = range(1, top);
    EXPECT_EQ(all.last(), Iova(top));
    EXPECT_TRUE(all.contains(range(top, 1)));
    EXPECT_FALSE(all.contains(Iova(0)));
    EXPECT_EQ(IovaRange::inclusive(Iova(1), Iova(top)), all);
}

TEST(RangeAtTheTop, is_refused_past_it) {
    const auto refused = IovaRange::make(Iova(top - 0xfff), ByteCount(0x1001));
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code(), ErrorCode::overflow);
    EXPECT_EQ(*refused.error().find("start"), top - 0xfff);
    EXPECT_EQ(*refused.error().find("size"), 0x1001U);
    EXPECT_FALSE(IovaRange::make(Iova(top), ByteCount(top)).has_value());
    EXPECT_TRUE(IovaRange::make(Iova(top), ByteCount(1)).has_value());
    EXPECT_TRUE(IovaRange::make(Iova(top), ByteCount(0)).has_value());
}

TEST(RangeDeathTest, refuses_a_programmers_errors) {
    EXPECT_DEATH(range(top, 2), "within 64 bits");
    EXPECT_DEATH((void)range(top - 0xfff, 0x1000).end(), "fits 64 bits");
    EXPECT_DEATH((void)range(0x1000, 0).last(), "no last byte");
    EXPECT_DEATH((void)IovaRange::inclusive(Iova(0), Iova(top)), "do not fit");
    EXPECT_DEATH((void)IovaRange::inclusive(Iova(2), Iova(1)), "do not fit");
    EXPECT_DEATH((void)range(0, 1).hull(range(top, 1)), "do not fit");
}

TEST(EmptyRange, holds_nothing_and_meets_nothing) {
    const IovaRange empty = range(0x1000, 0);
    EXPECT_TRUE(empty.empty());
    EXPECT_TRUE(IovaRange().empty());
    EXPECT_FALSE(empty.contains(Iova(0x1000)));
    EXPECT_FALSE(empty.overlaps(range(0, 0x2000)));
    EXPECT_FALSE(range(0, 0x2000).overlaps(empty));
    EXPECT_TRUE(range(0, 1).contains(empty)) << "nothing is inside of everything";
    EXPECT_EQ(empty.end(), Iova(0x1000));
    EXPECT_EQ(empty.hull(range(7, 1)), range(7, 1));
    EXPECT_EQ(range(7, 1).hull(empty), range(7, 1));
}

TEST(Range, end_is_exclusive_and_last_inclusive) {
    EXPECT_EQ(range(0x1000, 0x2000).end(), Iova(0x3000));
    EXPECT_EQ(range(0x1000, 0x2000).last(), Iova(0x2fff));
    EXPECT_EQ(IovaRange::inclusive(Iova(5), Iova(5)), range(5, 1));
}

/// Every range within a small space at both ends of the address space, against sets of bytes.
class SmallRanges : public testing::TestWithParam<std::uint64_t> {
  protected:
    static constexpr unsigned bytes = 7;

    [[nodiscard]] std::vector<IovaRange> all() const {
        std::vector<IovaRange> ranges;
        for (unsigned start = 0; start != bytes; ++start)
            for (unsigned size = 0; start + size <= bytes; ++size)
                ranges.push_back(range(GetParam() + start, size));
        return ranges;
    }

    /// Bit i says whether the range holds byte i of the space.
    [[nodiscard]] unsigned members(const IovaRange& some) const {
        unsigned set = 0;
        for (unsigned byte = 0; byte != bytes; ++byte)
            set |= unsigned{some.contains(Iova(GetParam() + byte))} << byte;
        return set;
    }
};

TEST_P(SmallRanges, hold_their_bytes) {
    for (const IovaRange& each : all())
        EXPECT_EQ(static_cast<std::uint64_t>(__builtin_popcount(members(each))),
                  each.size().value())
            << each;
}

TEST_P(SmallRanges, meet_as_sets_do) {
    for (const IovaRange& a : all()) {
        for (const IovaRange& b : all()) {
            SCOPED_TRACE(testing::Message() << a << ' ' << b);
            EXPECT_EQ(a.overlaps(b), (members(a) & members(b)) != 0);
            EXPECT_EQ(a.contains(b), (members(b) & ~members(a)) == 0);
            EXPECT_EQ(members(a.intersection(b)), members(a) & members(b));
            if (const unsigned both = members(a) | members(b); both != 0) {
                const unsigned lowest = alignment_lg2(both);
                const unsigned highest = floor_lg2(both);
                EXPECT_EQ(members(a.hull(b)), field_mask(highest, lowest));
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(BothEnds, SmallRanges, testing::Values(0, top - 6));

} // namespace
