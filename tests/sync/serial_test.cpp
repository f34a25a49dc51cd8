// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Properties of SerialSync alone: locks that check for their one thread, and a clock that tests
// advance.
#include "moat/sync/lock.hpp"
#include "moat/sync/serial.hpp"

#include <cstdint>
#include <gtest/gtest.h>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace {

using namespace moat;

constexpr std::uint64_t for_ever = std::numeric_limits<std::uint64_t>::max();

TEST(SerialLocksDeathTest, find_a_lock_taken_twice) MOAT_NO_THREAD_SAFETY_ANALYSIS {
    SerialSync::Mutex mutex;
    const ExclusiveLock lock(mutex);
    EXPECT_FALSE(mutex.try_lock());
    EXPECT_DEATH(mutex.lock(), "waits for a lock that it holds");
    EXPECT_DEATH(mutex.lock_shared(), "waits for a lock that it holds");
}

TEST(SerialLocksDeathTest, find_an_unlock_without_a_lock) MOAT_NO_THREAD_SAFETY_ANALYSIS {
    SerialSync::SharedMutex mutex;
    EXPECT_DEATH(mutex.unlock(), "an unlock follows a lock");
    EXPECT_DEATH(mutex.unlock_shared(), "an unlock follows a lock");
    const SharedLock lock(mutex);
    EXPECT_DEATH(mutex.lock(), "waits for a lock that it holds");
}

TEST(SerialRcuDeathTest, finds_a_section_that_waits_for_itself) {
    const SerialSync::ReadSection reading;
    EXPECT_DEATH(SerialSync::synchronize(), "read section");
    EXPECT_DEATH(SerialSync::barrier(), "read section");
}

TEST(SerialRcu, defers_from_deferred_calls_without_recursion) {
    struct Chain : RcuHead {
        int left = 1'000'000; // a recursion as deep as this would overflow the stack

        static void run(RcuHead* head) {
            auto* const self = static_cast<Chain*>(head);
            if (--self->left != 0)
                SerialSync::defer(self, run);
        }
    } chain;

    SerialSync::defer(&chain, Chain::run);
    EXPECT_EQ(chain.left, 0);
}

/// Records when its timer ran.
struct Alarm {
    std::vector<std::uint64_t>* log;
    SerialSync::Timer timer{[](void* self) { static_cast<Alarm*>(self)->ring(); }, this};
    std::uint64_t again = 0;

    explicit Alarm(std::vector<std::uint64_t>& times) : log(&times) {}

    void ring() {
        log->push_back(SerialSync::now());
        if (again != 0)
            timer.arm(again);
    }
};

TEST(SerialTimers, run_in_order_each_at_its_moment) {
    std::vector<std::uint64_t> log;
    const std::uint64_t start = SerialSync::now();
    Alarm late(log);
    Alarm early(log);
    late.timer.arm(300);
    early.timer.arm(100);
    SerialSync::advance(99);
    EXPECT_TRUE(log.empty());
    SerialSync::advance(1000);
    EXPECT_EQ(log, (std::vector<std::uint64_t>{start + 100, start + 300}));
    EXPECT_EQ(SerialSync::now(), start + 1099);
}

TEST(SerialTimers, arming_again_moves_and_cancelling_stops) {
    std::vector<std::uint64_t> log;
    const std::uint64_t start = SerialSync::now();
    Alarm moved(log);
    Alarm cancelled(log);
    moved.timer.arm(100);
    moved.timer.arm(50);
    cancelled.timer.arm(10);
    cancelled.timer.cancel();
    SerialSync::advance(1000);
    EXPECT_EQ(log, (std::vector<std::uint64_t>{start + 50}));
}

TEST(SerialTimers, may_arm_themselves_or_be_destroyed_while_armed) {
    std::vector<std::uint64_t> log;
    {
        Alarm periodic(log);
        periodic.again = 10;
        periodic.timer.arm(10);
        SerialSync::advance(35);
        EXPECT_EQ(log.size(), 3U);
    }
    SerialSync::advance(100);
    EXPECT_EQ(log.size(), 3U);
}

TEST(SerialTimers, may_be_armed_for_ever) {
    std::vector<std::uint64_t> log;
    Alarm never(log);
    never.timer.arm(for_ever);
    SerialSync::advance(1'000'000);
    EXPECT_TRUE(log.empty());
}

struct Waiting {
    SerialSync::Mutex mutex;
    SerialSync::Condition condition;
    bool done MOAT_GUARDED_BY(mutex) = false;
    SerialSync::Timer timer{[](void* self) { static_cast<Waiting*>(self)->finish(); }, this};

    void finish() {
        const ExclusiveLock lock(mutex);
        done = true;
        condition.notify_all();
    }
};

TEST(SerialCondition, is_woken_by_a_timer_which_may_take_the_lock) {
    Waiting waiting;
    const std::uint64_t start = SerialSync::now();
    waiting.timer.arm(100);
    const ExclusiveLock lock(waiting.mutex);
    while (!waiting.done)
        waiting.condition.wait(waiting.mutex);
    EXPECT_EQ(SerialSync::now(), start + 100);
}

TEST(SerialCondition, waits_no_longer_than_it_is_notified) {
    Waiting waiting;
    const std::uint64_t start = SerialSync::now();
    waiting.timer.arm(100);
    const ExclusiveLock lock(waiting.mutex);
    EXPECT_FALSE(waiting.condition.wait_for(waiting.mutex, 60));
    EXPECT_EQ(SerialSync::now(), start + 60);
    EXPECT_FALSE(waiting.done);
    EXPECT_TRUE(waiting.condition.wait_for(waiting.mutex, 60));
    EXPECT_EQ(SerialSync::now(), start + 100);
    EXPECT_TRUE(waiting.done);
}

TEST(SerialConditionDeathTest, finds_a_wait_that_nobody_ends) {
    Waiting waiting;
    const ExclusiveLock lock(waiting.mutex);
    EXPECT_DEATH(waiting.condition.wait(waiting.mutex), "cannot exist");
}

TEST(SerialThreadLocal, exits_when_told_to) {
    std::string seen;
    SerialSync::ThreadLocal<std::string> slot(
        [](void* to, std::string& value) { *static_cast<std::string*>(to) += value; }, &seen);
    slot.exit_thread();
    EXPECT_EQ(seen, "") << "nothing was used";
    *slot.local() = "magazine";
    slot.exit_thread();
    EXPECT_EQ(seen, "magazine");
    EXPECT_EQ(*slot.local(), "") << "a later thread begins afresh";
}

} // namespace
