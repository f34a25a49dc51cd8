// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The limits of the tests' searches, and what they expect of a search without a violation.
#pragma once

#include "lab/explore/explorer.hpp"

#include <cstdint>
#include <gtest/gtest.h>

namespace moat::explore::testing {

/// Executions after which a sanitizer's build, which replays each from its start, ends a search.
/// The tests of mutants find each mutant within them, except those marked as deep.
inline constexpr std::uint64_t sanitized_executions = 100;

inline constexpr std::uint64_t most_searched = sanitized ? sanitized_executions : UINT64_MAX;

/// The report of a search of at most `most_searched` executions.
inline void expect_proved(const Report& report) {
    EXPECT_FALSE(report.found) << report.found->violation.text;
    EXPECT_TRUE(report.exhausted || (sanitized && report.tally.executions == most_searched))
        << report.tally.executions << " executions";
    EXPECT_GT(report.tally.executions, 0U);
    EXPECT_EQ(report.tally.cut, 0U) << "executions that took too many steps";
    ::testing::Test::RecordProperty("executions", std::to_string(report.tally.executions));
}

} // namespace moat::explore::testing
