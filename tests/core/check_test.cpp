// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "moat/core/check.hpp"

#include <gtest/gtest.h>

namespace {

TEST(CheckDeathTest, says_what_why_and_where) {
    const int entries = 513;
    EXPECT_DEATH(MOAT_CHECK(entries <= 512, "a table is not overfull"),
                 "CHECK failed: a table is not overfull\n.*entries <= 512\n.*check_test.cpp:");
}

TEST(Check, looks_at_its_condition_once) {
    int looks = 0;
    MOAT_CHECK(++looks == 1, "the first look");
    EXPECT_EQ(looks, 1);
}

TEST(Check, is_one_statement) {
    bool reached_else = false;
    if (reached_else)
        MOAT_CHECK(false, "not reached");
    else
        reached_else = true;
    EXPECT_TRUE(reached_else);
}

} // namespace
