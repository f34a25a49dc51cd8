// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "moat/core/check.hpp"

#include <gtest/gtest.h>

namespace {

TEST(CheckDeathTest, SaysWhatWhyAndWhere) {
    const int entries = 513;
    EXPECT_DEATH(MOAT_CHECK(entries <= 512, "a table is not overfull"),
                 "CHECK failed: a table is not overfull\n.*entries <= 512\n.*check_test.cpp:");
}

TEST(Check, LooksAtItsConditionOnce) {
    int looks = 0;
    MOAT_CHECK(++looks == 1, "the first look");
    EXPECT_EQ(looks, 1);
}

TEST(Check, IsOneStatement) {
    bool reached_else = false;
    if (reached_else)
        MOAT_CHECK(false, "not reached");
    else
        reached_else = true;
    EXPECT_TRUE(reached_else);
}

} // namespace
