// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The container's semantics and errors, one thread at a time.
#include "dma_map_fixture.hpp"

#include <array>
#include <cstring>
#include <gtest/gtest.h>
#include <map>
#include <new>
#include <random>
#include <string>

namespace {

/// The number of this thread's allocations before one fails; -1: none fails.
thread_local int until_failure = -1;

} // namespace

/// For all of the program: Sync::make calls it.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    if (until_failure >= 0 && until_failure-- == 0)
        return nullptr;
    return ::operator new(size);
}

namespace moat::mm::tests {
namespace {

class ContainerTest : public ::testing::Test {
  protected:
    [[nodiscard]] Result<Mapped> map(std::uint64_t iova, std::uint64_t address, std::uint64_t size,
                                     Attributes permissions = read_write) {
        return machine.container.map_dma(Iova(iova), VirtualAddress(address), ByteCount(size),
                                         permissions);
    }

    [[nodiscard]] Result<ByteCount> unmap(std::uint64_t iova, std::uint64_t size) {
        return machine.container.unmap_dma(Iova(iova), ByteCount(size));
    }

    template <class T>
    static void expect_errno(const Result<T>& result, const char* name) {
        ASSERT_FALSE(result) << "expected " << name;
        EXPECT_EQ(errno_name(result.error().code()), name) << to_string(result.error());
    }

