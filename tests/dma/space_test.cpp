// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The DMA API over a software IOMMU: what devices reach, who gets the reports of other accesses,
// and the driver's misuse of the API itself.
#include "moat/core/text.hpp"

#include "space_system.hpp"

#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace moat::tests {

namespace {

using namespace literals;
using namespace dma;
using fault::Kind;
using Space = SoftSpace;

/// Adjacent buffers, so that an overrun hits a neighbour.
struct Buffers {
    Buffer all{4 * 4096};
    Memory first = Memory::own(all.bytes().subspan(0, 4096));
    Memory second = Memory::own(all.bytes().subspan(4096, 4096));
};

class EveryLevel : public testing::TestWithParam<Level> {};

TEST_P(EveryLevel, a_device_reaches_what_is_mapped_and_never_what_was) {
    System system({.level = GetParam()});
    Buffer buffer(8192);
    const Memory memory = Memory::own(buffer.bytes().subspan(100, 5000));
    const Iova iova = *system.space->map(memory, Direction::bidirectional, "ring");
    ASSERT_TRUE(system.write(iova.value(), 5000, 7).complete());
    ASSERT_TRUE(system.space->sync_for_cpu(iova, 0_B, 5000_B));
    EXPECT_EQ(buffer.data()[100], std::byte{7});
    EXPECT_EQ(buffer.data()[5099], std::byte{7});
    ASSERT_TRUE(system.space->unmap(iova, 5000_B, Direction::bidirectional));
    EXPECT_EQ(system.write(iova.value(), 1).done, 0_B);
    EXPECT_TRUE(system.heard.errors.empty());
}

TEST_P(EveryLevel, neighbours_are_kept_apart) {
    System system({.level = GetParam()});
    const Buffers buffers;
    const Iova first = *system.space->map(buffers.first, Direction::from_device, "first");
    const Iova second = *system.space->map(buffers.second, Direction::from_device, "second");
    const auto over = system.write(first.value() + 4000, 300);
    EXPECT_EQ(over.done, 96_B);
    EXPECT_TRUE(system.space->sync_for_cpu(second, 0_B, 4096_B));
    EXPECT_EQ(buffers.second.bytes[0], std::byte{0});
    ASSERT_EQ(system.heard.faults.size(), 1U);
    EXPECT_TRUE(system.space->unmap(first, 4096_B, Direction::from_device));
    EXPECT_TRUE(system.space->unmap(second, 4096_B, Direction::from_device));
}

TEST_P(EveryLevel, a_listener_may_unmap_and_map_from_inside) {
    System system({.level = GetParam()});
    const Buffers buffers;
    const Iova first = *system.space->map(buffers.first, Direction::from_device, "first");
    const Iova second = *system.space->map(buffers.second, Direction::from_device, "second");
    Iova third(0);
    system.heard.at_fault = [&] {
        if (third != Iova(0))
            return;
        EXPECT_TRUE(system.space->unmap(first, 4096_B, Direction::from_device));
        EXPECT_TRUE(system.space->unmap(second, 4096_B, Direction::from_device));
        third = *system.space->map(buffers.second, Direction::from_device, "third");
    };
    EXPECT_FALSE(system.write(first.value() + 4090, 16).complete());
    EXPECT_EQ(system.heard.faults.size(), 1U);
    EXPECT_FALSE(system.write(first.value(), 1).complete()) << "unmapped by the listener";
    EXPECT_TRUE(system.write(third.value(), 4096).complete());
    EXPECT_TRUE(system.space->unmap(third, 4096_B, Direction::from_device));
    EXPECT_TRUE(system.heard.errors.empty());
}

TEST_P(EveryLevel, small_buffers_carry_their_bytes_both_ways) {
    for (const Placement placement : {Placement::left, Placement::right}) {
        System system({.level = GetParam(), .placement = placement});
        Buffer buffer(4096);
        const Memory memory = Memory::own(buffer.bytes().subspan(128, 100));
        memory.bytes[3] = std::byte{5};
        const Iova iova = *system.space->map(memory, Direction::bidirectional, "command");
        std::vector<std::byte> seen(100);
        ASSERT_TRUE(system.lane.read(iova, seen).complete());
        EXPECT_EQ(seen[3], std::byte{5});
        ASSERT_TRUE(system.space->sync_for_cpu(iova, 0_B, 100_B));
        memory.bytes[4] = std::byte{6};
        ASSERT_TRUE(system.space->sync_for_device(iova, 0_B, 100_B));
        ASSERT_TRUE(system.lane.read(iova, seen).complete());
        EXPECT_EQ(seen[4], std::byte{6});
        ASSERT_TRUE(system.write(iova.value() + 99, 1, 9).complete());
        ASSERT_TRUE(system.space->sync_for_cpu(iova, 0_B, 100_B));
        EXPECT_EQ(memory.bytes[99], std::byte{9});
        ASSERT_TRUE(system.write(iova.value() + 98, 1, 8).complete());
        ASSERT_TRUE(system.space->unmap(iova, 100_B, Direction::bidirectional));
        EXPECT_EQ(memory.bytes[98], std::byte{8});
        EXPECT_TRUE(system.heard.errors.empty());
    }
}

TEST_P(EveryLevel, a_region_of_another_device_is_reached_as_it_is) {
    System system({.level = GetParam()});
    const Buffer bar(4 << 20, 2 << 20);
    const PhysicalAddress part(bar.physical().value() + (2 << 20) - 4096);
    for (const Direction direction : {Direction::bidirectional, Direction::to_device}) {
        const Iova iova =
            *system.space->map_region(part, ByteCount((2 << 20) + 4096), direction, "BAR 2");
        EXPECT_EQ(system.domain.reader().translate(Iova(iova.value() + 4096))->leaf_lg2(), 21U)
            << "large leaves where it allows them";
        bar.data()[(2 << 20) + 7] = std::byte{1}; // the device itself, meanwhile
        std::vector<std::byte> seen(16);
        EXPECT_TRUE(system.lane.read(Iova(iova.value() + 4096), seen).complete());
        EXPECT_EQ(seen[7], std::byte{1});
        EXPECT_EQ(system.write(iova.value() + 4090, 20, 9).complete(),
                  direction == Direction::bidirectional);
        const std::size_t faults = system.heard.faults.size();
        EXPECT_EQ(system.write(iova.value() + (2 << 20) + 4096, 8).done, 0_B);
        EXPECT_EQ(system.heard.faults.size(), faults + 1);
        EXPECT_TRUE(system.space->unmap(iova, ByteCount((2 << 20) + 4096), direction));
        EXPECT_FALSE(system.lane.read(iova, seen).complete());
    }
    EXPECT_EQ(bar.data()[(2 << 20) + 13], std::byte{9});
    EXPECT_EQ(system.space->map_region(part, 100_B, Direction::to_device).error().code(),
              ErrorCode::unaligned);
    EXPECT_EQ(system.space->map_region(part, 0_B, Direction::to_device).error().code(),
              ErrorCode::empty);
    EXPECT_TRUE(system.heard.errors.empty());
    EXPECT_EQ(system.space->stats().live_ranges, 0U);
}

std::string level_name(const testing::TestParamInfo<Level>& each) {
    return each.param == Level::guard ? "guard" : each.param == Level::track ? "track" : "exact";
}

INSTANTIATE_TEST_SUITE_P(Levels, EveryLevel,
                         testing::Values(Level::guard, Level::track, Level::exact), level_name);

TEST(Attribution, an_overrun_names_its_buffer_and_its_neighbour) {
    System system({.level = Level::track});
    const Buffers buffers;
    const Iova first = *system.space->map(buffers.first, Direction::from_device, "first");
    const Iova second = *system.space->map(buffers.second, Direction::from_device, "second");
    const Iova low = std::min(first, second);
    system.write(low.value() + 4090, 16);
    const fault::Diagnosis& said = system.heard.faults.at(0);
    EXPECT_EQ(said.kind, Kind::out_of_bounds_right);
    EXPECT_EQ(said.bytes_outside, 10U);
    EXPECT_EQ(said.mapping->label, low == first ? "first" : "second");
    EXPECT_EQ(said.right->label, low == first ? "second" : "first");
    EXPECT_TRUE(system.space->unmap(first, 4096_B, Direction::from_device));
    EXPECT_TRUE(system.space->unmap(second, 4096_B, Direction::from_device));
}

TEST(Attribution, a_late_access_names_the_mapping_that_was) {
    System system({.level = Level::track, .quarantine = 1_MiB});
    const Buffers buffers;
    const Iova iova = *system.space->map(buffers.first, Direction::from_device, "read buffer");
    ASSERT_TRUE(system.space->unmap(iova, 4096_B, Direction::from_device));
    const Iova next = *system.space->map(buffers.second, Direction::from_device, "next");
    EXPECT_NE(iova, next) << "quarantined";
    system.write(iova.value() + 8, 8);
    const fault::Diagnosis& said = system.heard.faults.at(0);
    EXPECT_EQ(said.kind, Kind::use_after_unmap);
    EXPECT_EQ(said.past->mapping.label, "read buffer");
    EXPECT_EQ(said.past->unmaps_since, 0U);
    EXPECT_TRUE(system.space->unmap(next, 4096_B, Direction::from_device));
}

TEST(Attribution, a_write_to_what_is_only_to_be_read_is_a_permission) {
    System system({.level = Level::track});
    const Buffers buffers;
    const Iova iova = *system.space->map(buffers.first, Direction::to_device, "commands");
    system.write(iova.value(), 4);
    EXPECT_EQ(system.heard.faults.at(0).kind, Kind::permission);
    EXPECT_EQ(system.heard.faults.at(0).mapping->label, "commands");
    EXPECT_TRUE(system.space->unmap(iova, 4096_B, Direction::to_device));
}

TEST(Exact, an_overrun_by_one_byte_inside_the_page_is_caught_and_counted) {
    for (const Placement placement : {Placement::left, Placement::right}) {
        System system({.level = Level::exact, .placement = placement});
        Buffer buffer(4096);
        const Memory memory = Memory::own(buffer.bytes().subspan(64, 100));
        const Iova iova = *system.space->map(memory, Direction::from_device, "small");
        EXPECT_EQ(system.write(iova.value(), 101).done, 100_B);
        EXPECT_EQ(system.heard.faults.at(0).kind, Kind::out_of_bounds_right);
        EXPECT_EQ(system.heard.faults.at(0).bytes_outside, 1U);
        EXPECT_EQ(system.write(iova.value() - 2, 4).done, 0_B);
        EXPECT_EQ(system.heard.faults.at(1).kind, Kind::out_of_bounds_left);
        EXPECT_TRUE(system.space->unmap(iova, 100_B, Direction::from_device));
        EXPECT_EQ(buffer.data()[164], std::byte{0});
        EXPECT_EQ(buffer.data()[99], std::byte{1});
    }
}

TEST(Exact, without_byte_bounds_the_red_zone_tells) {
    System system({.level = Level::exact, .placement = Placement::left}, Finest::pages);
    Buffer buffer(4096);
    const Memory memory = Memory::own(buffer.bytes().subspan(64, 100));
    const Iova iova = *system.space->map(memory, Direction::from_device, "small");
    ASSERT_TRUE(system.write(iova.value() + 98, 5).complete());
    ASSERT_TRUE(system.space->sync_for_cpu(iova, 0_B, 100_B));
    ASSERT_EQ(system.heard.errors.size(), 1U);
    EXPECT_EQ(system.heard.errors[0].kind, DriverErrorKind::red_zone);
    EXPECT_EQ(system.heard.errors[0].range, IovaRange(Iova(iova.value() + 100), 3_B));
    EXPECT_EQ(system.heard.errors[0].mapping.label, "small");
    EXPECT_TRUE(system.space->unmap(iova, 100_B, Direction::from_device));
}

TEST(Exact, bytes_that_the_device_leaves_alone_come_back_as_they_were) {
    System system({.level = Level::exact});
    Buffer buffer(4096);
    const Memory memory = Memory::own(buffer.bytes().subspan(64, 100));
    memory.bytes[50] = std::byte{5};
    const Iova iova = *system.space->map(memory, Direction::from_device, "partly written");
    ASSERT_TRUE(system.write(iova.value(), 50).complete());
    EXPECT_TRUE(system.space->unmap(iova, 100_B, Direction::from_device));
    EXPECT_EQ(memory.bytes[49], std::byte{1});
    EXPECT_EQ(memory.bytes[50], std::byte{5});
    EXPECT_EQ(memory.bytes[51], std::byte{0});
}

TEST(Exact, what_the_cpu_writes_meanwhile_is_seen) {
    System system({.level = Level::exact});
    Buffer buffer(8192);
    for (const std::size_t size : {100U, 6000U}) {
        const Memory memory = Memory::own(buffer.bytes().subspan(0, size));
        const Iova iova = *system.space->map(memory, Direction::to_device, "command");
        memory.bytes[50] ^= std::byte{1};
        EXPECT_TRUE(system.space->unmap(iova, memory.size(), Direction::to_device));
        EXPECT_EQ(system.heard.errors.back().kind, DriverErrorKind::cpu_wrote) << size;
    }
    EXPECT_EQ(system.heard.errors.size(), 2U);
}

TEST(Poison, holds_until_it_is_taken_back_or_the_mapping_ends) {
    System system({.level = Level::exact});
    Buffer buffer(4 << 12);
    const Memory memory = Memory::own(buffer.bytes().first(10'000));
    const Iova iova = *system.space->map(memory, Direction::bidirectional, "pool");
    const auto reached = [&](std::uint64_t at, std::size_t size) {
        return system.write(iova.value() + at, size).done.value();
    };
    ASSERT_TRUE(system.space->poison(Iova(iova.value() + 4000), 200_B));
    EXPECT_EQ(reached(3990, 20), 10U);
    EXPECT_EQ(reached(4199, 1), 0U);
    EXPECT_EQ(reached(4200, 100), 100U);
    EXPECT_EQ(system.heard.faults.at(0).kind, Kind::poisoned);
    EXPECT_EQ(system.heard.faults.at(0).record.where, IovaRange(Iova(iova.value() + 4000), 10_B));
    EXPECT_EQ(system.heard.faults.at(0).mapping->label, "pool");
    ASSERT_TRUE(system.space->unpoison(Iova(iova.value() + 4050), 50_B)); // in the middle
    EXPECT_EQ(reached(4049, 1), 0U);
    EXPECT_EQ(reached(4050, 100), 50U);
    ASSERT_TRUE(system.space->poison(Iova(iova.value() + 3000), 2000_B)); // over all of it
    ASSERT_TRUE(system.space->unpoison(Iova(iova.value() + 3500), 1000_B));
    EXPECT_EQ(reached(3500, 1100), 1000U);
    EXPECT_EQ(reached(3499, 1), 0U);
    ASSERT_TRUE(system.space->unmap(iova, 10'000_B, Direction::bidirectional));
    const Iova again = *system.space->map(memory, Direction::bidirectional, "pool");
    EXPECT_EQ(again, iova);
    EXPECT_EQ(reached(0, 10'000), 10'000U) << "of the mapping that was";
    ASSERT_TRUE(system.space->unmap(again, 10'000_B, Direction::bidirectional));
    EXPECT_TRUE(system.heard.errors.empty());
}

TEST(Poison, is_refused_where_it_cannot_hold) {
    const auto refused = [](System& system, std::uint64_t at, ByteCount size) {
        const auto done = system.space->poison(Iova(at), size);
        return done ? "poisoned" : std::string(name(done.error().code()));
    };
    Buffer buffer(4096);
    const Memory memory = Memory::own(buffer.bytes().first(100));
    for (const Level level : {Level::guard, Level::track, Level::exact}) {
        System system({.level = level});
        const std::uint64_t at =
            system.space->map(memory, Direction::bidirectional, "small")->value();
        if (level == Level::exact) {
            EXPECT_EQ(refused(system, at, 0_B), "empty");
            EXPECT_EQ(refused(system, at + 1, 100_B), "not found");
            EXPECT_EQ(refused(system, at - 1, 10_B), "not found");
            EXPECT_EQ(refused(system, ~std::uint64_t{0}, 10_B), "not found");
            EXPECT_EQ(refused(system, at, 100_B), "poisoned");
        } else {
            EXPECT_EQ(refused(system, at, 100_B), "unsupported");
            EXPECT_EQ(system.space->unpoison(Iova(at), 1_B).error().code(), ErrorCode::unsupported);
        }
        EXPECT_TRUE(system.space->unmap(Iova(at), 100_B, Direction::bidirectional));
    }
    System pages({.level = Level::exact}, Finest::pages);
    const std::uint64_t at = pages.space->map(memory, Direction::bidirectional, "small")->value();
    EXPECT_EQ(refused(pages, at, 100_B), "unsupported");
    EXPECT_TRUE(pages.space->unmap(Iova(at), 100_B, Direction::bidirectional));
}

TEST(Stacks, of_every_third_event_are_taken_and_every_leak_is_told) {
    OwnTables tables;
    SoftDomain domain(empty_table(tables));
    Heard heard;
    const Buffer buffer(12 << 12);
    const CaptureStack one_frame = [](std::span<std::uintptr_t> frames) {
        frames[0] = 0x1234;
        return std::size_t{1};
    };
    auto space = *Space::create(domain, {.options = {.stacks = 3, .cpu = CpuWatch::off},
                                         .listener = heard.listener(),
                                         .capture = one_frame,
                                         .pages = {}});
    for (std::size_t i = 0; i != 12; ++i)
        ASSERT_TRUE(space->map(Memory::own(buffer.bytes().subspan(i * 4096, 4096)),
                               Direction::to_device, "leaks"));
    std::size_t with_stack = 0;
    heard.errors.clear();
    space.reset();
    EXPECT_EQ(heard.errors.size(), 12U);
    for (const DriverError& each : heard.errors)
        with_stack += each.mapping.mapped.time_ns != 0 ? 1 : 0;
    EXPECT_EQ(with_stack, 4U);
}

class DriverErrors : public testing::Test {
  protected:
    DriverErrorKind last() { return system.heard.errors.back().kind; }

    System system{{.level = Level::track}};
    Buffers buffers;
    Iova iova = *system.space->map(buffers.first, Direction::from_device, "ring");
};

TEST_F(DriverErrors, change_nothing_and_are_told) {
    Space& space = *system.space;
    EXPECT_EQ(space.unmap(iova, 100_B, Direction::from_device).error().code(), ErrorCode::mismatch);
    EXPECT_EQ(last(), DriverErrorKind::wrong_size);
    EXPECT_EQ(system.heard.errors.back().mapping.label, "ring");
    EXPECT_FALSE(space.unmap(iova, 4096_B, Direction::to_device));
    EXPECT_EQ(last(), DriverErrorKind::wrong_direction);
    EXPECT_EQ(space.sync_for_cpu(iova, 4000_B, 97_B).error().code(), ErrorCode::out_of_range);
    EXPECT_EQ(last(), DriverErrorKind::outside);
    EXPECT_TRUE(system.write(iova.value(), 8).complete()) << "still mapped";
    EXPECT_TRUE(space.unmap(iova, 4096_B, Direction::from_device));
    EXPECT_EQ(space.unmap(iova, 4096_B, Direction::from_device).error().code(),
              ErrorCode::not_found);
    EXPECT_EQ(last(), DriverErrorKind::not_mapped);
    EXPECT_EQ(system.heard.errors.back().past->mapping.label, "ring");
    EXPECT_EQ(system.heard.errors.size(), 4U);
    EXPECT_EQ(summary(system.heard.errors[0]), "wrong-size: [" + hexadecimal(iova.value()) +
                                                   ", +100B) of \"ring\" [" +
                                                   hexadecimal(iova.value()) + ", +4K)");
}

TEST_F(DriverErrors, a_sync_of_what_is_not_mapped_is_reported) {
    Space& space = *system.space;
    EXPECT_EQ(space.sync_for_cpu(Iova(iova.value() + 4096), 0_B, 8_B).error().code(),
              ErrorCode::not_found);
    EXPECT_EQ(last(), DriverErrorKind::not_mapped);
    EXPECT_TRUE(space.unmap(iova, 4096_B, Direction::from_device));
    EXPECT_EQ(space.sync_for_device(iova, 0_B, 8_B).error().code(), ErrorCode::not_found);
    EXPECT_EQ(last(), DriverErrorKind::not_mapped);
    EXPECT_EQ(system.heard.errors.back().past->mapping.label, "ring");
}

TEST_F(DriverErrors, living_mappings_are_reported_and_stay) {
    system.space->report_living();
    ASSERT_EQ(system.heard.errors.size(), 1U);
    EXPECT_EQ(last(), DriverErrorKind::leak);
    EXPECT_EQ(system.heard.errors[0].mapping.label, "ring");
    EXPECT_TRUE(system.write(iova.value(), 8).complete());
    EXPECT_TRUE(system.space->unmap(iova, 4096_B, Direction::from_device));
    system.space->report_living();
    EXPECT_EQ(system.heard.errors.size(), 1U);
}

TEST_F(DriverErrors, a_leak_is_told_and_unmapped) {
    system.space.reset();
    EXPECT_EQ(last(), DriverErrorKind::leak);
    EXPECT_EQ(system.heard.errors.size(), 1U);
    EXPECT_FALSE(system.domain.reader().translate(iova));
}

TEST(Leaks, at_iova_0_are_reported_and_unmapped) {
    OwnTables tables;
    SoftDomain domain(empty_table(tables));
    Heard heard;
    Buffer buffer(4096);
    for (const Level level : {Level::track, Level::exact}) {
        auto space = *Space::create(domain, {.options = {.level = level, .guard = {}},
                                             .dma_mask = Iova(4095),
                                             .listener = heard.listener(),
                                             .pages = own_pages()});
        const auto iova = space->map(Memory::own(buffer.bytes()), Direction::to_device, "first");
        ASSERT_TRUE(iova) << to_string(iova.error());
        ASSERT_EQ(*iova, Iova(0));
        space.reset();
        ASSERT_EQ(heard.errors.size(), 1U);
        EXPECT_EQ(heard.errors[0].mapping.label, "first");
        EXPECT_FALSE(domain.reader().translate(Iova(0)));
        heard.errors.clear();
    }
}

TEST(EmptyBuffer, is_not_mapped) {
    const System system({.level = Level::track});
    EXPECT_EQ(system.space->map({}, Direction::to_device).error().code(), ErrorCode::empty);
}

TEST(Deferred, nothing_is_reached_after_a_flush) {
    System system({.level = Level::track, .unmapping = Unmapping::deferred});
    const Buffers buffers;
    std::vector<Iova> were;
    for (int turn = 0; turn != 1000; ++turn) {
        const Iova iova = *system.space->map(buffers.first, Direction::from_device, "x");
        ASSERT_TRUE(system.write(iova.value(), 1).complete());
        ASSERT_TRUE(system.space->unmap(iova, 4096_B, Direction::from_device));
        were.push_back(iova);
    }
    EXPECT_TRUE(system.space->flush());
    for (const Iova iova : were)
        ASSERT_FALSE(system.write(iova.value(), 1).complete());
}

TEST(Creation, what_cannot_be_is_refused) {
    OwnTables tables;
    SoftDomain domain(empty_table(tables));
    const auto refused = [&](const SpaceConfig& config) {
        const auto made = Space::create(domain, config);
        return made ? "made" : std::string(name(made.error().code()));
    };
    EXPECT_EQ(refused({.options = {.level = Level::exact}}), "unsupported");
    EXPECT_EQ(refused({.options = {.stacks = 1}}), "unsupported");
    EXPECT_EQ(refused({}), "made");
}

TEST(ByteBounds, end_with_their_space_and_belong_to_one_at_a_time) {
    OwnTables tables;
    SoftDomain domain(empty_table(tables));
    SoftIommu iommu;
    Lane lane(**iommu.add_device(nic));
    ASSERT_TRUE(iommu.attach(nic, domain));
    const SpaceConfig exact = {.options = {.level = Level::exact}, .pages = own_pages()};
    Buffer buffer(4096);
    const std::vector<std::byte> bytes(101);
    for (int turn = 0; turn != 3; ++turn) {
        const auto space = *Space::create(domain, exact);
        const auto second = Space::create(domain, exact);
        ASSERT_FALSE(second);
        EXPECT_EQ(second.error().code(), ErrorCode::busy);
        const Memory memory = Memory::own(buffer.bytes().subspan(64, 100));
        const Iova iova = *space->map(memory, Direction::from_device, "small");
        EXPECT_EQ(lane.write(iova, bytes).done, 100_B) << "of the space that lives";
        EXPECT_TRUE(space->unmap(iova, 100_B, Direction::from_device));
    }
    // The registration is gone: the page bounds the device, and translations are cached again.
    ASSERT_TRUE(domain.map(Iova(0x1000), 4096_B, buffer.physical(), read_write));
    EXPECT_EQ(lane.write(Iova(0x1000 + 4000), bytes).done, 96_B);
    const auto next = Space::create(domain, {.options = {.level = Level::guard}});
    EXPECT_TRUE(next);
}

TEST(Creation, addresses_stay_within_the_mask_and_out_of_what_is_reserved) {
    OwnTables tables;
    const IovaRange reserved[] = {{Iova(0x100000), 0x100000_B}};
    SoftDomain domain(empty_table(tables), {.reserved = reserved});
    const auto space = *Space::create(domain, {.dma_mask = Iova(0x3fffff)});
    const Buffer buffer(4096);
    std::vector<Iova> all;
    for (;;) {
        const auto iova = space->map(Memory::own(buffer.bytes()), Direction::to_device);
        if (!iova) {
            EXPECT_EQ(iova.error().code(), ErrorCode::no_space);
            break;
        }
        EXPECT_LE(iova->value() + 4096, 0x400000U);
        EXPECT_FALSE(reserved[0].contains(*iova));
        all.push_back(*iova);
    }
    EXPECT_GT(all.size(), 300U);
    for (const Iova each : all)
        EXPECT_TRUE(space->unmap(each, 4096_B, Direction::to_device));
}

} // namespace

} // namespace moat::tests
