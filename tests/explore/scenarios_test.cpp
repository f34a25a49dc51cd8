// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every shipped scenario replays: a repeated schedule takes the same steps, by snapshots, from the
// setup, and in another machine. Small scenarios run all schedules, large ones a sample.
#include "lab/explore/races.hpp"
#include "lab/explore/replay.hpp"
#include "lab/explore/search.hpp"
#include "lab/scenarios/scenario.hpp"

#include <gtest/gtest.h>

namespace moat::explore::testing {
namespace {

struct Scheduled {
    Schedule schedule;
    std::uint64_t footprint_of = 0;
};

/// All steps and their results, the same wherever the arena lies. Contents of memory are left out:
/// a pool stores the distance of its memory from its addresses, which depends on the arena's place.
[[nodiscard]] std::uint64_t footprint_of(const Machine& machine) {
    std::uint64_t hash = 0xcbf29ce484222325;
    const auto mix = [&hash](std::uint64_t value) {
        hash = (hash ^ value) * 0x9e3779b97f4a7c15;
        hash ^= hash >> 29;
    };
    for (std::size_t at = 0; at != machine.depth(); ++at) {
        const Step& step = machine.step_at(at);
        mix(std::uint64_t{step.touch.location} << 16 | std::uint64_t{step.actor} << 8 |
            static_cast<std::uint64_t>(step.touch.kind));
        mix(machine.portable(step.operand));
        mix(machine.portable(step.result));
    }
    if (machine.violation())
        mix(std::hash<std::string>()(machine.violation()->text));
    return hash;
}

[[nodiscard]] std::vector<Scheduled> executions(const Program& program,
                                                const MachineOptions& options, Strategy strategy,
                                                std::uint64_t most) {
    std::vector<Scheduled> all;
    SearchOptions search_options;
    search_options.most_executions = most;
    search_options.random_executions = most;
    search_options.on_violation = OnViolation::go_on;
    const auto note = [&](const Machine& at) {
        all.push_back({schedule_of(at), footprint_of(at)});
    };
    search_options.visit = note;
    search_options.visit_violation = [&](const Machine& at, const Violation&) { note(at); };
    Machine machine(program, options);
    static_cast<void>(search(strategy, machine, search_options));
    return all;
}

class EveryScenario : public ::testing::TestWithParam<std::tuple<std::size_t, MemoryModelKind>> {
  protected:
    const scenarios::Scenario& scenario = scenarios::all()[std::get<0>(GetParam())];

    [[nodiscard]] Program program() const {
        const auto configuration = scenarios::complete(scenario, {});
        MOAT_CHECK(configuration.has_value(), "a scenario's presets are a configuration");
        return scenario.program(*configuration);
    }

    [[nodiscard]] static MachineOptions options(Restoration restoration) {
        MachineOptions options;
        options.memory_model = std::get<1>(GetParam());
        options.restoration = restoration;
        options.most_steps = 1000;
        return options;
    }
};

TEST_P(EveryScenario, takes_the_same_steps_again) {
    constexpr std::uint64_t sample = sanitized ? 5 : 200;
    for (const Strategy strategy : {Strategy::dpor, Strategy::random, Strategy::pct}) {
        SCOPED_TRACE(name(strategy));
        const Program it = program();
        const auto first = executions(it, options(default_restoration), strategy, sample);
        const auto second = executions(it, options(Restoration::replay), strategy, sample);
        ASSERT_FALSE(first.empty());
        ASSERT_EQ(first.size(), second.size());
        Machine fresh(it, options(default_restoration));
        for (std::size_t i = 0; i != first.size(); ++i) {
            SCOPED_TRACE("execution " + std::to_string(i));
            ASSERT_EQ(first[i].schedule, second[i].schedule);
            ASSERT_EQ(first[i].footprint_of, second[i].footprint_of);
            fresh.start();
            for (const Choice& choice : first[i].schedule)
                fresh.step(choice.actor, choice.option);
            if (fresh.enabled().empty())
                judge(fresh);
            ASSERT_EQ(footprint_of(fresh), first[i].footprint_of);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(
    All, EveryScenario,
    ::testing::Combine(::testing::Range(std::size_t{0}, scenarios::all().size()),
                       ::testing::Values(MemoryModelKind::sc, MemoryModelKind::tso,
                                         MemoryModelKind::c11)),
    [](const auto& tested) {
        std::string text = scenarios::all()[std::get<0>(tested.param)].name;
        for (char& each : text)
            if (each == '-')
                each = '_';
        return text.append("_").append(name(std::get<1>(tested.param)));
    });

} // namespace
} // namespace moat::explore::testing
