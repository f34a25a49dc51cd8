// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every run replays: the same schedule takes the same steps, by snapshots and from the setup.
// Outdated replay files fail at the first step that differs.
#include "lab/explore/explorer.hpp"
#include "lab/explore/races.hpp"
#include "lab/explore/replay.hpp"
#include "lab/scenarios/pud_slot.hpp"
#include "lab/scenarios/scenario.hpp"

#include <gtest/gtest.h>

namespace moat::explore::testing {
namespace {

using scenarios::pud_slot::Variant;

/// The details of a run that do not depend on memory addresses.
[[nodiscard]] std::string footprint(const Machine& machine) {
    std::string text;
    for (std::size_t at = 0; at != machine.depth(); ++at) {
        const Step& step = machine.step_at(at);
        text += describe(machine, step);
        text.append(" ").append(std::to_string(step.operand));
        text.append(" ").append(std::to_string(step.result)).append("\n");
    }
    return text + std::to_string(machine.fingerprint());
}

struct Execution {
    Schedule schedule;
    std::string footprint;
};

[[nodiscard]] std::vector<Execution> runs(const Program& program, MachineOptions options,
                                          Restoration restoration) {
    options.restoration = restoration;
    Machine machine(program, options);
    std::vector<Execution> all;
    SearchOptions search_options;
    search_options.visit = [&](const Machine& at) {
        all.push_back({schedule_of(at), footprint(at)});
    };
    const SearchResult result = search_dpor(machine, search_options);
    EXPECT_TRUE(result.exhausted);
    return all;
}

class Replays : public ::testing::TestWithParam<MemoryModelKind> {};

TEST_P(Replays, every_schedule_takes_the_same_steps_twice) {
    MachineOptions options;
    options.memory_model = GetParam();
    const Program program = scenarios::pud_slot::program({Variant::snapshot, 1, 1, 1, 0, 1, 3});
    const std::vector<Execution> first = runs(program, options, default_restoration);
    const std::vector<Execution> second = runs(program, options, Restoration::replay);
    ASSERT_EQ(first.size(), second.size()) << "snapshots and pure replay explore alike";
    Machine fresh(program, options);
    for (std::size_t i = 0; i != first.size(); ++i) {
        ASSERT_EQ(first[i].schedule, second[i].schedule) << "execution " << i;
        ASSERT_EQ(first[i].footprint, second[i].footprint) << "execution " << i;
        fresh.start();
        for (const Choice& choice : first[i].schedule)
            fresh.step(choice.actor, choice.option);
        ASSERT_TRUE(fresh.enabled().empty()) << "execution " << i;
        ASSERT_EQ(footprint(fresh), first[i].footprint) << "execution " << i;
    }
}

INSTANTIATE_TEST_SUITE_P(MemoryModels, Replays,
                         ::testing::Values(MemoryModelKind::sc, MemoryModelKind::tso,
                                           MemoryModelKind::c11),
                         [](const auto& tested) { return std::string(name(tested.param)); });

[[nodiscard]] Replay recorded(Variant variant) {
    const Program program = scenarios::pud_slot::program({variant, 1, 1, 1, 0, 1, 3});
    const Report report = explore::explore(program, {});
    EXPECT_TRUE(report.found);
    Machine machine(program, {});
    machine.start();
    for (const Choice& choice : report.found->schedule)
        machine.step(choice.actor, choice.option);
    judge(machine);
    Replay replay = record_replay(machine);
    replay.scenario = "pud-slot";
    replay.configuration = "variant=old zappers=1";
    return replay;
}

[[nodiscard]] std::optional<std::string> follow_with(Variant variant, const Replay& replay) {
    Machine machine(scenarios::pud_slot::program({variant, 1, 1, 1, 0, 1, 3}), {});
    return follow(machine, replay);
}

TEST(ReplayFile, survives_being_written_and_read) {
    const Replay replay = recorded(Variant::old);
    const auto read = parse_replay(to_text(replay, "W5 F5 W2"));
    ASSERT_TRUE(read) << read.error().sentence();
    EXPECT_EQ(to_text(*read, ""), to_text(replay, ""));
    EXPECT_EQ(follow_with(Variant::old, *read), std::nullopt);
}

TEST(ReplayFile, carries_what_changes_the_run) {
    MachineOptions options;
    options.memory_model = MemoryModelKind::tso;
    options.failing_allocations = 2;
    options.most_steps = 77;
    Machine machine(scenarios::pud_slot::program({}), options);
    machine.start();
    const auto read = parse_replay(to_text(record_replay(machine), ""));
    ASSERT_TRUE(read);
    EXPECT_EQ(machine_options(*read).memory_model, MemoryModelKind::tso);
    EXPECT_EQ(machine_options(*read).failing_allocations, 2U);
    EXPECT_EQ(machine_options(*read).most_steps, 77U);
}

TEST(ReplayFile, another_program_fails_at_the_first_step_that_differs) {
    Machine machine(scenarios::pud_slot::program({Variant::old, 1, 0, 1, 0, 1, 3}), {});
    const auto mismatch = follow(machine, recorded(Variant::old));
    EXPECT_EQ(mismatch, "step 5: expected faulter load pud, found zapper lock pud lock");
}

TEST(ReplayFile, a_violation_that_is_gone_is_told_at_the_end) {
    const auto mismatch = follow_with(Variant::snapshot, recorded(Variant::old));
    ASSERT_TRUE(mismatch);
    EXPECT_TRUE(mismatch->starts_with("at the end")) << *mismatch;
}

TEST(ReplayFile, nonsense_is_refused_with_its_line) {
    EXPECT_EQ(parse_replay("").error().code(), ErrorCode::empty);
    EXPECT_EQ(parse_replay("moat-replay 999\n").error().code(), ErrorCode::unsupported);
    for (const char* wrong :
         {"moat-replay 1\nstep 1 0 0 walker load pud\n", "moat-replay 1\nstep 0 999 0 x\n",
          "moat-replay 1\nmemory-model alpha\n", "moat-replay 1\nnonsense\n"}) {
        const auto replay = parse_replay(wrong);
        ASSERT_FALSE(replay) << wrong;
        ASSERT_NE(replay.error().find("line"), nullptr);
        EXPECT_EQ(*replay.error().find("line"), 2U) << wrong;
    }
}

TEST(Scenario, configurations_travel_as_text) {
    const scenarios::Scenario* const scenario = scenarios::find("pud-slot");
    ASSERT_NE(scenario, nullptr);
    const auto configuration = scenarios::complete(*scenario, scenarios::parse("variant=old"));
    ASSERT_TRUE(configuration);
    EXPECT_EQ(scenarios::parse(scenarios::to_text(*configuration)), *configuration);
    EXPECT_FALSE(scenarios::complete(*scenario, scenarios::parse("variant=new")));
    EXPECT_FALSE(scenarios::complete(*scenario, scenarios::parse("walkers=99")));
    EXPECT_FALSE(scenarios::complete(*scenario, scenarios::parse("wombats=1")));
}

} // namespace
} // namespace moat::explore::testing
