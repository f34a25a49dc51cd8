// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "moat/core/types.hpp"

#include <concepts>
#include <cstdint>
#include <gtest/gtest.h>
#include <limits>
#include <type_traits>

namespace {

using namespace moat;
using namespace moat::literals;

constexpr std::uint64_t last_address = std::numeric_limits<std::uint64_t>::max();

template <class A, class B>
concept Comparable = requires(A a, B b) { a == b; };
template <class A, class B>
concept Subtractable = requires(A a, B b) { a - b; };

// Distinct types do not mix; tests/must_not_compile/core shows the compiler's errors.
static_assert(!Comparable<Iova, PhysicalAddress> && !Subtractable<Iova, VirtualAddress>);
static_assert(!Comparable<ByteCount, PageCount> && !Comparable<Iova, std::uint64_t>);
static_assert(!std::convertible_to<std::uint64_t, Iova> && !std::convertible_to<Iova, bool>);
static_assert(!std::convertible_to<std::uint64_t, ByteCount>);
static_assert(sizeof(Iova) == 8 && std::is_trivially_copyable_v<Iova>);

TEST(Address, moves_by_bytes) {
    EXPECT_EQ(Iova(0x1000) + 4_KiB, Iova(0x2000));
    EXPECT_EQ(Iova(0x3000) - Iova(0x1000), 8_KiB);
    EXPECT_EQ(Iova(last_address) - Iova(0), ByteCount(last_address));
    EXPECT_LT(Iova(last_address - 1), Iova(last_address));
}

TEST(AddressDeathTest, does_not_wrap) {
    EXPECT_DEATH((void)(Iova(last_address) + 1_B), "an address fits 64 bits");
    EXPECT_DEATH((void)(Iova(0) - Iova(1)), "not negative");
}

TEST(ByteCount, adds_up) {
    ByteCount sum = 1_GiB;
    sum += 1_GiB;
    EXPECT_EQ(sum, 2_GiB);
    EXPECT_EQ(sum - 2_GiB, 0_B);
    EXPECT_EQ(1_TiB, ByteCount(std::uint64_t{1} << 40));
}

TEST(ByteCountDeathTest, does_not_wrap) {
    EXPECT_DEATH((void)(ByteCount(last_address) + 1_B), "fits 64 bits");
    EXPECT_DEATH((void)(1_B - 2_B), "not negative");
}

TEST(PageCount, is_bytes_of_a_granule) {
    EXPECT_EQ(PageCount(3).bytes(12), 12_KiB);
    EXPECT_EQ(PageCount(1).bytes(63), ByteCount(std::uint64_t{1} << 63));
    EXPECT_EQ(PageCount(0).bytes(63), 0_B);
}

TEST(PageCountDeathTest, does_not_wrap) {
    EXPECT_DEATH((void)PageCount(2).bytes(63), "fits 64 bits");
    EXPECT_DEATH((void)PageCount(1).bytes(64), "fits 64 bits");
}

} // namespace