    Machine<> machine;
};

constexpr std::uint64_t base = 1ULL << 40;

TEST_F(ContainerTest, device_reaches_what_the_process_has) {
    ASSERT_TRUE(machine.world.space.map(at(base, 2 * mib + 2 * page), {}));
    const auto mapped = map(0x10'0000, base + page, 3 * page);
    ASSERT_TRUE(mapped) << to_string(mapped.error());
    EXPECT_EQ(mapped->pinned.value(), 3 * page);
    for (std::uint64_t offset = 0; offset != 3 * page; offset += page) {
        const auto leaf = machine.world.space.look_up(VirtualAddress(base + page + offset));
        const auto reached = machine.reach(0x10'0000 + offset);
        ASSERT_TRUE(leaf && reached);
        EXPECT_EQ(reached->physical().value(),
                  leaf->physical_of(VirtualAddress(base + page + offset)).value());
    }
    EXPECT_FALSE(machine.reach(0x10'0000 - 1));
    EXPECT_FALSE(machine.reach(0x10'0000 + 3 * page));
    EXPECT_EQ(unmap(0x10'0000, 3 * page)->value(), 3 * page);
    EXPECT_FALSE(machine.reach(0x10'0000));
    EXPECT_EQ(machine.container.pinned().value(), 0U);
}

TEST_F(ContainerTest, reports_einval_for_wrong_arguments) {
    ASSERT_TRUE(machine.map_ram(base, 4 * page));
    expect_errno(map(0, base, 0), "EINVAL");
    expect_errno(map(1, base, page), "EINVAL");
    expect_errno(map(0, base + 1, page), "EINVAL");
    expect_errno(map(0, base, page + 1), "EINVAL");
    expect_errno(map(0, base, page, Attributes::none), "EINVAL");
    expect_errno(map(0, base, page, read_write | Attributes::execute), "EINVAL");
    expect_errno(map(~std::uint64_t{0} - page + 1, base, 2 * page), "EINVAL");
    expect_errno(map(1ULL << 48, base, page), "EINVAL");
    expect_errno(map(0xfee0'0000 - page, base, 2 * page), "EINVAL");
    expect_errno(unmap(base, 0), "EINVAL");
    expect_errno(unmap(base, page + 1), "EINVAL");
    EXPECT_EQ(machine.container.mappings(), 1U);
}

TEST_F(ContainerTest, unmap_that_would_cut_a_mapping_changes_nothing) {
    ASSERT_TRUE(machine.map_ram(base, 4 * page));
    expect_errno(unmap(base, 3 * page), "EINVAL");
    expect_errno(unmap(base + page, 8 * page), "EINVAL");
    expect_errno(unmap(base + page, page), "EINVAL");
    for (std::uint64_t offset = 0; offset != 4 * page; offset += page)
        EXPECT_TRUE(machine.reach(base + offset));
    EXPECT_EQ(unmap(base - 16 * page, 32 * page)->value(), 4 * page);
    EXPECT_EQ(unmap(base - 16 * page, 32 * page)->value(), 0U) << "holes are no error";
}

TEST_F(ContainerTest, reports_eexist_for_an_overlap) {
    ASSERT_TRUE(machine.map_ram(base, 4 * page));
    expect_errno(map(base + 3 * page, base, 2 * page), "EEXIST");
    expect_errno(map(base - page, base, 2 * page), "EEXIST");
    EXPECT_TRUE(map(base + 4 * page, base, page));
}

TEST_F(ContainerTest, reports_efault_for_memory_that_it_cannot_reach) {
    expect_errno(map(0, base, page), "EFAULT");
    ASSERT_TRUE(machine.world.space.map(at(base, 2 * page), {.permissions = read_only}));
    ASSERT_TRUE(machine.world.space.map(at(base + 2 * page, page), {}));
    expect_errno(map(0, base, page), "EFAULT");
    EXPECT_TRUE(map(0, base, page, read_only));
    expect_errno(map(0x10'0000, base + 2 * page, 2 * page), "EFAULT");
    EXPECT_FALSE(machine.reach(0x10'0000)) << "what came before the hole was taken back";
    machine.world.space.revoke(machine.world.bar);
    ASSERT_TRUE(machine.world.space.map(at(2 * base, gib), machine.world.bar_mapping()));
    expect_errno(map(0x10'0000, 2 * base, page), "EFAULT");
    machine.world.space.restore(machine.world.bar);
    EXPECT_TRUE(map(0x10'0000, 2 * base, page));
}

TEST(DmaMapLimitsTest, reports_enospc_at_the_entry_limit) {
    Machine<> machine;
    ASSERT_TRUE(machine.world.space.map(at(base, page), {}));
    const auto map_nth = [&](std::uint64_t i) {
        return machine.container.map_dma(Iova(i * page), VirtualAddress(base), ByteCount(page),
                                         read_write);
    };
    for (std::uint64_t i = 0; i != 65535; ++i)
        ASSERT_TRUE(map_nth(i));
    const auto refused = map_nth(65535);
    ASSERT_FALSE(refused);
    EXPECT_EQ(errno_name(refused.error().code()), "ENOSPC");
    ASSERT_TRUE(machine.container.unmap_dma(Iova(7 * page), ByteCount(page)));
    EXPECT_TRUE(map_nth(65535));
    EXPECT_EQ(machine.container.unmap_dma(Iova(0), ByteCount(65536 * page))->value(), 65535 * page);
}

TEST(DmaMapLimitsTest, reports_enomem_at_the_limit_of_locked_memory) {
    Machine<> machine({}, {.locked_bytes = ByteCount(8 * page)});
    ASSERT_TRUE(machine.map_ram(base, 6 * page));
    const auto refused = machine.map_ram(base + 16 * page, 3 * page);
    ASSERT_FALSE(refused);
    EXPECT_EQ(errno_name(refused.error().code()), "ENOMEM");
    EXPECT_EQ(machine.container.pinned().value(), 6 * page) << "what it pinned was given back";
    EXPECT_FALSE(machine.reach(base + 16 * page));
    ASSERT_TRUE(machine.world.space.map(at(2 * base, gib), machine.world.bar_mapping()));
    const auto bar = machine.container.map_dma(Iova(2 * base), VirtualAddress(2 * base),
                                               ByteCount(gib), read_write);
    ASSERT_TRUE(bar) << "device memory does not count";
    EXPECT_EQ(bar->pinned.value(), 0U);
    EXPECT_EQ(machine.container.pinned().value(), 6 * page);
}

TEST_F(ContainerTest, leaf_is_a_step_and_a_step_is_a_leaf) {
    ASSERT_TRUE(machine.world.space.map(at(base, 128 * gib), machine.world.bar_mapping()));
    const auto mapped = map(base, base, 128 * gib);
    ASSERT_TRUE(mapped) << to_string(mapped.error());
    EXPECT_EQ(mapped->steps, 128U);
    for (std::uint64_t i = 0; i != 128; ++i) {
        const auto reached = machine.reach(base + i * gib + 5 * page);
        ASSERT_TRUE(reached);
        EXPECT_EQ(reached->leaf_lg2(), 30U);
        EXPECT_EQ(reached->physical().value(), World::bar_base.value() + i * gib + 5 * page);
    }
}

/// The size of a GPU's BAR that is no multiple of 1 GiB: 188 GiB and 15 MiB.
TEST_F(ContainerTest, region_of_an_odd_size_maps_with_mixed_leaves) {
    constexpr std::uint64_t size = 0x2F'00F0'0000;
    ASSERT_TRUE(machine.world.space.map(at(base, size), machine.world.bar_mapping()));
    const auto mapped = map(base, base, size);
    ASSERT_TRUE(mapped) << to_string(mapped.error());
    std::map<unsigned, std::uint64_t> leaves;
    ASSERT_TRUE(machine.world.space.look_up(
        at(base, size), [&](const LeafView& leaf) { ++leaves[leaf.size_lg2]; }));
    EXPECT_EQ(leaves, (std::map<unsigned, std::uint64_t>{{12, 256}, {21, 7}, {30, 188}}));
    EXPECT_EQ(mapped->steps, 188U + 7 + 256);
    EXPECT_EQ(machine.reach(base)->leaf_lg2(), 30U);
    EXPECT_EQ(machine.reach(base + 188 * gib)->leaf_lg2(), 21U);
    EXPECT_EQ(machine.reach(base + size - 1)->leaf_lg2(), 12U);
    EXPECT_FALSE(machine.reach(base + size));
}

TEST_F(ContainerTest, mapping_outlives_a_zap_and_an_unmap_by_the_process) {
    ASSERT_TRUE(machine.map_ram(base, 4 * page));
    const auto before = machine.reach(base)->physical();
    ASSERT_TRUE(machine.world.space.unmap(at(base, 4 * page)));
    EXPECT_EQ(machine.reach(base)->physical(), before);
    EXPECT_EQ(machine.world.memory.frames_in_use(), 4U) << "pinned";
    ASSERT_TRUE(unmap(base, 4 * page));
    EXPECT_EQ(machine.world.memory.frames_in_use(), 0U);
}

TEST_F(ContainerTest, revoked_region_has_left_the_domain) {
    ASSERT_TRUE(machine.world.space.map(at(base, gib), machine.world.bar_mapping()));
    ASSERT_TRUE(machine.world.space.map(at(base + gib, 4 * page), {}));
    ASSERT_TRUE(map(base, base, gib + 4 * page)) << "one mapping, of a BAR and of RAM";
    machine.world.space.revoke(machine.world.bar);
    EXPECT_FALSE(machine.reach(base));
    EXPECT_FALSE(machine.reach(base + gib - 1));
    EXPECT_TRUE(machine.reach(base + gib)) << "RAM beside it stays";
    machine.world.space.restore(machine.world.bar);
    EXPECT_FALSE(machine.reach(base)) << "until it is mapped anew";
    ASSERT_TRUE(unmap(base, gib + 4 * page));
    ASSERT_TRUE(map(base, base, gib + 4 * page));
    EXPECT_TRUE(machine.reach(base));
}

TEST(DmaMap, strands_what_a_unit_that_does_not_answer_may_reach_still) {
    Machine<> machine;
    auto& container = machine.container;
    ASSERT_TRUE(machine.world.space.map(at(base, gib), machine.world.bar_mapping()));
    ASSERT_TRUE(container.map_dma(Iova(base), VirtualAddress(base), ByteCount(gib), read_write));
    ASSERT_TRUE(machine.map_ram(base + gib, 4 * page));
    machine.domain.invalidator().stopped = true;
    const auto unmapped = container.unmap_dma(Iova(base + gib), ByteCount(4 * page));
    ASSERT_FALSE(unmapped);
    EXPECT_EQ(unmapped.error().code(), ErrorCode::io);
    EXPECT_EQ(container.pinned(), ByteCount(4 * page)) << "given back to nobody";
    machine.world.space.revoke(machine.world.bar);
    EXPECT_EQ(container.stranded(), ByteCount(gib));
    machine.world.space.restore(machine.world.bar);
} // and the container ends with a mapping that it cannot unmap

TEST_F(ContainerTest, device_that_reads_sees_what_the_process_writes_later) {
    ASSERT_TRUE(machine.map_ram(base, page, read_only));
    const auto fault = machine.world.space.fault(VirtualAddress(base), Access::write);
    ASSERT_TRUE(fault);
    EXPECT_EQ(machine.reach(base)->physical().value(), fault->leaf.physical.value());
    EXPECT_FALSE(has(machine.reach(base)->attributes(), Attributes::write));
}

TEST_F(ContainerTest, device_memory_with_page_structs_is_held_and_does_not_count) {
    auto& region = machine.world.device_memory;
    const std::uint64_t size = machine.world.sizes.device_memory.value();
    ASSERT_TRUE(
        machine.world.space.map(at(base, size), {.kind = VmaKind::device, .region = &region}));
    const auto mapped = map(base, base, size);
    ASSERT_TRUE(mapped) << to_string(mapped.error());
    EXPECT_EQ(mapped->steps, size / (2 * mib));
    EXPECT_EQ(mapped->pinned.value(), 0U);
    const auto references = [&] {
        return machine.world.memory.frame(region.range().start())
            ->references.load(std::memory_order_relaxed);
    };
    EXPECT_EQ(references(), 2U) << "the process's leaf, and the device's";
    ASSERT_TRUE(machine.world.space.unmap(at(base, size)));
    EXPECT_EQ(references(), 1U);
    ASSERT_TRUE(unmap(base, size));
    EXPECT_EQ(references(), 0U);
}

/// A part that begins in the middle of a leaf holds the whole block once, and counts with its own
/// size.
TEST_F(ContainerTest, part_of_a_large_leaf_outlives_the_rest) {
    ASSERT_TRUE(machine.world.space.map(at(base, 2 * mib), {}));
    const auto mapped = map(0, base + 5 * page, 3 * page);
    ASSERT_TRUE(mapped) << to_string(mapped.error());
    EXPECT_EQ(mapped->steps, 1U);
    EXPECT_EQ(mapped->pinned.value(), 3 * page);
    ASSERT_TRUE(machine.world.space.unmap(at(base, 6 * page))) << "the leaf is taken apart";
    ASSERT_TRUE(machine.world.space.unmap(at(base + 6 * page, 2 * mib - 6 * page)));
    EXPECT_NE(machine.world.memory.frames_in_use(), 0U) << "pinned";
    ASSERT_TRUE(unmap(0, 3 * page));
    EXPECT_EQ(machine.world.memory.frames_in_use(), 0U);
}

TEST_F(ContainerTest, what_a_device_may_have_written_is_dirty_in_its_frame) {
    using FrameType = mm::Frame<Sync>;
    ASSERT_TRUE(machine.world.space.map(at(base, 2 * page), {.largest_leaf_lg2 = 12}));
    ASSERT_TRUE(map(0, base, page));
    ASSERT_TRUE(map(page, base + page, page, read_only));
    const auto dirty = [&](std::uint64_t address) {
        const auto leaf = machine.world.space.look_up(VirtualAddress(address));
        return (machine.world.memory.frame(leaf->physical)->flags.load(std::memory_order_relaxed) &
                FrameType::dirty) != 0;
    };
    EXPECT_FALSE(dirty(base));
    ASSERT_TRUE(unmap(0, 2 * page));
    EXPECT_TRUE(dirty(base));
    EXPECT_FALSE(dirty(base + page)) << "the device could only read it";
}

TEST_F(ContainerTest, part_of_a_large_leaf_makes_the_leaf_dirty) {
    using FrameType = mm::Frame<Sync>;
    ASSERT_TRUE(machine.world.space.map(at(base, 2 * mib), {}));
    ASSERT_TRUE(map(base, base + 5 * page, page));
    const auto leaf = machine.world.space.look_up(VirtualAddress(base));
    ASSERT_TRUE(leaf);
    ASSERT_EQ(leaf->size_lg2, 21U);
    FrameType& first = *machine.world.memory.frame(leaf->physical);
    first.flags.store(0, std::memory_order_relaxed);
    ASSERT_TRUE(unmap(base, page));
    EXPECT_NE(first.flags.load(std::memory_order_relaxed) & FrameType::dirty, 0);
}

static_assert(!iommu::DirtyTrackingDomain<DomainOf<FlagUpdate::none, Unit>>);

/// Hides the dirty bits: DmaMap sees what it sees of such tables.
struct DomainWithoutDirtyBits : Machine<>::Domain {
    using TableDomain::TableDomain;
    void clear_dirty() = delete;
};

TEST_F(ContainerTest, without_dirty_bits_all_that_is_writable_is_dirty) {
    Machine<DomainWithoutDirtyBits> untracked;
    ASSERT_TRUE(untracked.map_ram(base, 70 * page));
    ASSERT_TRUE(untracked.map_ram(base + 80 * page, 2 * page, read_only));
    std::array<std::uint64_t, 2> bits{};
    expect_errno(untracked.container.dirty_pages(Iova(base), ByteCount(82 * page), bits), "EINVAL");
    ASSERT_TRUE(untracked.container.start_dirty_tracking());
    expect_errno(untracked.container.dirty_pages(Iova(base), ByteCount(page), bits), "EINVAL");
    expect_errno(untracked.container.dirty_pages(Iova(base), ByteCount(200 * page), bits),
                 "EINVAL");
    ASSERT_TRUE(untracked.container.dirty_pages(Iova(base), ByteCount(82 * page), bits));
    EXPECT_EQ(bits, (std::array{~std::uint64_t{0}, std::uint64_t{0x3f}}));
    untracked.container.stop_dirty_tracking();
    expect_errno(untracked.container.dirty_pages(Iova(base), ByteCount(82 * page), bits), "EINVAL");
}

TEST_F(ContainerTest, hardware_says_what_was_written) {
    ASSERT_TRUE(machine.map_ram(base, 8 * page));
    ASSERT_TRUE(machine.container.start_dirty_tracking());
    std::array<std::uint64_t, 1> bits{};
    const auto ask = [&] {
        bits = {};
        EXPECT_TRUE(machine.container.dirty_pages(Iova(base), ByteCount(8 * page), bits));
        return bits[0];
    };
    EXPECT_EQ(ask(), 0U);
    // As the unit does: D is bit 9 of a leaf.
    const auto write = [&](std::uint64_t iova) {
        Word* table = machine.tables->pool().words(machine.domain.table().root().table);
        for (unsigned level = 3; level != 0; --level)
            table = machine.tables->pool().words(
                PhysicalAddress(table[iova >> (12 + 9 * level) & 511] & 0x000f'ffff'ffff'f000));
        table[iova >> 12 & 511] |= Word{1} << 9;
    };
    write(base + 2 * page);
    write(base + 7 * page);
    EXPECT_EQ(ask(), 0x84U);
    EXPECT_EQ(ask(), 0U) << "asking makes clean";
}

TEST_F(ContainerTest, random_calls_keep_to_a_model) {
    constexpr std::uint64_t pages = 256;
    ASSERT_TRUE(machine.world.space.map(at(base, pages * page), {}));
    std::map<std::uint64_t, std::uint64_t> model; // start -> size, in pages
    std::mt19937_64 random(7);
    for (unsigned step = 0; step != 4000; ++step) {
        const std::uint64_t start = random() % pages;
        const std::uint64_t size = 1 + random() % 24;
        SCOPED_TRACE("step " + std::to_string(step));
        bool overlaps = false;
        bool cuts = false;
        for (const auto& [first, count] : model)
            if (first < start + size && start < first + count) {
                overlaps = true;
                cuts |= first < start || first + count > start + size;
            }
        if (random() % 2 == 0) {
            const std::uint64_t address = base + random() % (pages - size) * page;
            const auto mapped = map(start * page, address, size * page);
            ASSERT_EQ(mapped.has_value(), !overlaps);
            if (mapped)
                model[start] = size;
        } else {
            const auto unmapped = unmap(start * page, size * page);
            ASSERT_EQ(unmapped.has_value(), !cuts);
            if (unmapped)
                std::erase_if(model, [&](const auto& each) {
                    return each.first >= start && each.first < start + size;
                });
        }
    }
    std::uint64_t mapped = 0;
    for (const auto& [first, count] : model) {
        mapped += count;
        for (std::uint64_t i = first; i != first + count; ++i)
            EXPECT_TRUE(machine.reach(i * page)) << i;
    }
    EXPECT_EQ(machine.container.mappings(), model.size());
    EXPECT_EQ(machine.container.pinned().value(), mapped * page);
}

TEST(ContainerMemoryTest, every_note_that_fails_changes_nothing) {
    Machine<> machine;
    ASSERT_TRUE(machine.world.space.map(at(base, 4 * page), {}));
    // Frames ascend, so that no run continues the one before: five records.
    for (std::uint64_t i = 4; i-- != 0;)
        ASSERT_TRUE(machine.world.space.fault(VirtualAddress(base + i * page), Access::write));
    const std::uint64_t frames = machine.world.memory.frames_in_use();
    int failures = 0;
    for (;; ++failures) {
        until_failure = failures;
        const auto mapped = machine.container.map_dma(Iova(0), VirtualAddress(base),
                                                      ByteCount(4 * page), read_write);
        until_failure = -1;
        if (mapped)
            break;
        EXPECT_EQ(errno_name(mapped.error().code()), "ENOMEM");
        EXPECT_EQ(machine.container.mappings(), 0U);
        EXPECT_EQ(machine.container.pinned().value(), 0U);
        EXPECT_EQ(machine.world.memory.frames_in_use(), frames);
        for (std::uint64_t i = 0; i != 4; ++i)
            EXPECT_FALSE(machine.reach(i * page));
    }
    EXPECT_EQ(failures, 5) << "a mapping and four runs";
}

TEST(ContainerMemoryTest, every_table_that_fails_changes_nothing) {
    constexpr std::uint64_t iova = gib - page; // its second page has tables of its own
    unsigned failures = 0;
    for (std::size_t most_tables = 1;; ++most_tables) {
        Machine<> machine({}, {}, most_tables);
        ASSERT_TRUE(machine.world.space.map(at(base, 2 * page), {}));
        const auto mapped = machine.container.map_dma(Iova(iova), VirtualAddress(base),
                                                      ByteCount(2 * page), read_write);
        if (mapped)
            break;
        ++failures;
        EXPECT_EQ(errno_name(mapped.error().code()), "ENOMEM") << to_string(mapped.error());
        EXPECT_EQ(machine.container.mappings(), 0U);
        EXPECT_EQ(machine.container.pinned().value(), 0U);
        EXPECT_FALSE(machine.reach(iova));
        ASSERT_TRUE(machine.world.space.unmap(at(base, 2 * page)));
        EXPECT_EQ(machine.world.memory.frames_in_use(), 0U) << most_tables << " tables";
    }
    EXPECT_EQ(failures, 5U) << "the root is there before; then three tables, and two";
}

TEST(ContainerMemoryTest, ram_that_runs_out_is_given_back) {
    constexpr std::uint64_t ram = 4 * mib;
    Machine<> machine({.nodes = {ByteCount(ram / 2), ByteCount(ram / 2)}});
    ASSERT_TRUE(machine.world.space.map(at(base, 2 * ram), {.largest_leaf_lg2 = 12}));
    const auto refused =
        machine.container.map_dma(Iova(base), VirtualAddress(base), ByteCount(2 * ram), read_write);
    ASSERT_FALSE(refused);
    EXPECT_EQ(errno_name(refused.error().code()), "ENOMEM") << to_string(refused.error());
    EXPECT_EQ(machine.container.pinned().value(), 0U);
    EXPECT_FALSE(machine.reach(base));
    ASSERT_TRUE(machine.world.space.zap(at(base, 2 * ram)));
    EXPECT_EQ(machine.world.memory.frames_in_use(), 0U) << "no pin was left behind";
    EXPECT_TRUE(machine.container.map_dma(Iova(base), VirtualAddress(base), ByteCount(ram / 2),
                                          read_write));
}

} // namespace
} // namespace moat::mm::tests
