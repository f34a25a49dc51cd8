// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The end of a process during other work. Each case runs in a child process.
#include "moat/sync/real.hpp"

#include <cstdlib>
#include <gtest/gtest.h>
#include <latch>
#include <thread>

namespace {

using namespace moat;

class RealExitDeathTest : public testing::Test {
  protected:
    RealExitDeathTest() { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

/// A static object that was constructed before the background thread and is destroyed after it.
struct Engine {
    RealSync::Timer timer{[](void*) {}, nullptr};
    RealSync::ThreadLocal<int> local{[](void*, int&) {}, nullptr};

    ~Engine() {
        RealSync::retire(RealSync::make<int>(1));
        timer.arm(1000);
        timer.cancel();
        RealSync::barrier();
    }
};

TEST_F(RealExitDeathTest, outlives_its_background_thread) {
    EXPECT_EXIT(
        {
            static Engine engine;
            *engine.local.local() = 1;
            engine.timer.arm(1'000'000'000'000);
            RealSync::retire(RealSync::make<int>(1));
            std::exit(3);
        },
        testing::ExitedWithCode(3), "");
}

TEST_F(RealExitDeathTest, may_come_inside_a_section) {
    EXPECT_EXIT(
        {
            static Engine engine;
            const RealSync::ReadSection reading;
            RealSync::retire(RealSync::make<int>(1));
            std::exit(3);
        },
        testing::ExitedWithCode(3), "");
}

TEST_F(RealExitDeathTest, may_come_from_a_timer) {
    EXPECT_EXIT(
        {
            RealSync::Timer timer([](void*) { std::exit(3); }, nullptr);
            timer.arm(0);
            std::latch(1).wait();
        },
        testing::ExitedWithCode(3), "");
}

TEST_F(RealExitDeathTest, leaves_threads_with_state_behind) {
    EXPECT_EXIT(
        {
            static Engine engine;
            static std::latch used(1);
            std::thread([] {
                const RealSync::ReadSection reading;
                *engine.local.local() = 2;
                used.count_down();
                std::latch(1).wait();
            }).detach();
            used.wait();
            std::_Exit(3); // exit() would wait for the section in ~Engine
        },
        testing::ExitedWithCode(3), "");
}

} // namespace
