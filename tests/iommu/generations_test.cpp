// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Generations: an invalidation changes the generation of each block that it touches.
#include "moat/iommu/generations.hpp"
#include "moat/sync/serial.hpp"

#include <array>
#include <gtest/gtest.h>

namespace {

using namespace moat;

constexpr std::uint64_t small_block = bit(iommu::small_generation_lg2);
constexpr std::uint64_t blocks = 512; // in as many large ones as these have counters

using Generations = iommu::Generations<SerialSync>;

std::uint64_t small(const Generations& generations, std::uint64_t address) {
    return generations.small(address, generations.large(address));
}

/// How many of `blocks` consecutive blocks from `start` on change when [first, last] does.
std::uint64_t changed(std::uint64_t start, std::uint64_t first, std::uint64_t last) {
    Generations generations;
    std::array<std::uint64_t, blocks> before{};
    for (std::uint64_t i = 0; i != blocks; ++i)
        before[i] = small(generations, start + i * small_block);
    generations.forget({Iova(first), Iova(last)});
    std::uint64_t count = 0;
    for (std::uint64_t i = 0; i != blocks; ++i)
        count += small(generations, start + i * small_block) != before[i] ? 1 : 0;
    return count;
}

TEST(Generations, of_each_block_change_and_of_no_other) {
    constexpr std::uint64_t most = iommu::most_small_generations;
    for (const std::uint64_t start : {0ULL, 77ULL * small_block, 0x7fff'0000'0000ULL}) {
        const std::uint64_t inside = start + 300 * small_block;
        EXPECT_EQ(changed(start, inside, inside + 4095), 1U) << start;
        EXPECT_EQ(changed(start, inside + small_block - 4096, inside + small_block + 4095), 2U);
        EXPECT_EQ(changed(start, inside, inside + most * small_block - 1), most) << start;
    }
}

TEST(Generations, of_a_longer_range_change_with_its_large_blocks) {
    constexpr std::uint64_t large_block = bit(iommu::large_generation_lg2);
    constexpr std::uint64_t in_large = large_block / small_block;
    constexpr std::uint64_t longer = (iommu::most_small_generations + 1) * small_block;
    for (const std::uint64_t start : {0ULL, 0x7fff'0000'0000ULL}) {
        EXPECT_EQ(changed(start, start, start + longer - 1), in_large) << start;
        EXPECT_EQ(changed(start, start + large_block - 4096, start + large_block + longer - 1),
                  2 * in_large);
        EXPECT_EQ(changed(start, start, start + blocks * small_block - 1), blocks) << start;
        EXPECT_EQ(changed(start, 0, ~0ULL), blocks) << start;
    }
}

TEST(Generations, of_large_blocks_change_with_ranges_that_can_hold_a_large_leaf) {
    Generations generations;
    const std::uint64_t before = generations.large(0);
    generations.forget(
        {Iova(0), Iova(iommu::most_small_generations * small_block - 1)}); // a leaf cannot fit
    EXPECT_EQ(generations.large(0), before);
    generations.forget({Iova(0), Iova(bit(iommu::large_block_lg2) - 1)});
    EXPECT_NE(generations.large(0), before);
}

} // namespace
