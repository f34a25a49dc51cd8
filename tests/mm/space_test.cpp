// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The promises of an address space to its callers, one behaviour a test.
#include "fixture.hpp"

#include <gtest/gtest.h>
#include <map>

namespace moat::mm::tests {
namespace {

class AddressSpaceTest : public ::testing::Test {
  protected:
    static constexpr std::uint64_t base = 1ULL << 41;

    void map(std::uint64_t start, std::uint64_t size, const Mapping<Sync>& mapping) {
        const auto mapped = world.space.map(at(start, size), mapping);
        ASSERT_TRUE(mapped) << to_string(mapped.error());
    }

    Fault fault(std::uint64_t address, Access access = Access::write) {
        const auto result = world.space.fault(VirtualAddress(address), access);
        EXPECT_TRUE(result) << to_string(result.error());
        return result ? *result : Fault{};
    }

    ErrorCode fault_error(std::uint64_t address, Access access = Access::write) {
        const auto result = world.space.fault(VirtualAddress(address), access);
        EXPECT_FALSE(result);
        return result ? ErrorCode::empty : result.error().code();
    }

    World world;
};

using Faults = AddressSpaceTest;

TEST_F(Faults, install_the_largest_leaf_that_fits_a_device) {
    // From one page below a gigabyte boundary to one page above the next.
    map(base - page, gib + 2 * page, world.bar_mapping(gib - page));
    EXPECT_EQ(fault(base - page).leaf.size_lg2, 12U);
    EXPECT_EQ(fault(base + 5 * mib).leaf.size_lg2, 30U);
    EXPECT_EQ(fault(base + gib).leaf.size_lg2, 12U);
    const auto leaf = world.space.look_up(VirtualAddress(base + 12345));
    ASSERT_TRUE(leaf);
    EXPECT_EQ(leaf->physical, PhysicalAddress((1ULL << 40) + gib));
    EXPECT_TRUE(has(leaf->attributes, Attributes::special | read_write | Attributes::user));
}

TEST_F(Faults, go_down_to_the_size_that_physical_addresses_allow) {
    map(base, 4 * gib, world.bar_mapping(2 * mib));
    EXPECT_EQ(fault(base + gib).leaf.size_lg2, 21U);
    map(base + 8 * gib, 4 * gib, world.bar_mapping(page));
    EXPECT_EQ(fault(base + 9 * gib).leaf.size_lg2, 12U);
}

TEST_F(Faults, stay_below_the_cap_of_a_mapping) {
    Mapping<Sync> mapping = world.bar_mapping();
    mapping.largest_leaf_lg2 = pmd_lg2;
    map(base, 4 * gib, mapping);
    EXPECT_EQ(fault(base + gib).leaf.size_lg2, 21U);
}

TEST_F(Faults, map_a_region_of_mixed_sizes_as_a_whole) {
    constexpr std::uint64_t size = 0x2F'00F0'0000;
    map(base, size, world.bar_mapping());
    ASSERT_TRUE(world.space.populate(at(base, size), Access::read));
    std::map<unsigned, std::uint64_t> leaves;
    std::uint64_t next = base;
    ASSERT_TRUE(world.space.look_up(at(base, size), [&](const LeafView& leaf) {
        EXPECT_EQ(leaf.start.value(), next);
        EXPECT_EQ(leaf.physical.value() - World::bar_base.value(), next - base);
        next += leaf.range().size().value();
        ++leaves[leaf.size_lg2];
    }));
    EXPECT_EQ(next, base + size);
    EXPECT_EQ(leaves[30], 188U);
    EXPECT_EQ(leaves[21], 7U);
    EXPECT_EQ(leaves[12], 256U);
}

TEST_F(Faults, of_a_large_bar_take_two_tables) {
    map(base, 128 * gib, world.bar_mapping());
    ASSERT_TRUE(world.space.populate(at(base, 128 * gib), Access::write));
    EXPECT_LE(world.memory.tables_in_use() * page, 12 * kib);
}

TEST_F(Faults, give_anonymous_memory_huge_pages_inside_and_pages_at_the_ends) {
    map(base - page, 4 * mib, {});
    EXPECT_EQ(fault(base - page).leaf.size_lg2, 12U);
    EXPECT_EQ(fault(base + 7).leaf.size_lg2, 21U);
    EXPECT_EQ(fault(base + 2 * mib).leaf.size_lg2, 12U);
    EXPECT_EQ(world.memory.frames_in_use(), 514U);
}

TEST_F(Faults, that_only_read_show_the_zero_page_until_a_write) {
    map(base, 2 * mib, {});
    Listener listener;
    world.space.add_notifier(listener);
    const Fault read = fault(base, Access::read);
    EXPECT_EQ(world.memory.behind(read.leaf.physical), Behind::zero);
    EXPECT_FALSE(has(read.leaf.attributes, Attributes::write));
    EXPECT_EQ(world.memory.frames_in_use(), 0U);
    EXPECT_TRUE(listener.heard.empty());
    const Fault write = fault(base + page);
    EXPECT_EQ(write.outcome, FaultOutcome::upgraded);
    EXPECT_EQ(world.memory.behind(write.leaf.physical), Behind::ram);
    EXPECT_TRUE(has(write.leaf.attributes, Attributes::write | Attributes::dirty));
    ASSERT_EQ(listener.heard.size(), 1U);
    EXPECT_EQ(listener.heard[0].change, Change::replaced);
    world.space.remove_notifier(listener);
}

TEST_F(Faults, fall_back_to_pages_when_no_huge_page_is_free) {
    Sizes sizes;
    sizes.nodes = {ByteCount(2 * mib - page), ByteCount(page)};
    World small(sizes);
    ASSERT_TRUE(small.space.map(at(base, 4 * mib), {}));
    EXPECT_EQ(small.space.fault(VirtualAddress(base), Access::write)->leaf.size_lg2, 12U);
    EXPECT_EQ(small.space.fault(VirtualAddress(base), Access::write)->outcome,
              FaultOutcome::present);
    std::uint64_t pages = 1;
    while (small.space.fault(VirtualAddress(base + pages * page), Access::write))
        ++pages;
    EXPECT_EQ(pages, 512U);
}

TEST_F(Faults, of_explicit_huge_pages_have_their_size_or_fail) {
    Sizes sizes;
    sizes.nodes = {ByteCount(gib), ByteCount(2 * mib)};
    World large(sizes);
    ASSERT_TRUE(large.space.map(at(base, 2 * gib), {.kind = VmaKind::huge}));
    EXPECT_EQ(large.space.fault(VirtualAddress(base + page), Access::read)->leaf.size_lg2, 30U);
    EXPECT_EQ(large.space.fault(VirtualAddress(base + gib), Access::read).error().code(),
              ErrorCode::no_memory);
    EXPECT_EQ(large.space.unmap(at(base, 2 * mib)).error().code(), ErrorCode::unaligned);
    EXPECT_EQ(large.space.zap(at(base, page)).error().code(), ErrorCode::unaligned);
    EXPECT_EQ(large.space.split_leaf(VirtualAddress(base), pud_lg2, DeviceLeaf::unmap),
              LeafChange::refused);
    ASSERT_TRUE(large.space.map(at(2 * base, 4 * mib),
                                {.kind = VmaKind::huge, .largest_leaf_lg2 = pmd_lg2}));
    EXPECT_EQ(large.space.fault(VirtualAddress(2 * base + page), Access::read)->leaf.size_lg2, 21U);
    ASSERT_TRUE(large.space.unmap(at(base, gib)));
    EXPECT_EQ(large.memory.frames_in_use(), 512U);
}

TEST_F(Faults, of_shared_ram_meet_in_one_frame) {
    std::vector<SharedRam<Sync>::Slot> slots(16);
    SharedRam<Sync> shared(slots);
    const Mapping<Sync> mapping{.kind = VmaKind::shared, .shared = &shared};
    map(base, 16 * page, mapping);
    Mapping<Sync> second = mapping;
    second.offset = ByteCount(4 * page);
    map(base + gib, 12 * page, second);
    EXPECT_EQ(fault(base + 5 * page).leaf.physical, fault(base + gib + page).leaf.physical);
    EXPECT_EQ(world.memory.frames_in_use(), 1U);
    ASSERT_TRUE(world.space.unmap(at(base, 2 * gib)));
    EXPECT_EQ(world.memory.frames_in_use(), 1U);
    shared.clear(world.memory);
    EXPECT_EQ(world.memory.frames_in_use(), 0U);
}

TEST_F(Faults, of_device_memory_with_page_structs_are_counted) {
    map(base, 8 * mib, {.kind = VmaKind::device, .region = &world.device_memory});
    const Fault first = fault(base + 2 * mib);
    EXPECT_EQ(first.leaf.size_lg2, 21U);
    EXPECT_FALSE(has(first.leaf.attributes, Attributes::special));
    EXPECT_EQ(world.memory.frame(first.leaf.physical)->references.load(), 1U);
    // Its leaf is not split either, but removed as a whole.
    ASSERT_TRUE(world.space.zap(at(base + 2 * mib, page)));
    EXPECT_EQ(world.leaf_lg2(base + 3 * mib), 0U);
    EXPECT_EQ(world.memory.frame(first.leaf.physical)->references.load(), 0U);
    EXPECT_TRUE(world.memory.frame(first.leaf.physical)->flags.load() & Frame<Sync>::dirty);
}

TEST_F(Faults, are_refused_where_nothing_is_mapped_or_permitted) {
    EXPECT_EQ(fault_error(base), ErrorCode::not_found);
    map(base, page, {.permissions = read_only});
    EXPECT_EQ(fault_error(base), ErrorCode::refused);
    EXPECT_EQ(fault_error(base, Access::execute), ErrorCode::refused);
    EXPECT_EQ(fault_error(base + page), ErrorCode::not_found);
    EXPECT_EQ(fault_error(base - 1), ErrorCode::not_found);
}

TEST_F(Faults, take_frames_from_the_nodes_of_the_policy) {
    const auto node_of = [&](std::uint64_t address) {
        return world.memory.frame(fault(address).leaf.physical)->node;
    };
    map(base, 8 * page, {.nodes = {NodeMode::interleave, 0b11}});
    EXPECT_EQ(node_of(base), 0U);
    EXPECT_EQ(node_of(base + page), 1U);
    EXPECT_EQ(node_of(base + 2 * page), 0U);
    map(2 * base, 64 * mib, {.nodes = {NodeMode::bind, 0b10}});
    EXPECT_EQ(node_of(2 * base), 1U);
    EXPECT_EQ(world.space.populate(at(2 * base, 64 * mib), Access::write).error().code(),
              ErrorCode::no_memory);
    map(3 * base, 8 * page, {.nodes = {NodeMode::prefer, 0b10}});
    EXPECT_EQ(node_of(3 * base), 0U);
}

using Changes = AddressSpaceTest;

TEST_F(Changes, merge_mappings_that_go_on_alike) {
    map(base, gib, world.bar_mapping());
    map(base + 2 * gib, gib, world.bar_mapping(2 * gib));
    EXPECT_EQ(world.space.find(VirtualAddress(base))->range, at(base, gib));
    map(base + gib, gib, world.bar_mapping(gib));
    EXPECT_EQ(world.space.find(VirtualAddress(base))->range, at(base, 3 * gib));
    // A mapping with another offset does not continue it.
    map(base + 3 * gib, gib, world.bar_mapping(5 * gib));
    EXPECT_EQ(world.space.find(VirtualAddress(base))->range, at(base, 3 * gib));
}

TEST_F(Changes, do_not_map_over_something) {
    map(base, 4 * page, {});
    for (const auto& range : {at(base, page), at(base - page, 2 * page), at(base - page, gib)})
        EXPECT_EQ(world.space.map(range, {}).error().code(), ErrorCode::overlap);
}

TEST_F(Changes, unmap_cuts_mappings_and_leaves) {
    map(base, 6 * mib, {});
    ASSERT_TRUE(world.space.populate(at(base, 6 * mib), Access::write));
    const auto before = world.space.look_up(VirtualAddress(base + 4 * mib - page));
    const auto unmapped = world.space.unmap(at(base + page, 2 * mib));
    ASSERT_TRUE(unmapped);
    EXPECT_EQ(unmapped->bytes, 2 * mib);
    EXPECT_EQ(world.space.find(VirtualAddress(base))->range, at(base, page));
    EXPECT_EQ(world.space.find_from(VirtualAddress(base + page))->range,
              at(base + 2 * mib + page, 4 * mib - page));
    EXPECT_EQ(world.leaf_lg2(base), 12U);
    EXPECT_EQ(world.leaf_lg2(base + page), 0U);
    EXPECT_EQ(world.leaf_lg2(base + 2 * mib), 0U);
    EXPECT_EQ(world.leaf_lg2(base + 2 * mib + page), 12U);
    EXPECT_EQ(world.space.look_up(VirtualAddress(base + 4 * mib - page))->physical,
              before->physical_of(VirtualAddress(base + 4 * mib - page)));
    EXPECT_EQ(world.leaf_lg2(base + 4 * mib), 21U);
}

TEST_F(Changes, unmap_of_a_part_of_a_device_leaf_takes_it_whole) {
    map(base, 2 * gib, world.bar_mapping());
    ASSERT_TRUE(world.space.populate(at(base, 2 * gib), Access::read));
    const auto unmapped = world.space.unmap(at(base + gib, mib));
    ASSERT_TRUE(unmapped);
    EXPECT_EQ(world.leaf_lg2(base), 30U);
    EXPECT_EQ(world.leaf_lg2(base + gib + mib), 0U);
    EXPECT_EQ(fault(base + gib + 3 * mib).leaf.size_lg2, 21U);
    EXPECT_EQ(fault(base + gib + mib).leaf.size_lg2, 12U);
}

TEST_F(Changes, unmap_frees_tables_of_the_gap_only) {
    map(base, page, {});
    map(base + 2 * mib, page, {});
    ASSERT_TRUE(world.space.populate(at(base, page), Access::write));
    ASSERT_TRUE(world.space.populate(at(base + 2 * mib, page), Access::write));
    EXPECT_EQ(world.memory.tables_in_use(), 5U);
    ASSERT_TRUE(world.space.unmap(at(base, page)));
    EXPECT_EQ(world.leaf_lg2(base + 2 * mib), 12U);
    ASSERT_TRUE(world.space.unmap(at(base + 2 * mib, page)));
    Sync::barrier();
    EXPECT_EQ(world.memory.tables_in_use(), 1U);
}

TEST_F(Changes, protect_changes_leaves_and_faults_to_come) {
    map(base, 4 * mib, {});
    fault(base);
    fault(base + 2 * mib, Access::read);
    ASSERT_TRUE(world.space.protect(at(base + page, 4 * mib - page), read_only));
    EXPECT_EQ(world.space.find(VirtualAddress(base))->range, at(base, page));
    EXPECT_TRUE(has(world.space.look_up(VirtualAddress(base))->attributes, Attributes::write));
    EXPECT_FALSE(
        has(world.space.look_up(VirtualAddress(base + page))->attributes, Attributes::write));
    EXPECT_EQ(fault_error(base + page), ErrorCode::refused);
    ASSERT_TRUE(world.space.protect(at(base, 4 * mib), read_write));
    EXPECT_EQ(world.space.find(VirtualAddress(base))->range, at(base, 4 * mib));
    EXPECT_EQ(fault(base + page).outcome, FaultOutcome::present);
    // The zero page stays read-only whatever its mapping permits.
    EXPECT_EQ(fault(base + 2 * mib).outcome, FaultOutcome::upgraded);
    EXPECT_EQ(world.space.protect(at(base, 8 * mib), read_only).error().code(),
              ErrorCode::not_found);
}

using Splits = AddressSpaceTest;

TEST_F(Splits, say_what_they_did) {
    map(base, 2 * mib, {});
    map(base + gib, gib, world.bar_mapping());
    const VirtualAddress ram(base);
    const VirtualAddress bar(base + gib);
    EXPECT_EQ(world.space.split_leaf(ram, pmd_lg2), LeafChange::gone);
    fault(base);
    EXPECT_EQ(world.space.split_leaf(ram, pmd_lg2), LeafChange::split);
    EXPECT_EQ(world.space.split_leaf(ram, pmd_lg2), LeafChange::gone);
    EXPECT_EQ(world.leaf_lg2(base), 12U);
    EXPECT_EQ(world.memory.frames_in_use(), 512U);
    fault(base + gib);
    EXPECT_EQ(world.space.split_leaf(bar, pud_lg2), LeafChange::refused);
    EXPECT_EQ(world.leaf_lg2(base + gib), 30U);
    EXPECT_EQ(world.space.split_leaf(bar, pud_lg2, DeviceLeaf::unmap), LeafChange::unmapped);
    EXPECT_EQ(world.leaf_lg2(base + gib), 0U);
    EXPECT_EQ(world.space.split_leaf(bar, pud_lg2, DeviceLeaf::unmap), LeafChange::gone);
}

TEST_F(Splits, of_a_huge_page_keep_it_until_all_of_it_is_gone) {
    map(base, 2 * mib, {});
    fault(base);
    ASSERT_TRUE(world.space.zap(at(base, mib)));
    EXPECT_EQ(world.memory.frames_in_use(), 512U);
    ASSERT_TRUE(world.space.zap(at(base + mib, mib)));
    EXPECT_EQ(world.memory.frames_in_use(), 0U);
}

TEST_F(Splits, without_memory_change_nothing) {
    Sizes sizes;
    sizes.tables = ByteCount(3 * page);
    World small(sizes);
    ASSERT_TRUE(small.space.map(at(base, 2 * mib), {}));
    ASSERT_TRUE(small.space.fault(VirtualAddress(base), Access::write));
    EXPECT_EQ(small.space.split_leaf(VirtualAddress(base), pmd_lg2), LeafChange::no_memory);
    EXPECT_EQ(small.space.zap(at(base, page)).error().code(), ErrorCode::no_memory);
    EXPECT_EQ(small.space.unmap(at(base, page)).error().code(), ErrorCode::no_memory);
    EXPECT_EQ(small.leaf_lg2(base), 21U);
    EXPECT_EQ(small.space.fault(VirtualAddress(base), Access::write)->outcome,
              FaultOutcome::present);
    EXPECT_TRUE(small.space.unmap(at(base, 2 * mib)));
}

using Revocation = AddressSpaceTest;

TEST_F(Revocation, takes_every_leaf_and_lets_faults_fail_until_restored) {
    map(base, 4 * gib, world.bar_mapping());
    map(8 * base, 3 * page, world.bar_mapping(64 * gib));
    map(4 * base, 2 * mib, {});
    ASSERT_TRUE(world.space.populate(at(base, 4 * gib), Access::read));
    ASSERT_TRUE(world.space.populate(at(8 * base, 3 * page), Access::read));
    fault(4 * base);
    Listener listener;
    world.space.add_notifier(listener);
    const Zapped zapped = world.space.revoke(world.bar);
    EXPECT_EQ(zapped.leaves, 7U);
    EXPECT_EQ(zapped.bytes, 4 * gib + 3 * page);
    std::uint64_t heard = 0;
    for (const auto& each : listener.heard)
        heard += each.last - each.start + 1;
    EXPECT_EQ(heard, 4 * gib + 3 * page);
    EXPECT_EQ(world.leaf_lg2(4 * base), 21U);
    EXPECT_EQ(fault_error(base), ErrorCode::io);
    world.space.restore(world.bar);
    EXPECT_EQ(fault(base).leaf.size_lg2, 30U);
    world.space.remove_notifier(listener);
}

TEST_F(Revocation, holds_a_leaf_that_is_being_used_until_the_use_ends) {
    map(base, gib, world.bar_mapping());
    unsigned calls = 0;
    const auto fault =
        world.space.with_leaf(VirtualAddress(base + 5), Access::read, [&](const LeafView& leaf) {
            ++calls;
            EXPECT_EQ(leaf.start.value(), base);
        });
    EXPECT_TRUE(fault);
    EXPECT_EQ(calls, 1U);
}

TEST(PhysicalMemoryDeathTest, a_table_in_a_device_region_is_fatal) {
    World world;
    EXPECT_DEATH((void)world.memory.words(World::bar_base), "a table is read");
    EXPECT_DEATH((void)world.memory.words(PhysicalAddress(0)), "a table is read");
    EXPECT_DEATH((void)world.memory.words(world.memory.ram().start()), "a table is read");
}

} // namespace
} // namespace moat::mm::tests
