// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The watchdog detects a thread that makes no progress, with times chosen by the test.
#include "command/watchdog.hpp"

#include <gtest/gtest.h>

namespace moat::tools {
namespace {

TEST(Watchdog, tells_who_stands_still_and_for_how_long) {
    Watchdog watchdog(2, 10);
    EXPECT_FALSE(watchdog.observe(0, 1, 1));
    EXPECT_FALSE(watchdog.observe(1, 5, 1));
    EXPECT_FALSE(watchdog.observe(0, 1, 10.5));
    EXPECT_FALSE(watchdog.observe(1, 6, 10.5));
    const auto stalled = watchdog.observe(0, 1, 11);
    ASSERT_TRUE(stalled);
    EXPECT_EQ(stalled->worker, 0U);
    EXPECT_EQ(stalled->progress, 1U);
    EXPECT_EQ(stalled->seconds, 10);
    EXPECT_FALSE(watchdog.observe(1, 6, 12));
}

TEST(Watchdog, one_that_never_began_stands_still) {
    Watchdog watchdog(1, 2);
    EXPECT_TRUE(watchdog.observe(0, 0, 2));
}

TEST(Watchdog, progress_is_any_change) {
    Watchdog watchdog(1, 2);
    EXPECT_FALSE(watchdog.observe(0, 7, 1));
    EXPECT_FALSE(watchdog.observe(0, 6, 2.9));
    EXPECT_FALSE(watchdog.observe(0, 6, 4.8));
    EXPECT_TRUE(watchdog.observe(0, 6, 4.9));
}

} // namespace
} // namespace moat::tools
