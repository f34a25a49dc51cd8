// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Requests for a fixed address: it must satisfy the other conditions of the request too.
#include "moat/core/text.hpp"
#include "moat/iova/allocator.hpp"
#include "moat/sync/serial.hpp"

#include <gtest/gtest.h>
#include <optional>
#include <string>

namespace moat::iova {

namespace {

using namespace moat::literals;
using SerialAllocator = Allocator<SerialSync>;

constexpr IovaRange low_four_gib{Iova(0), 4_GiB};

SerialAllocator::Owner make_serial(unsigned granule_lg2 = 12) {
    return std::move(*SerialAllocator::create(
        {.aperture = {&low_four_gib, 1}, .granule_lg2 = granule_lg2, .guard = {4_KiB, 4_KiB}}));
}

std::string outcome(const Request& request, unsigned granule_lg2 = 12) {
    const auto allocator = make_serial(granule_lg2);
    const ByteCount free = allocator->stats().free;
    const auto got = allocator->allocate(request);
    if (!got) {
        EXPECT_EQ(allocator->stats().free, free) << "an error changes nothing";
        return std::string(name(got.error().code()));
    }
    if (request.at) {
        EXPECT_EQ(*got, *request.at);
    }
    return "done";
}

TEST(IovaFixedAddress, ends_at_its_last_byte_at_the_latest) {
    const auto at_last = [](std::uint64_t at, ByteCount size, std::uint64_t last) {
        return outcome({.size = size, .last = Iova(last), .at = Iova(at)});
    };
    EXPECT_EQ(at_last(0x100000, 4_KiB, 0x100fff), "done") << "the guard may lie above";
    EXPECT_EQ(at_last(0x100000, 4_KiB, 0x100ffe), "out of range");
    EXPECT_EQ(at_last(0x100000, 8_KiB, 0x100fff), "out of range");
    EXPECT_EQ(at_last(0x100000, 1_B, 0x100000), "out of range") << "the range is a whole page";
    EXPECT_EQ(at_last(0x100000, 4_KiB, 0), "out of range");
    EXPECT_EQ(at_last(0x100000, 4_KiB, 0xfffff), "out of range");
    EXPECT_EQ(at_last(0x100000, 4_KiB, ~std::uint64_t{0} - 1), "done");
}

TEST(IovaFixedAddress, lies_where_its_placement_asks) {
    const auto at_placement = [](std::uint64_t at, Congruence placement, unsigned granule = 12) {
        return outcome({.size = 4_KiB, .placement = placement, .at = Iova(at)}, granule);
    };
    EXPECT_EQ(at_placement(0x200000, Congruence::aligned(21)), "done");
    EXPECT_EQ(at_placement(0x201000, Congruence::aligned(21)), "unaligned");
    EXPECT_EQ(at_placement(0x201000, Congruence::aligned(12)), "done");
    EXPECT_EQ(at_placement(0x201000, {21, 0x40001000}), "done");
    EXPECT_EQ(at_placement(0x201000, {21, 0x40001234}), "done")
        << "bits below the granule do not count";
    EXPECT_EQ(at_placement(0x202000, {21, 0x40001000}), "unaligned");
    EXPECT_EQ(at_placement(0x200000, {58, 0}), "out of range");
    EXPECT_EQ(at_placement(0x200000, {~0U, 0}), "out of range");
    EXPECT_EQ(at_placement(0x210000, Congruence::aligned(17), 16), "unaligned");
    EXPECT_EQ(at_placement(0x220000, Congruence::aligned(17), 16), "done");
    EXPECT_EQ(at_placement(0x200001, {}), "unaligned");
}

} // namespace

} // namespace moat::iova
