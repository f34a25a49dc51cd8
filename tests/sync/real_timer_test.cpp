// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RealSync's timers run on the background thread, not early and not after cancel. Tests wait for
// the effects of callbacks, never for time.
#include "moat/sync/real.hpp"

#include "eventually.hpp"

#include <atomic>
#include <cstdint>
#include <gtest/gtest.h>
#include <latch>
#include <limits>
#include <thread>

namespace {

using namespace moat;
using tests::eventually;

constexpr std::uint64_t no_deadline = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t millisecond = 1'000'000;

struct TimerAlarm {
    std::latch rang{1};
    std::atomic<int> times{0};
    std::uint64_t at = 0;
    std::thread::id on;
    RealSync::Timer timer{[](void* self) { static_cast<TimerAlarm*>(self)->ring(); }, this};

    void ring() {
        at = RealSync::now();
        on = std::this_thread::get_id();
        if (++times == 1)
            rang.count_down();
    }

    [[nodiscard]] bool rings() {
        return eventually([this] { return rang.try_wait(); });
    }
};

TEST(Timer, runs_not_before_its_time_and_on_another_thread) {
    TimerAlarm alarm;
    const std::uint64_t start = RealSync::now();
    alarm.timer.arm(millisecond);
    ASSERT_TRUE(alarm.rings());
    EXPECT_GE(alarm.at, start + millisecond);
    EXPECT_NE(alarm.on, std::this_thread::get_id());
}

TEST(Timer, armed_again_for_an_earlier_time_runs_then_and_once) {
    TimerAlarm moved;
    moved.timer.arm(no_deadline);
    moved.timer.arm(0);
    ASSERT_TRUE(moved.rings());
    TimerAlarm after;
    after.timer.arm(0);
    ASSERT_TRUE(after.rings());
    EXPECT_EQ(moved.times, 1);
}

TEST(Timer, armed_again_for_a_later_time_does_not_run_at_the_first) {
    /// Arms both on the background thread, so that no timer runs in between.
    struct Arming {
        TimerAlarm moved;
        TimerAlarm after;
        RealSync::Timer timer{[](void* self) { static_cast<Arming*>(self)->run(); }, this};

        void run() {
            moved.timer.arm(0);
            moved.timer.arm(no_deadline);
            after.timer.arm(0);
        }
    };

    Arming arming;
    arming.timer.arm(0);
    ASSERT_TRUE(arming.after.rings());
    EXPECT_EQ(arming.moved.times, 0);
}

TEST(Timer, of_an_earlier_time_runs_first) {
    TimerAlarm late;
    TimerAlarm early;
    late.timer.arm(2 * millisecond);
    early.timer.arm(millisecond);
    ASSERT_TRUE(late.rings());
    ASSERT_TRUE(early.rings());
    EXPECT_LE(early.at, late.at);
}

TEST(Timer, may_be_armed_for_ever) {
    TimerAlarm never;
    never.timer.arm(no_deadline);
    TimerAlarm soon; // if the deadline wrapped, `never` would run before this
    soon.timer.arm(0);
    ASSERT_TRUE(soon.rings());
    EXPECT_FALSE(never.rang.try_wait());
}

TEST(Timer, does_not_run_after_cancel) {
    std::atomic<int> ran{0};
    for (int i = 0; i != 200; ++i) {
        RealSync::Timer timer([](void* count) { ++*static_cast<std::atomic<int>*>(count); }, &ran);
        timer.arm(i % 2 == 0 ? 0 : 1000);
        timer.cancel();
        const int then = ran.load();
        RealSync::yield();
        EXPECT_EQ(ran.load(), then) << "round " << i;
    }
}

TEST(Timer, is_waited_for_by_cancel_while_it_runs) {
    struct {
        std::latch running{1};
        std::atomic<bool> done{false};
    } state;

    RealSync::Timer timer(
        [](void* raw) {
            auto& shared = *static_cast<decltype(state)*>(raw);
            shared.running.count_down();
            for (int i = 0; i != 100; ++i)
                RealSync::yield();
            shared.done.store(true, std::memory_order_relaxed);
        },
        &state);
    timer.arm(0);
    state.running.wait();
    timer.cancel();
    EXPECT_TRUE(state.done.load(std::memory_order_relaxed));
}

/// Arms itself again from its callback, without a pause.
struct Periodic {
    std::atomic<int> ran{0};
    RealSync::Timer timer{[](void* self) { static_cast<Periodic*>(self)->run(); }, this};

    void run() {
        ++ran;
        timer.arm(0);
    }
};

TEST(PeriodicTimer, stops_at_cancel) {
    for (int round = 0; round != 20; ++round) {
        Periodic periodic;
        periodic.timer.arm(0);
        while (periodic.ran.load() < 3)
            RealSync::yield();
        periodic.timer.cancel();
        const int then = periodic.ran.load();
        RealSync::yield();
        EXPECT_EQ(periodic.ran.load(), then);
        periodic.timer.arm(0); // a cancelled timer can be armed again
        while (periodic.ran.load() == then)
            RealSync::yield();
    }
}

TEST(PeriodicTimer, lets_deferred_calls_run_between_its_own) {
    Periodic periodic;
    periodic.timer.arm(0);

    struct Call : RcuHead {
        std::latch ran{1};
        std::thread::id on;

        void run() {
            on = std::this_thread::get_id();
            ran.count_down();
        }
    } call;

    ASSERT_TRUE(eventually([&] { return periodic.ran != 0; }));
    RealSync::defer(&call, [](RcuHead* head) { static_cast<Call*>(head)->run(); });
    EXPECT_TRUE(eventually([&] { return call.ran.try_wait(); }));
    const int then = periodic.ran;
    EXPECT_TRUE(eventually([&] { return periodic.ran > then; })) << "it goes on";
    RealSync::barrier(); // `call` must not outlive this function in a queue
    EXPECT_NE(call.on, std::this_thread::get_id());
}

TEST(Timer, destroyed_by_its_callback_is_forgotten) {
    struct Destroyed {
        std::atomic<int> times{0};
        std::thread::id on;
    };

    struct Owner {
        Destroyed& destroyed;
        RealSync::Timer timer{[](void* self) { delete static_cast<Owner*>(self); }, this};

        explicit Owner(Destroyed& note) : destroyed(note) {}

        ~Owner() {
            timer.cancel();
            destroyed.on = std::this_thread::get_id();
            ++destroyed.times;
        }
    };

    Destroyed destroyed;
    (new Owner(destroyed))->timer.arm(0);
    ASSERT_TRUE(eventually([&] { return destroyed.times != 0; }));
    TimerAlarm next; // the background thread continues without the destroyed timer
    next.timer.arm(0);
    ASSERT_TRUE(next.rings());
    EXPECT_EQ(destroyed.times, 1);
    EXPECT_EQ(destroyed.on, next.on);
}

} // namespace
