// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Generations: an invalidation changes the generation of each block that it touches.
#include "moat/iommu/generations.hpp"
#include "moat/sync/serial.hpp"

#include <array>
#include <gtest/gtest.h>

namespace {

using namespace moat;

constexpr std::uint64_t small_block = bit(iommu::small_generation_lg2);
constexpr std::uint64_t blocks = 1024; // as many as there are counters

/// How many of `blocks` consecutive blocks from `start` on change when [first, last] does.
std::uint64_t changed(std::uint64_t start, std::uint64_t first, std::uint64_t last) {
    iommu::Generations<SerialSync> generations;
    std::array<std::uint64_t, blocks> before{};
    for (std::uint64_t i = 0; i != blocks; ++i)
        before[i] = generations.small(start + i * small_block);
    generations.forget({Iova(first), Iova(last)});
    std::uint64_t count = 0;
    for (std::uint64_t i = 0; i != blocks; ++i)
        count += generations.small(start + i * small_block) != before[i] ? 1 : 0;
    return count;
}

TEST(Generations, of_each_block_change_and_of_no_other) {
    for (const std::uint64_t start : {0ULL, 77ULL * small_block, 0x7fff'0000'0000ULL}) {
        const std::uint64_t inside = start + 300 * small_block;
        EXPECT_EQ(changed(start, inside, inside + 4095), 1U) << start;
        EXPECT_EQ(changed(start, inside + small_block - 4096, inside + small_block + 4095), 2U);
        EXPECT_EQ(changed(start, start, start + blocks * small_block - 1), blocks) << start;
        EXPECT_EQ(changed(start, 0, ~0ULL), blocks) << start;
    }
}

TEST(Generations, of_large_blocks_change_with_ranges_that_can_hold_a_large_leaf) {
    iommu::Generations<SerialSync> generations;
    const std::uint64_t before = generations.large(0);
    generations.forget({Iova(0), Iova(bit(iommu::large_block_lg2) - 4097)});
    EXPECT_EQ(generations.large(0), before);
    generations.forget({Iova(0), Iova(bit(iommu::large_block_lg2) - 1)});
    EXPECT_NE(generations.large(0), before);
}

} // namespace
