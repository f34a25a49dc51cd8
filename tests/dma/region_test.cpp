// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Regions of other devices in tables with an "uncached" attribute: they alone have it.
#include "moat/page_table/formats/arm_stage2.hpp"

#include "machine/domain.hpp"
#include "space_system.hpp"

#include <array>
#include <gtest/gtest.h>

namespace moat::tests {

namespace {

using namespace literals;

using ArmTree = Tree<formats::ArmStage2<>, RealSync, TablePool<RealSync>>;
using ArmDomain = iommu::SoftDomain<ArmTree>;

TEST(Region, is_uncached_where_the_tables_can_say_so_and_memory_is_not) {
    OwnTables tables;
    ArmDomain domain(*PageTable<ArmTree>::create(tables.pool()));
    machine::ForwardingDomain forwarding(domain);
    const auto space = *dma::Space<machine::Domain, RealSync>::create(forwarding);
    const PhysicalAddress bar(0x20'0000'0000);
    for (const auto direction : {dma::Direction::to_device, dma::Direction::bidirectional}) {
        const Iova region = *space->map_region(bar, 4_MiB, direction, "BAR 2");
        const auto leaf = domain.reader().translate(region);
        ASSERT_TRUE(leaf);
        EXPECT_EQ(leaf->physical(), bar);
        EXPECT_EQ(leaf->leaf_lg2(), 21U);
        EXPECT_TRUE(has(leaf->attributes(), Attributes::uncached));
        EXPECT_EQ(has(leaf->attributes(), Attributes::write),
                  direction == dma::Direction::bidirectional);
        EXPECT_TRUE(space->unmap(region, 4_MiB, direction));
        EXPECT_FALSE(domain.reader().translate(region));
    }
    std::array<std::byte, 64> bytes{};
    const dma::Memory memory = {bytes, PhysicalAddress(0x1'0000'0000)};
    const Iova mapped = *space->map(memory, dma::Direction::to_device);
    EXPECT_FALSE(has(domain.reader().translate(mapped)->attributes(), Attributes::uncached));
    EXPECT_TRUE(space->unmap(mapped, memory.size(), dma::Direction::to_device));
}

} // namespace

} // namespace moat::tests
