// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tables and pages run out at each allocation: the call returns no_memory, and nothing stays
// allocated.
#include "space_system.hpp"

#include <gtest/gtest.h>
#include <vector>

namespace moat::tests {

namespace {

using namespace literals;
using namespace dma;

/// Refuses pages from one request on.
struct FewPages {
    std::size_t left = 0;
    std::size_t out = 0;

    [[nodiscard]] PageSource source() {
        return {[](void* context, ByteCount size) -> Memory {
                    auto& self = *static_cast<FewPages*>(context);
                    const std::uint64_t pages = size.value() / 4096;
                    if (pages > self.left)
                        return {};
                    self.left -= pages;
                    self.out += pages;
                    return dma::own_pages().allocate(nullptr, size);
                },
                [](void* context, const Memory& pages) {
                    static_cast<FewPages*>(context)->out -= pages.bytes.size() / 4096;
                    dma::own_pages().release(nullptr, pages);
                },
                this};
    }
};

class NoMemory : public testing::TestWithParam<Level> {};

TEST_P(NoMemory, of_tables_leaves_nothing_mapped) {
    constexpr std::size_t enough = 8;
    Buffer buffer(4 << 20);
    std::size_t refusals = 0;
    for (std::size_t tables_left = 1; tables_left <= enough; ++tables_left) {
        OwnTables tables(tables_left);
        SoftDomain domain(empty_table(tables));
        FewPages pages{.left = 100};
        Heard heard;
        const auto space = *SoftSpace::create(domain, {.options = {.level = GetParam()},
                                                       .listener = heard.listener(),
                                                       .capture = nullptr,
                                                       .pages = pages.source()});
        const Memory small = Memory::own(buffer.bytes().subspan(256, 128));
        const Memory large = Memory::own(buffer.bytes().subspan(4096, 3 << 20));
        const std::vector<Memory> pieces = {Memory::own(buffer.bytes().subspan(8192, 4096)),
                                            Memory::own(buffer.bytes().subspan(0, 4096))};
        std::vector<Segment> room(2);
        const auto settle = [&](const auto& mapped, const auto& unmap) {
            if (mapped) {
                EXPECT_TRUE(unmap());
            } else {
                EXPECT_EQ(mapped.error().code(), ErrorCode::no_memory);
                ++refusals;
            }
            EXPECT_EQ(space->stats().live_ranges, 0U) << tables_left << " tables";
        };
        for (const Memory& each : {small, large}) {
            const auto iova = space->map(each, Direction::bidirectional, "one");
            settle(iova,
                   [&] { return space->unmap(*iova, each.size(), Direction::bidirectional); });
        }
        const auto list = space->map_list(pieces, Direction::bidirectional, room, {}, "list");
        settle(list,
               [&] { return space->unmap(list->start, list->size, Direction::bidirectional); });
        const auto guarded =
            space->map_list(pieces, Direction::bidirectional, room, {.guard = ByteCount(3 << 20)});
        settle(guarded, [&] {
            return space->unmap(guarded->start, guarded->size, Direction::bidirectional);
        });
        EXPECT_TRUE(heard.errors.empty());
        if (tables_left == enough) {
            EXPECT_TRUE(list);
        }
    }
    EXPECT_GE(refusals, 6U);
}

INSTANTIATE_TEST_SUITE_P(Levels, NoMemory,
                         testing::Values(Level::guard, Level::track, Level::exact));

TEST(NoMemoryOfPages, leaves_nothing_mapped) {
    OwnTables tables;
    SoftDomain domain(empty_table(tables));
    FewPages pages;
    auto space =
        *SoftSpace::create(domain, {.options = {.level = Level::exact}, .pages = pages.source()});
    Buffer buffer(4096);
    const Memory small = Memory::own(buffer.bytes().subspan(256, 128));
    EXPECT_EQ(space->map(small, Direction::to_device).error().code(), ErrorCode::no_memory);
    EXPECT_EQ(space->stats().live_ranges, 0U);
    pages.left = 1;
    const auto iova = space->map(small, Direction::to_device);
    ASSERT_TRUE(iova);
    EXPECT_FALSE(space->map(small, Direction::to_device));
    EXPECT_EQ(space->stats().live_ranges, 1U);
    EXPECT_TRUE(space->unmap(*iova, small.size(), Direction::to_device));
    const auto again = space->map(small, Direction::to_device); // in the page that is free again
    ASSERT_TRUE(again);
    EXPECT_TRUE(space->unmap(*again, small.size(), Direction::to_device));
    EXPECT_EQ(pages.out, 1U);
    space.reset();
    EXPECT_EQ(pages.out, 0U);
}

} // namespace

} // namespace moat::tests
