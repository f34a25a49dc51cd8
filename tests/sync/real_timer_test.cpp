// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RealSync's timers: they run on the background thread, not before their time and not after
// cancel. Tests wait for latches that callbacks count down, never for time.
#include "moat/sync/real.hpp"

#include <atomic>
#include <cstdint>
#include <gtest/gtest.h>
#include <latch>
#include <limits>
#include <thread>

namespace {

using namespace moat;

constexpr std::uint64_t for_ever = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t millisecond = 1'000'000;

struct Alarm {
    std::latch rang{1};
    std::uint64_t at = 0;
    std::thread::id on;
    RealSync::Timer timer{[](void* self) { static_cast<Alarm*>(self)->ring(); }, this};

    void ring() {
        at = RealSync::now();
        on = std::this_thread::get_id();
        rang.count_down();
    }
};

TEST(Timer, RunsNotBeforeItsTimeAndOnAnotherThread) {
    Alarm alarm;
    const std::uint64_t start = RealSync::now();
    alarm.timer.arm(millisecond);
    alarm.rang.wait();
    EXPECT_GE(alarm.at, start + millisecond);
    EXPECT_NE(alarm.on, std::this_thread::get_id());
}

TEST(Timer, IsMovedByArmingItAgain) {
    Alarm alarm;
    alarm.timer.arm(for_ever);
    alarm.timer.arm(0);
    alarm.rang.wait();
}

TEST(Timer, OfAnEarlierTimeRunsFirst) {
    Alarm late;
    Alarm early;
    late.timer.arm(2 * millisecond);
    early.timer.arm(millisecond);
    late.rang.wait();
    early.rang.wait();
    EXPECT_LE(early.at, late.at);
}

TEST(Timer, MayBeArmedForEver) {
    Alarm never;
    never.timer.arm(for_ever);
    Alarm soon; // were the deadline to wrap, `never` would run before this
    soon.timer.arm(0);
    soon.rang.wait();
    EXPECT_FALSE(never.rang.try_wait());
}

TEST(Timer, DoesNotRunAfterCancel) {
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

TEST(Timer, IsWaitedForByCancelWhileItRuns) {
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

TEST(PeriodicTimer, StopsAtCancel) {
    for (int round = 0; round != 20; ++round) {
        Periodic periodic;
        periodic.timer.arm(0);
        while (periodic.ran.load() < 3)
            RealSync::yield();
        periodic.timer.cancel();
        const int then = periodic.ran.load();
        RealSync::yield();
        EXPECT_EQ(periodic.ran.load(), then);
        periodic.timer.arm(0); // cancel is no end for ever
        while (periodic.ran.load() == then)
            RealSync::yield();
    }
}

TEST(PeriodicTimer, LeavesTimeForDeferredCalls) {
    Periodic periodic;
    periodic.timer.arm(0);

    struct Call : RcuHead {
        std::latch ran{1};
    } call;

    RealSync::defer(&call, [](RcuHead* head) { static_cast<Call*>(head)->ran.count_down(); });
    call.ran.wait();
}

TEST(Timer, MayBeDestroyedByItsCallback) {
    struct Owner {
        std::latch* destroyed;
        RealSync::Timer timer{[](void* self) { delete static_cast<Owner*>(self); }, this};

        explicit Owner(std::latch& done) : destroyed(&done) {}

        ~Owner() {
            timer.cancel();
            destroyed->count_down();
        }
    };

    std::latch destroyed(1);
    (new Owner(destroyed))->timer.arm(0);
    destroyed.wait();
}

} // namespace
