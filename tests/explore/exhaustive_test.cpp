// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every small configuration of the PUD slot whose schedules can be enumerated: reductions find the
// final states and traces of the naive search, and symmetry changes neither.
#include "lab/scenarios/pud_slot.hpp"
#include "traces.hpp"

#include <gtest/gtest.h>
#include <string>

namespace moat::explore::testing {
namespace {

using scenarios::pud_slot::Configuration;
using scenarios::pud_slot::program;
using scenarios::pud_slot::Variant;

constexpr Variant variants[] = {Variant::old, Variant::two_load, Variant::two_load_reversed,
                                Variant::reload, Variant::snapshot};

/// Configurations with more schedules count as too large to be enumerated here.
[[nodiscard]] constexpr std::uint64_t most_schedules(MemoryModelKind model) {
    return sanitized ? 50 : model == MemoryModelKind::sc ? 10000 : 700;
}

constexpr std::uint64_t most_traced = sanitized ? 50 : 500;

[[nodiscard]] std::string text(const Configuration& it) {
    return std::string(scenarios::pud_slot::name(it.variant)) + " W" + std::to_string(it.walkers) +
           " F" + std::to_string(it.faulters) + " Z" + std::to_string(it.zappers) + " P" +
           std::to_string(it.populators) + " K" + std::to_string(it.iterations) + " attempts " +
           std::to_string(it.attempts);
}

template <class Visit>
void for_each_configuration(Variant variant, Visit visit) {
    for (unsigned walkers = 1; walkers != 3; ++walkers)
        for (unsigned faulters = 0; faulters != 3; ++faulters)
            for (unsigned zappers = 0; zappers != 3; ++zappers)
                for (unsigned populators = 0; populators != 2; ++populators)
                    for (unsigned iterations = 1; iterations != (sanitized ? 2 : 4); ++iterations)
                        for (unsigned attempts : {1U, 3U})
                            if (iterations == 1 || faulters + zappers != 0)
                                visit(Configuration{variant, walkers, faulters, zappers, populators,
                                                    iterations, attempts});
}

class Exhaustive : public ::testing::TestWithParam<std::tuple<Variant, MemoryModelKind>> {
  protected:
    [[nodiscard]] static MachineOptions options(Symmetry symmetry) {
        MachineOptions options;
        options.memory_model = std::get<1>(GetParam());
        options.symmetry = symmetry;
        return options;
    }
};

TEST_P(Exhaustive, reductions_find_all_that_naive_finds) {
    unsigned compared = 0;
    unsigned too_large = 0;
    for_each_configuration(std::get<0>(GetParam()), [&](const Configuration& configuration) {
        if (HasFatalFailure())
            return;
        SCOPED_TRACE(text(configuration));
        const Program it = program(configuration);
        for (const Symmetry symmetry : {Symmetry::ignored, Symmetry::ordered}) {
            const auto naive = see(it, Strategy::naive, options(symmetry), Collect::states,
                                   most_schedules(std::get<1>(GetParam())));
            if (!naive.exhausted) {
                ++too_large;
                return;
            }
            const Collect what =
                naive.executions <= most_traced ? Collect::traces_too : Collect::states;
            const Seen dpor = see(it, Strategy::dpor, options(symmetry), what);
            ASSERT_TRUE(dpor.exhausted);
            ASSERT_EQ(dpor.violating != 0, naive.violating != 0);
            ++compared;
            if (naive.violating != 0)
                continue;
            ASSERT_EQ(dpor.final_states, naive.final_states);
            if (what == Collect::states)
                continue;
            const Seen traced = see(it, Strategy::naive, options(symmetry), what);
            ASSERT_EQ(dpor.traces, traced.traces);
            ASSERT_EQ(dpor.executions, traced.traces.size());
        }
    });
    EXPECT_GE(compared, sanitized ? 2U : 10U);
    RecordProperty("compared", std::to_string(compared));
    RecordProperty("too_large", std::to_string(too_large));
}

TEST_P(Exhaustive, symmetry_changes_no_verdict_and_no_final_state) {
    unsigned compared = 0;
    std::uint64_t with = 0;
    std::uint64_t without = 0;
    for_each_configuration(std::get<0>(GetParam()), [&](const Configuration& configuration) {
        if (HasFatalFailure())
            return;
        SCOPED_TRACE(text(configuration));
        const Program it = program(configuration);
        const Seen all = see(it, Strategy::dpor, options(Symmetry::ignored), Collect::states,
                             most_schedules(std::get<1>(GetParam())) / 5);
        if (!all.exhausted)
            return;
        const Seen ordered = see(it, Strategy::dpor, options(Symmetry::ordered), Collect::states);
        ASSERT_EQ(ordered.violating != 0, all.violating != 0);
        ++compared;
        if (all.violating != 0)
            return;
        ASSERT_EQ(ordered.final_states, all.final_states);
        ASSERT_LE(ordered.executions, all.executions);
        with += ordered.executions;
        without += all.executions;
    });
    RecordProperty("executions_with", std::to_string(with));
    RecordProperty("executions_without", std::to_string(without));
    RecordProperty("compared", std::to_string(compared));
    EXPECT_GE(compared, 2U);
    // A sanitizer's few executions may leave nothing for symmetry to save.
    EXPECT_TRUE(with < without || sanitized) << with << " of " << without;
}

INSTANTIATE_TEST_SUITE_P(PudSlot, Exhaustive,
                         ::testing::Combine(::testing::ValuesIn(variants),
                                            ::testing::Values(MemoryModelKind::sc,
                                                              MemoryModelKind::tso,
                                                              MemoryModelKind::c11)),
                         [](const auto& tested) {
                             std::string text(scenarios::pud_slot::name(std::get<0>(tested.param)));
                             for (char& each : text)
                                 if (each == '-')
                                     each = '_';
                             return text.append("_").append(name(std::get<1>(tested.param)));
                         });

} // namespace
} // namespace moat::explore::testing
