// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Where an audit places buffers, and which changed bytes around them it detects, and when.
#include "moat/core/text.hpp"

#include "audit/arena.hpp"
#include "machine/soft/soft_machine.hpp"

#include <algorithm>
#include <gtest/gtest.h>
#include <set>

namespace moat::tests {
namespace {

using audit::Arena;
using audit::Inspected;
using audit::Life;
using audit::Placed;
using dma::Direction;
using dma::Placement;

constexpr std::byte other{0x11}; // no canary

class ArenaTest : public testing::Test {
  protected:
    Placed place(std::uint64_t bytes, Placement placement,
                 Direction direction = Direction::from_device, Life life = Life::operation) {
        const auto placed =
            arena.place({.what = "data", .direction = direction, .size = ByteCount(bytes)},
                        placement, life, next_case++);
        EXPECT_TRUE(placed) << placed.error();
        return *placed;
    }

    void end(const Placed& placed) {
        ASSERT_TRUE(arena.unmap(placed));
        arena.retire(placed, Arena::look(placed));
    }

    /// A whole operation with one buffer.
    Placed operation(std::uint64_t bytes) {
        arena.begin_operation();
        const Placed placed = place(bytes, Placement::left);
        end(placed);
        return placed;
    }

    std::vector<Inspected> glance() {
        std::vector<Inspected> found;
        arena.glance_at_last(found);
        return found;
    }

    machine::soft::SoftMachine machine;
    std::unique_ptr<machine::Domain> domain = *machine.create_domain();
    Arena arena = *Arena::create(machine, *domain, {.seed = 3});
    std::uint64_t next_case = 0;
};

TEST_F(ArenaTest, bytes_are_counted_on_their_side) {
    for (const Placement placement : {Placement::left, Placement::right}) {
        const Placed placed = place(1000, placement);
        EXPECT_EQ(Arena::look(placed).around(), 0U);
        std::ranges::fill(placed.bytes(), other);
        EXPECT_EQ(Arena::look(placed).around(), 0U) << "the buffer itself is the device's";
        const std::size_t red = 4096 - 1000;
        std::byte* const zone =
            placement == Placement::left ? placed.bytes().data() + 1000 : placed.memory.data();
        zone[0] = other;
        zone[red / 2] = other;
        zone[red - 1] = other;
        const audit::Changed seen = Arena::look(placed);
        EXPECT_EQ(seen.after, placement == Placement::left ? 3U : 0U);
        EXPECT_EQ(seen.before, placement == Placement::left ? 0U : 3U);
    }
}

TEST_F(ArenaTest, every_single_byte_is_seen_at_whatever_offset) {
    for (const std::uint64_t bytes : {1U, 3U, 63U, 64U, 65U, 4090U}) {
        const Placed placed = place(bytes, Placement::left);
        for (std::size_t at = bytes; at != placed.memory.size(); ++at) {
            const std::byte before = std::exchange(placed.memory[at], other);
            ASSERT_EQ(Arena::look(placed).after, 1U) << bytes << ", " << at;
            placed.memory[at] = before;
        }
        EXPECT_EQ(Arena::look(placed).after, 0U);
    }
}

TEST_F(ArenaTest, glance_sees_what_begins_beside_the_buffer) {
    const Placed queue = place(1024, Placement::left, Direction::bidirectional, Life::driver);
    queue.memory[3000] = other;
    EXPECT_EQ(Arena::glance(queue).after, 0U) << "too far away";
    EXPECT_EQ(Arena::look(queue).after, 1U);
    queue.memory[1024] = other;
    EXPECT_EQ(Arena::glance(queue).after, 2U) << "then all is counted";
    std::ranges::fill(queue.bytes(), other);
    Arena::restore_around(queue);
    EXPECT_EQ(Arena::look(queue).around(), 0U);
    EXPECT_EQ(std::ranges::count(queue.bytes(), other), 1024) << "the queue is as it was";
}

/// So a device that copies what it read here elsewhere is counted exactly.
TEST_F(ArenaTest, canaries_beside_what_is_read_are_others_than_all_others) {
    std::set<std::byte> beside_read;
    std::set<std::byte> beside_written;
    for (int each = 0; each != 200; ++each) {
        arena.begin_operation();
        for (const Direction direction : {Direction::to_device, Direction::from_device}) {
            const Placed placed = place(100, Placement::right, direction);
            const auto zone = placed.memory.first(placed.offset());
            (direction == Direction::to_device ? beside_read : beside_written)
                .insert(zone.begin(), zone.end());
            end(placed);
        }
    }
    EXPECT_EQ(beside_read.size(), 64U) << "all that there are were seen";
    EXPECT_EQ(beside_written.size(), 63U) << "all but what soft devices stray with";
    for (const std::byte each : beside_read)
        EXPECT_FALSE(beside_written.contains(each)) << static_cast<int>(each);
}

TEST_F(ArenaTest, late_write_at_the_start_is_seen_at_once_and_put_right) {
    const Placed placed = operation(5000);
    EXPECT_TRUE(glance().empty());
    placed.bytes()[2] = other;
    placed.bytes()[4999] = other;
    const auto found = glance();
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].changed.inside, 2U);
    EXPECT_EQ(found[0].placed.case_number, placed.case_number);
    EXPECT_TRUE(glance().empty());
}

