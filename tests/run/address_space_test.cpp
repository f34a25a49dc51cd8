// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// AddressSpace: which past mappings it still names. Its live ones: session_test.cpp.
#include "run/address_space.hpp"

#include <gtest/gtest.h>

namespace moat::run {

namespace {

constexpr std::uint64_t page_bytes = 4096;
constexpr std::uint64_t most_past = 65'536;

/// Unmapped at 1, then others `count` times, at later times.
class WithPast : public testing::Test {
  protected:
    void map_and_unmap(Iova at) {
        space_.map({.map = {.range = IovaRange(at, ByteCount(page_bytes))}});
        space_.unmap(at, {.time_ns = ++unmaps_});
    }

    void map_and_unmap(Iova at, std::uint64_t count) {
        for (; count != 0; --count)
            map_and_unmap(at);
    }

    [[nodiscard]] fault::Diagnosis access(Iova at) {
        return space_.diagnose(exact_record(fault::Source::requester(8, 0), fault::Access::write,
                                            IovaRange(at, ByteCount(8)),
                                            fault::Reason::not_present));
    }

    /// The number of the unmap that is named, from 1 on; 0 if none is.
    [[nodiscard]] std::uint64_t named(Iova at) {
        const fault::Diagnosis diagnosis = access(at);
        return diagnosis.past ? diagnosis.past->unmapped.time_ns : 0;
    }

  private:
    AddressSpace space_;
    std::uint64_t unmaps_ = 0;
};

constexpr Iova first(0x10'0000);
constexpr Iova other(0x4000'0000);

TEST_F(WithPast, names_the_latest_65536_unmaps) {
    map_and_unmap(first);
    map_and_unmap(other, most_past - 1);
    EXPECT_EQ(named(first), 1);
    EXPECT_EQ(access(first).past->unmaps_since, most_past - 1);
    EXPECT_EQ(named(other), most_past);
    map_and_unmap(other);
    EXPECT_EQ(named(first), 0);
    EXPECT_EQ(named(other), most_past + 1);
}

TEST_F(WithPast, names_an_unmap_between_two_accesses) {
    map_and_unmap(other, 3);
    EXPECT_EQ(named(other), 3);
    map_and_unmap(first);
    EXPECT_EQ(named(first), 4);
    map_and_unmap(other, 2 * most_past); // more than it remembers, since the last access
    map_and_unmap(first);
    EXPECT_EQ(named(first), 2 * most_past + 5);
    EXPECT_EQ(access(first).past->unmaps_since, 0);
    EXPECT_EQ(named(other), 2 * most_past + 4);
    EXPECT_EQ(access(other).kind, fault::Kind::use_after_unmap);
}

} // namespace

} // namespace moat::run
