// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The PUD slot: the number of schedules and traces, and the broken variants. Exact counts detect a
// search that omits schedules, which otherwise looks like a fast one.
#include "lab/explore/explorer.hpp"
#include "lab/explore/timeline.hpp"
#include "lab/scenarios/pud_slot.hpp"
#include "traces.hpp"

#include <gtest/gtest.h>
#include <string>

namespace moat::explore::testing {
namespace {

using scenarios::pud_slot::Configuration;
using scenarios::pud_slot::program;
using scenarios::pud_slot::Variant;

struct Expected {
    const char* name;
    Configuration configuration;
    std::uint64_t naive; ///< 0: too many to enumerate
    std::uint64_t traces;
};

void PrintTo(const Expected& expected, std::ostream* out) {
    *out << expected.name;
}

/// A sanitizer's build replays instead of restoring, many times slower.
[[nodiscard]] constexpr bool is_too_long(const Expected& expected) {
    return sanitized && (expected.naive > 2000 || expected.traces > 50);
}

constexpr Configuration make(unsigned walkers, unsigned faulters, unsigned zappers,
                             unsigned populators, unsigned iterations) {
    return {Variant::reload, walkers, faulters, zappers, populators, iterations, 3};
}

class Counts : public ::testing::TestWithParam<Expected> {};

TEST_P(Counts, naive_visits_every_schedule) {
    const Expected& expected = GetParam();
    if (expected.naive == 0 || is_too_long(expected))
        GTEST_SKIP() << "more than 30 million schedules";
    const Seen naive = see(program(expected.configuration), Strategy::naive, {}, Collect::states);
    EXPECT_TRUE(naive.exhausted);
    EXPECT_EQ(naive.executions, expected.naive);
}

TEST_P(Counts, dpor_completes_one_execution_a_trace) {
    const Expected& expected = GetParam();
    if (is_too_long(expected))
        GTEST_SKIP() << "replays under a sanitizer take too long";
    const Seen dpor = see(program(expected.configuration), Strategy::dpor, {}, Collect::states);
    EXPECT_TRUE(dpor.exhausted);
    EXPECT_EQ(dpor.violating, 0U);
    EXPECT_EQ(dpor.executions, expected.traces);
}

TEST_P(Counts, sleep_sets_complete_one_execution_a_trace) {
    const Expected& expected = GetParam();
    if (expected.traces > 100000 || is_too_long(expected))
        GTEST_SKIP() << "seven million executions are left to the benchmark";
    const Seen sleep = see(program(expected.configuration), Strategy::sleep, {}, Collect::states);
    EXPECT_TRUE(sleep.exhausted);
    EXPECT_EQ(sleep.executions, expected.traces);
}

TEST_P(Counts, dpor_sees_the_traces_and_final_states_that_naive_sees) {
    const Expected& expected = GetParam();
    if (expected.naive == 0 || is_too_long(expected))
        GTEST_SKIP() << "too many schedules to compare trace by trace";
    const auto scenario = program(expected.configuration);
    const Seen naive = see(scenario, Strategy::naive, {}, Collect::traces_too);
    const Seen dpor = see(scenario, Strategy::dpor, {}, Collect::traces_too);
    EXPECT_EQ(naive.traces.size(), expected.traces);
    EXPECT_EQ(dpor.traces, naive.traces);
    EXPECT_EQ(dpor.final_states, naive.final_states);
}

INSTANTIATE_TEST_SUITE_P(Configurations, Counts,
                         ::testing::Values(Expected{"W1F1_K1", make(1, 1, 0, 0, 1), 40, 4},
                                           Expected{"W1F1_K2", make(1, 1, 0, 0, 2), 963, 13},
                                           Expected{"W1F1_K3", make(1, 1, 0, 0, 3), 12614, 36},
                                           Expected{"W1F2_K1", make(1, 2, 0, 0, 1), 6388, 43},
                                           Expected{"W1F1Z1_K1", make(1, 1, 1, 0, 1), 837, 20},
                                           Expected{"W1F1P1_K1", make(1, 1, 0, 1, 1), 6296, 31},
                                           Expected{"W1F2_K2", make(1, 2, 0, 0, 2), 0, 1281},
                                           Expected{"W2F2_K1", make(2, 2, 0, 0, 1), 0, 7628},
                                           Expected{"W2F2Z1P1_K1", make(2, 2, 1, 1, 1), 0,
                                                    1680055}),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST(PudSlot, snapshot_has_the_traces_of_reload_with_fewer_schedules) {
    Configuration configuration = make(1, 1, 0, 1, 1);
    configuration.variant = Variant::snapshot;
    EXPECT_EQ(see(program(configuration), Strategy::naive, {}, Collect::states).executions, 4616U);
    EXPECT_EQ(see(program(configuration), Strategy::dpor, {}, Collect::states).executions, 31U);
}

[[nodiscard]] Report explore_variant(Variant variant, unsigned zappers, Strategy strategy) {
    Configuration configuration = make(1, 1, zappers, 0, 1);
    configuration.variant = variant;
    ExploreOptions options;
    options.strategy = strategy;
    return explore::explore(program(configuration), options);
}

TEST(PudSlot, old_is_refuted_with_one_walker_and_one_faulter) {
    for (Strategy strategy : {Strategy::dpor, Strategy::sleep, Strategy::naive, Strategy::bound,
                              Strategy::pct, Strategy::random}) {
        const Report report = explore_variant(Variant::old, 0, strategy);
        ASSERT_TRUE(report.found) << name(strategy);
        EXPECT_EQ(report.found->violation.kind, ViolationKind::check) << name(strategy);
        EXPECT_EQ(report.found->schedule.size(), 12U)
            << name(strategy) << ": one preemption and twelve steps are enough";
    }
}

TEST(PudSlot, old_is_refuted_within_a_few_executions) {
    const Report report = explore_variant(Variant::old, 0, Strategy::dpor);
    EXPECT_LE(report.tally.executions + report.tally.blocked, 8U);
    EXPECT_LE(report.tally.steps, 100U) << "a hundred steps take far less than a millisecond";
}

/// The open question of the kernel thread: does it suffice to retry on "none or leaf"? It does for
/// one walker and one faulter, as in its author's reproducer, but not with a zapper.
TEST(PudSlot, two_loads_are_proved_with_a_faulter_and_refuted_with_a_zapper) {
    const Report clean = explore_variant(Variant::two_load, 0, Strategy::dpor);
    EXPECT_FALSE(clean.found);
    EXPECT_TRUE(clean.exhausted);
    const Report refuted = explore_variant(Variant::two_load, 1, Strategy::dpor);
    ASSERT_TRUE(refuted.found);
    EXPECT_EQ(refuted.found->schedule.size(), 17U);
}

TEST(PudSlot, no_order_of_two_loads_works) {
    EXPECT_TRUE(explore_variant(Variant::two_load_reversed, 0, Strategy::dpor).found);
}

TEST(PudSlot, a_single_load_tested_for_the_stable_state_is_proved) {
    for (Variant variant : {Variant::reload, Variant::snapshot}) {
        Configuration configuration = make(1, 1, 1, 1, 1);
        configuration.variant = variant;
        const Report report = explore::explore(program(configuration), {});
        EXPECT_FALSE(report.found) << name(variant);
        EXPECT_TRUE(report.exhausted) << name(variant);
    }
}

TEST(PudSlot, jobs_and_shards_add_up_to_one_process) {
    const std::uint64_t traces = sanitized ? 43 : 7628;
    const auto scenario = program(make(sanitized ? 1 : 2, 2, 0, 0, 1));
    ExploreOptions options;
    options.jobs = 3;
    EXPECT_EQ(explore::explore(scenario, options).tally.executions, traces);
    options.jobs = 1;
    for (unsigned count : {2U, 5U}) {
        Tally sum;
        for (unsigned index = 0; index != count; ++index) {
            options.shard = {index, count};
            const Report part = explore::explore(scenario, options);
            EXPECT_TRUE(part.exhausted);
            sum.add(part.tally);
        }
        EXPECT_EQ(sum.executions, traces) << count << " shards";
    }
}

TEST(PudSlot, the_timeline_marks_the_stale_read_and_its_cause) {
    const Report report = explore_variant(Variant::two_load, 1, Strategy::dpor);
    ASSERT_TRUE(report.found);
    Configuration configuration = make(1, 1, 1, 0, 1);
    configuration.variant = Variant::two_load;
    Machine machine(program(configuration), {});
    machine.start();
    for (const Choice& choice : report.found->schedule)
        machine.step(choice.actor, choice.option);
    const auto stale = find_stale_read(machine);
    ASSERT_TRUE(stale) << timeline(machine);
    EXPECT_EQ(stale->knew, 10U) << timeline(machine);
    EXPECT_EQ(machine.actor_name(machine.step_at(stale->changed).actor), "zapper");
    EXPECT_EQ(machine.step_at(stale->changed).touch.kind, Kind::store);
    EXPECT_NE(timeline(machine).find("PUD LEAF special"), std::string::npos);
}

} // namespace
} // namespace moat::explore::testing
