// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped page-table engine under every schedule of a few threads, and each memory model.
#include "lab/explore/explorer.hpp"
#include "lab/scenarios/scenario.hpp"
#include "searched.hpp"
#include "traces.hpp"

#include <gtest/gtest.h>

namespace moat::explore::testing {
namespace {

[[nodiscard]] Program engine(const char* configuration) {
    const scenarios::Scenario* const scenario = scenarios::find("page-table");
    const auto complete = scenarios::complete(*scenario, scenarios::parse(configuration));
    MOAT_CHECK(complete.has_value(), "the scenario has these parameters");
    return scenario->program(*complete);
}

class PageTableEngine : public ::testing::TestWithParam<std::tuple<const char*, MemoryModelKind>> {
};

TEST_P(PageTableEngine, is_proved_for_a_few_threads) {
    const auto& [configuration, model] = GetParam();
    ExploreOptions options;
    options.machine.memory_model = model;
    options.most_executions = most_searched;
    const Report report = explore::explore(engine(configuration), options);
    expect_proved(report);
}

INSTANTIATE_TEST_SUITE_P(
    Configurations, PageTableEngine,
    ::testing::Combine(
        ::testing::Values("mappers=2 unmappers=0 walkers=0", "mappers=1 unmappers=1 walkers=1",
                          "mappers=0 unmappers=0 walkers=0 freers=1",
                          "mappers=0 unmappers=0 walkers=0 freers=1 waits=1",
                          "mappers=0 unmappers=0 walkers=0 freers=1 neighbours=1 waits=1"),
        ::testing::Values(MemoryModelKind::sc, MemoryModelKind::tso, MemoryModelKind::c11)));

// A table of 512 entries has more locations than c11 keeps histories of, and each store is a step.
INSTANTIATE_TEST_SUITE_P(
    Levels, PageTableEngine,
    ::testing::Combine(::testing::Values("mappers=0 unmappers=0 walkers=0 splitters=1",
                                         "mappers=0 unmappers=0 walkers=0 splitters=2",
                                         "mappers=0 unmappers=0 walkers=0 folders=1",
                                         "mappers=0 unmappers=0 walkers=0 folders=1 waits=1",
                                         "mappers=0 unmappers=0 walkers=0 folders=1 waits=1 "
                                         "variant=awaited-break"),
                       ::testing::Values(MemoryModelKind::sc)));

TEST(PageTableCounts, splits_and_folds_are_counted) {
    if (sanitized)
        GTEST_SKIP() << "replays under a sanitizer take too long";
    const auto executions = [](const char* configuration) {
        return explore::explore(engine(configuration), {}).tally.executions;
    };
    EXPECT_EQ(executions("mappers=0 unmappers=0 walkers=0 splitters=1"), 2U);
    EXPECT_EQ(executions("mappers=0 unmappers=0 walkers=0 splitters=2"), 19U);
    EXPECT_EQ(executions("mappers=0 unmappers=0 walkers=0 folders=1"), 3U);
}

TEST(PageTableStates, mappers_and_a_walker_end_where_sleep_sets_say) {
    if (sanitized)
        GTEST_SKIP() << "replays under a sanitizer take too long";
    const Program program = engine("mappers=2 unmappers=0 walkers=1");
    const Seen dpor = see(program, Strategy::dpor, {}, Collect::states);
    const Seen sleep = see(program, Strategy::sleep, {}, Collect::states);
    EXPECT_EQ(dpor.executions, sleep.executions);
    EXPECT_EQ(dpor.final_states, sleep.final_states);
}

} // namespace
} // namespace moat::explore::testing
