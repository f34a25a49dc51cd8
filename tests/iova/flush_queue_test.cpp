// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The lanes of the flush queue: who takes what, and how much a lane holds.
#include "moat/iova/flush_queue.hpp"
#include "moat/sync/serial.hpp"

#include <algorithm>
#include <cstdint>
#include <gtest/gtest.h>
#include <vector>

namespace moat::iova {

namespace {

using Lane = FlushLane<SerialSync>;

class IovaFlushLanes : public ::testing::Test {
  protected:
    Lane& adopt(unsigned shelf) { return *lanes.adopt(shelf); }

    /// Queues ranges until the lane is full. Return: how many.
    std::uint32_t fill(Lane& lane) {
        std::uint32_t count = 0;
        while (lane.push({.start = Iova(next_page << 12)}, 1)) {
            ++count;
            ++next_page;
        }
        return count;
    }

    void flush(Lane* full = nullptr) {
        const auto release = [this](unsigned, auto ranges) {
            for (const auto& each : ranges)
                released.push_back(each.start.value() >> 12);
        };
        const auto hold = [](auto) { FAIL() << "no invalidation fails"; };
        ASSERT_TRUE(full != nullptr ? queue.flush(*full, release, hold)
                                    : queue.flush(release, hold));
    }

    /// Whether each range that was queued has been released, once.
    [[nodiscard]] bool all_released() {
        std::ranges::sort(released);
        bool all = released.size() == next_page;
        for (std::uint64_t page = 0; all && page != next_page; ++page)
            all = released[page] == page;
        return all;
    }

    FlushLanes<SerialSync> lanes;
    FlushQueue<SerialSync> queue{lanes, {[](void*) { return Result<void>(); }, nullptr}};
    std::uint64_t next_page = 0;
    std::vector<std::uint64_t> released;
};

TEST_F(IovaFlushLanes, hold_their_capacity_again_and_again) {
    Lane& lane = adopt(0);
    for (int i = 0; i != 5; ++i) {
        EXPECT_EQ(fill(lane), Lane::capacity);
        flush(&lane);
    }
    EXPECT_TRUE(all_released());
}

TEST_F(IovaFlushLanes, of_one_shelf_share_a_bin_while_they_are_in_use) {
    std::vector<Lane*> of_a_shelf;
    for (int i = 0; i != 4; ++i)
        of_a_shelf.push_back(&adopt(0));
    Lane& of_another = adopt(1);
    for (Lane* each : of_a_shelf)
        fill(*each);
    fill(of_another);
    flush();
    EXPECT_EQ(fill(*of_a_shelf[0]), Lane::capacity / 4);
    EXPECT_EQ(fill(of_another), Lane::capacity);
    flush(of_a_shelf[0]);
    EXPECT_EQ(fill(*of_a_shelf[0]), Lane::capacity) << "the other three are idle";
    flush();
    EXPECT_TRUE(all_released());
}

TEST_F(IovaFlushLanes, always_hold_a_range_that_no_magazine_takes) {
    std::vector<Lane*> many;
    for (std::uint32_t i = 0; i != 2 * Lane::capacity; ++i)
        many.push_back(&adopt(0));
    for (Lane* each : many)
        fill(*each);
    flush();
    EXPECT_TRUE(many[0]->push({.start = Iova(next_page++ << 12)}, Lane::special_weight));
    flush();
    EXPECT_TRUE(all_released());
}

TEST_F(IovaFlushLanes, share_the_invalidation_of_a_full_one_if_they_were_in_use) {
    Lane& full = adopt(0);
    Lane& other = adopt(1);
    fill(other);
    fill(full);
    flush(&full);
    EXPECT_EQ(released.size(), Lane::capacity) << "the other lane was never flushed";
    flush();
    fill(other);
    fill(full);
    released.clear();
    flush(&full);
    EXPECT_EQ(released.size(), 2 * Lane::capacity);
}

TEST_F(IovaFlushLanes, pass_to_another_thread_with_what_is_queued) {
    Lane& lane = adopt(0);
    fill(lane);
    EXPECT_NE(&adopt(0), &lane);
    lane.abandon();
    EXPECT_EQ(&adopt(2), &lane);
    EXPECT_EQ(lane.shelf(), 2U);
    EXPECT_FALSE(lane.push({}, 1));
    flush(&lane);
    EXPECT_EQ(fill(lane), Lane::capacity);
    flush();
    EXPECT_TRUE(all_released());
}

} // namespace

} // namespace moat::iova
