// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Scatter lists: one range, limits kept, neighbours merged; and coherent memory.
#include "moat/core/text.hpp"

#include "api/engines.hpp"
#include "iommu/soft_system.hpp"

#include <cstdlib>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <vector>

namespace moat::tests {

namespace {

using namespace literals;
using namespace dma;
using Space = api::SoftSpace;

constexpr fault::Source disk = fault::Source::pci(0, 4, 0, 0);

class Lists : public testing::Test {
  protected:
    Lists() { EXPECT_TRUE(iommu.attach(disk, domain)); }

    Memory piece(std::size_t at, std::size_t size) {
        return Memory::own(buffer.bytes().subspan(at, size));
    }

    OwnTables tables;
    SoftDomain domain{empty_table(tables)};
    SoftIommu iommu;
    std::unique_ptr<Space> space = *Space::create(domain, {.options = {.level = Level::track}});
    SoftIommu::Device& device = **iommu.add_device(disk);
    Lane lane{device};
    Buffer buffer{256 << 12};
    std::vector<Segment> room = std::vector<Segment>(256);
};

TEST_F(Lists, whole_pages_are_one_segment_however_they_are_scattered) {
    const std::vector<Memory> pieces = {piece(0x5000, 4096), piece(0x3000, 8192), piece(0, 100)};
    const auto list = *space->map_list(pieces, Direction::bidirectional, room, {}, "list");
    ASSERT_EQ(list.segments.size(), 1U);
    EXPECT_EQ(list.segments[0], (Segment{list.start, ByteCount(3 * 4096 + 100)}));
    std::vector<std::byte> data(3 * 4096 + 100);
    for (std::size_t i = 0; i != data.size(); ++i)
        data[i] = static_cast<std::byte>(i / 4096 + 1);
    ASSERT_TRUE(lane.write(list.start, data).complete());
    EXPECT_EQ(buffer.data()[0x5000], std::byte{1});
    EXPECT_EQ(buffer.data()[0x3fff], std::byte{2});
    EXPECT_EQ(buffer.data()[0x4fff], std::byte{3});
    EXPECT_EQ(buffer.data()[99], std::byte{4});
    EXPECT_TRUE(space->unmap(list.start, list.size, Direction::bidirectional));
    EXPECT_FALSE(lane.write(list.start, {data.data(), 1}).complete());
}

TEST_F(Lists, pieces_inside_pages_keep_their_offsets) {
    const std::vector<Memory> pieces = {piece(0x1100, 200), piece(0x2f00, 0x200)};
    const auto list = *space->map_list(pieces, Direction::to_device, room);
    ASSERT_EQ(list.segments.size(), 2U);
    EXPECT_EQ(list.segments[0].iova.value() % 4096, 0x100U);
    EXPECT_EQ(list.segments[1].iova.value() % 4096, 0xf00U);
    EXPECT_EQ(list.size, ByteCount(3 * 4096));
    EXPECT_TRUE(space->unmap(list.start, list.size, Direction::to_device));
}

TEST_F(Lists, what_cannot_be_told_is_refused_and_nothing_is_mapped) {
    const auto refused = [&](std::vector<Memory> pieces, const SegmentLimits& limits,
                             std::span<Segment> segments) {
        const auto list = space->map_list(pieces, Direction::to_device, segments, limits);
        return list ? "mapped" : std::string(name(list.error().code()));
    };
    EXPECT_EQ(refused({}, {}, room), "empty");
    EXPECT_EQ(refused({piece(0, 10), {}}, {}, room), "empty");
    EXPECT_EQ(refused({piece(0, 100)}, {.longest = 99_B}, room), "out of range");
    EXPECT_EQ(refused({piece(0x800, 0x1000)}, {.boundary = 4_KiB}, room), "out of range");
    EXPECT_EQ(refused({piece(0, 100)}, {.boundary = 6_KiB}, room), "unsupported");
    EXPECT_EQ(refused({piece(0, 100), piece(0x1000, 5)}, {}, std::span(room).first(1)),
              "out of range");
    const Memory unaligned = {piece(0, 100).bytes, PhysicalAddress(~0xfffULL)};
    EXPECT_EQ(refused({piece(0, 100), unaligned}, {}, room), "out of range"); // not expressible
    EXPECT_EQ(space->stats().live_ranges, 0U);
}

TEST_F(Lists, random_ones_keep_every_limit) {
    const char* const given = std::getenv("MOAT_SEED");
    const unsigned seed = given != nullptr ? std::stoul(given) : 5;
    SCOPED_TRACE("MOAT_SEED=" + std::to_string(seed));
    std::mt19937 random(seed);
    for (int turn = 0; turn != 3000; ++turn) {
        const SegmentLimits limits = {
            .longest = ByteCount(4096U << random() % 5),
            .boundary = ByteCount(random() % 2 == 0 ? 0 : 8192U << random() % 5),
            .guard = ByteCount(random() % 4 == 0 ? 1 + random() % 9000 : 0)};
        std::vector<Memory> pieces;
        for (std::size_t left = 1 + random() % 20; left != 0; --left) {
            const std::size_t most = std::min<std::size_t>(
                limits.longest.value(), limits.boundary == 0_B ? 65536 : limits.boundary.value());
            const std::size_t offset = random() % 3 == 0 ? random() % 4096 : 0;
            const std::size_t size = 1 + random() % (most - std::min(offset, most - 1));
            pieces.push_back(piece((random() % 200 << 12) + offset, size));
        }
        if (!measure_list(pieces, limits, 4095))
            continue;
        const auto list = *space->map_list(pieces, Direction::to_device, room, limits, "random");
        std::size_t next = 0;
        std::size_t within = 0;
        for (const Segment& segment : list.segments) {
            ASSERT_LE(segment.size, limits.longest);
            const std::uint64_t last = segment.iova.value() + segment.size.value() - 1;
            if (limits.boundary != 0_B) {
                ASSERT_EQ(segment.iova.value() / limits.boundary.value(),
                          last / limits.boundary.value());
            }
            for (std::uint64_t at = segment.iova.value(); at <= last;) {
                const Memory& expected = pieces[next];
                ASSERT_EQ(domain.reader().translate(Iova(at))->physical().value(),
                          expected.physical.value() + within);
                const std::uint64_t step =
                    std::min<std::uint64_t>(last - at + 1, expected.bytes.size() - within);
                at += step;
                within += step;
                if (within == expected.bytes.size()) {
                    ++next;
                    within = 0;
                }
            }
        }
        ASSERT_EQ(next, pieces.size());
        ASSERT_TRUE(space->unmap(list.start, list.size, Direction::to_device));
    }
}

TEST_F(Lists, guards_between_pieces_stop_what_leaves_one) {
    std::vector<fault::Diagnosis> told;
    std::vector<DriverError> errors;
    std::pair heard(&told, &errors);
    const Listener listener = {[](void* context, const fault::Diagnosis& diagnosis) noexcept {
                                   static_cast<decltype(heard)*>(context)->first->push_back(
                                       diagnosis);
                               },
                               [](void* context, const DriverError& error) noexcept {
                                   static_cast<decltype(heard)*>(context)->second->push_back(error);
                               },
                               &heard};
    for (const Level level : {Level::guard, Level::track, Level::exact}) {
        SCOPED_TRACE(static_cast<int>(level));
        SoftDomain own{empty_table(tables)};
        space = *Space::create(
            own, {.options = {.level = level}, .listener = listener, .pages = own_pages()});
        const auto source = fault::Source::pci(0, 5, static_cast<unsigned>(level));
        Lane other{**iommu.add_device(source, space->fault_handler())};
        ASSERT_TRUE(iommu.attach(source, own));
        const std::vector<Memory> pieces = {piece(0, 4096), piece(0x1000, 4096), piece(0x2100, 64)};
        const auto list =
            *space->map_list(pieces, Direction::bidirectional, room, {.guard = 5000_B}, "list");
        ASSERT_EQ(list.segments.size(), 3U) << "each by itself, though two are neighbours";
        EXPECT_EQ(list.segments[1].iova.value(), list.start.value() + 3 * 4096);
        EXPECT_EQ(list.segments[2].iova.value(), list.start.value() + 6 * 4096 + 0x100);
        EXPECT_EQ(list.size, ByteCount(7 * 4096));
        for (const Segment& each : list.segments)
            EXPECT_TRUE(
                other.write(each.iova, std::vector<std::byte>(each.size.value())).complete());
        told.clear();
        const auto second = list.segments[1].iova;
        EXPECT_FALSE(other.write(second, std::vector(4096 + 16, std::byte{7})).complete());
        EXPECT_EQ(buffer.data()[0x2100], std::byte{0}) << "the neighbour's bytes";
        ASSERT_EQ(told.size(), 1U);
        if (level != Level::guard) {
            EXPECT_EQ(told[0].kind, fault::Kind::out_of_bounds_right);
            ASSERT_TRUE(told[0].mapping);
            EXPECT_EQ(told[0].mapping->range, IovaRange(second, 4_KiB));
            EXPECT_FALSE(space->unmap(second, 4_KiB, Direction::bidirectional)) << "a part";
            EXPECT_TRUE(own.reader().translate(second)) << "and nothing was changed";
            EXPECT_EQ(errors.size(), 1U);
        }
        EXPECT_TRUE(space->unmap(list.start, list.size, Direction::bidirectional));
        EXPECT_EQ(space->stats().live_ranges, 0U);
        told.clear();
        EXPECT_FALSE(other.write(second, std::vector<std::byte>(1)).complete());
        ASSERT_EQ(told.size(), 1U);
        EXPECT_TRUE(level == Level::guard || told[0].kind == fault::Kind::use_after_unmap);
        errors.clear();
        ASSERT_TRUE(
            space->map_list(pieces, Direction::bidirectional, room, {.guard = 1_B}, "list"));
        space.reset();
        EXPECT_EQ(errors.size(), level == Level::guard ? 0U : 3U) << "each part is a leak";
        EXPECT_FALSE(own.reader().translate(list.start));
        errors.clear();
        EXPECT_TRUE(iommu.detach(source));
    }
}

TEST_F(Lists, coherent_memory_is_aligned_to_its_size) {
    for (const std::size_t size : {4096U, 12288U, 65536U}) {
        const Iova iova = *space->map_coherent(piece(0, size), "ring");
        EXPECT_EQ(iova.value() % std::bit_ceil(size), 0U);
        EXPECT_TRUE(lane.write(iova, std::vector<std::byte>(size)).complete());
        EXPECT_TRUE(space->unmap(iova, ByteCount(size), Direction::bidirectional));
    }
    EXPECT_EQ(space->map_coherent(piece(8, 100)).error().code(), ErrorCode::unaligned);
}

} // namespace

} // namespace moat::tests