TEST_F(ArenaTest, late_write_elsewhere_is_seen_before_the_memory_is_used_again) {
    const Placed placed = operation(20000);
    placed.bytes()[12345] = other;
    std::vector<Inspected> found = glance();
    EXPECT_TRUE(found.empty());
    while (found.empty() && next_case != 1000) {
        arena.begin_operation();
        const Placed next = place(20000, Placement::left);
        if (next.memory.data() == placed.memory.data()) {
            EXPECT_EQ(Arena::look(next).around(), 0U);
            found = glance();
            break;
        }
        end(next);
        found = glance();
    }
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].changed.inside, 1U);
    EXPECT_EQ(found[0].placed.range, placed.range);
}

TEST_F(ArenaTest, memory_comes_again_before_addresses_do) {
    std::set<const std::byte*> memory;
    std::set<Iova> addresses;
    for (int each = 0; each != 600; ++each) {
        const Placed placed = operation(8192);
        memory.insert(placed.memory.data());
        EXPECT_TRUE(addresses.insert(placed.range.start()).second) << each;
    }
    EXPECT_LT(memory.size(), 100U);
}

/// Where an IOMMU records nothing, a guard is memory; also of a buffer that may only be read.
TEST_F(ArenaTest, guards_of_canaries_count_writes_past_a_buffer_s_pages) {
    Arena guarded = *Arena::create(
        machine, *domain, {.guard = ByteCount(8192), .seed = 3, .guards = audit::Guards::canaries});
    for (const Direction direction : {Direction::from_device, Direction::to_device}) {
        guarded.begin_operation();
        const auto placed =
            guarded.place({.what = "data", .direction = direction, .size = ByteCount(4096)},
                          Placement::left, Life::operation, 0);
        ASSERT_TRUE(placed) << placed.error();
        EXPECT_EQ(placed->pages.size(), ByteCount(5 * 4096));
        EXPECT_EQ(Arena::look(*placed).around(), 0U);
        machine::Domain& mapped = *domain;
        for (const std::uint64_t page : {0, 1, 3, 4})
            EXPECT_EQ(mapped
                          .map(placed->pages.start() + ByteCount(page * 4096), ByteCount(4096),
                               PhysicalAddress(0), read_write)
                          .error()
                          .code(),
                      ErrorCode::overlap)
                << "the guards are mapped";
        placed->memory[8191] = other;
        placed->memory[3 * 4096] = other;
        placed->memory[5 * 4096 - 1] = other;
        EXPECT_EQ(Arena::look(*placed).before, 1U);
        EXPECT_EQ(Arena::look(*placed).after, 2U);
        ASSERT_TRUE(guarded.unmap(*placed));
        guarded.retire(*placed, {});
        EXPECT_TRUE(
            mapped.map(placed->pages.start(), ByteCount(4096), PhysicalAddress(0), read_write))
            << "and unmapped with the buffer";
        ASSERT_TRUE(mapped.unmap(placed->pages.start(), ByteCount(4096)));
        std::vector<Inspected> found;
        guarded.look_at_all(found);
        EXPECT_TRUE(found.empty());
    }
}

TEST_F(ArenaTest, decoy_is_seen_by_its_first_bytes_or_when_its_buffer_leaves) {
    Arena decoyed = *Arena::create(machine, *domain,
                                   {.seed = 3, .decoys = audit::Decoys::at_physical_addresses});
    decoyed.begin_operation();
    const auto placed = decoyed.place({.what = "data", .size = ByteCount(8192)}, Placement::left,
                                      Life::operation, 0);
    ASSERT_TRUE(placed) << placed.error();
    placed->decoy[5000] = other;
    EXPECT_EQ(Arena::look_at_ended(*placed).decoy, 0U);
    ASSERT_TRUE(decoyed.unmap(*placed));
    decoyed.retire(*placed, {});
    std::vector<Inspected> found;
    decoyed.look_at_all(found);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].changed.decoy, 1U);
    placed->decoy[63] = other;
    placed->decoy[5000] = other;
    EXPECT_EQ(Arena::look_at_ended(*placed).decoy, 2U);
}

TEST_F(ArenaTest, refuses_what_does_not_fit_and_goes_on) {
    const auto refused = arena.place({.what = "data", .size = ByteCount(std::uint64_t{1} << 30)},
                                     Placement::left, Life::operation, 0);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::no_space);
    EXPECT_EQ(Arena::look(place(1, Placement::left)).around(), 0U);
}

} // namespace
} // namespace moat::tests
