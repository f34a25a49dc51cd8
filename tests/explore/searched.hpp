// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The limits of the tests' searches, and what they expect of a search without a violation.
#pragma once

#include "moat/core/check.hpp"

#include "lab/explore/explorer.hpp"
#include "lab/scenarios/scenario.hpp"

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

/// Expects that a scenario with these parameters is proved. Return: its executions.
inline std::uint64_t expect_proved(const char* scenario, const scenarios::Configuration& given,
                                   MemoryModelKind model) {
    const scenarios::Scenario* const found = scenarios::find(scenario);
    MOAT_CHECK(found != nullptr, "the scenario exists");
    const auto complete = scenarios::complete(*found, given);
    MOAT_CHECK(complete.has_value(), "the scenario has these parameters");
    ExploreOptions options;
    options.machine.memory_model = model;
    options.most_executions = most_searched;
    const Report report = explore::explore(found->program(*complete), options);
    expect_proved(report);
    return report.tally.executions;
}

} // namespace moat::explore::testing
