// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped address space under every schedule of a few threads: each case is proved, and each
// variant without one of the steps is caught.
#include "explore/searched.hpp"
#include "lab/explore/explorer.hpp"
#include "lab/scenarios/scenario.hpp"

#include <gtest/gtest.h>
#include <string>

namespace moat::explore::testing {
namespace {

[[nodiscard]] Program program_of(const std::string& configuration) {
    const scenarios::Scenario* const scenario = scenarios::find("address-space");
    const auto complete = scenarios::complete(*scenario, scenarios::parse(configuration));
    MOAT_CHECK(complete.has_value(), "the scenario has these parameters");
    return scenario->program(*complete);
}

std::string name_of(const std::string& configuration) {
    std::string text = configuration;
    for (char& each : text)
        if (std::isalnum(static_cast<unsigned char>(each)) == 0)
            each = '_';
    return text;
}

class Right : public ::testing::TestWithParam<const char*> {};

TEST_P(Right, is_proved) {
    ExploreOptions options;
    options.most_executions = most_searched;
    const Report report = explore::explore(program_of(GetParam()), options);
    expect_proved(report);
}

/// Memory models weaker than one order of all, if that takes below a second.
class RightWeaker : public ::testing::TestWithParam<std::tuple<const char*, MemoryModelKind>> {};

TEST_P(RightWeaker, is_proved) {
    const auto& [configuration, model] = GetParam();
    ExploreOptions options;
    options.machine.memory_model = model;
    options.most_executions = most_searched;
    const Report report = explore::explore(program_of(configuration), options);
    expect_proved(report);
}

INSTANTIATE_TEST_SUITE_P(
    AddressSpace, RightWeaker,
    ::testing::Combine(::testing::Values("case=T1", "case=T2", "case=T4", "case=T5", "case=T6",
                                         "case=T7", "case=T8", "case=unmap", "case=reuse",
                                         "case=readers"),
                       ::testing::Values(MemoryModelKind::tso, MemoryModelKind::c11)),
    [](const auto& tested) {
        return name_of(std::get<0>(tested.param))
            .append("_")
            .append(name(std::get<1>(tested.param)));
    });

INSTANTIATE_TEST_SUITE_P(AddressSpace, Right,
                         ::testing::Values("case=T1", "case=T2", "case=T3", "case=T4", "case=T5",
                                           "case=T6", "case=T7", "case=T8", "case=T9", "case=unmap",
                                           "case=reuse", "case=pte", "case=revoke", "case=readers",
                                           "case=container", "case=container-read",
                                           "case=container-all",
                                           // With two threads the reporter's check is right, and
                                           // the merged fix with more.
                                           "case=T1 variant=two-load", "case=T2 variant=reload"),
                         [](const auto& tested) { return name_of(tested.param); });

struct Mutant {
    const char* configuration;
    const char* found_by; ///< the start of its report
    ViolationKind kind = ViolationKind::check;
    Strategy strategy = Strategy::dpor;
};

void PrintTo(const Mutant& mutant, std::ostream* out) {
    *out << mutant.configuration;
}

constexpr Mutant mutants[] = {
    {"case=T1 variant=old", "CHECK failed: a table is read from memory that holds tables"},
    {"case=T2 variant=old", "CHECK failed: a table is read from memory that holds tables"},
    {"case=T2 variant=two-load", "CHECK failed: a table is read from memory that holds tables"},
    {"case=T3 variant=two-load-reversed",
     "CHECK failed: a table is read from memory that holds tables"},
    {"case=T4 variant=sticky-action", "every address is visited once"},
    {"case=T5 variant=look-again", "an installed leaf is visited once"},
    {"case=T6 variant=unbounded-retry", "all who can move", ViolationKind::livelock,
     Strategy::random},
    {"case=T7 variant=look-again", ""},
    {"case=T7 variant=maps-late", ""},
    {"case=T8 variant=frees-shared-table", "CHECK failed: nothing is mapped in a gap"},
    {"case=T9 variant=table-goes", "a table stays while a walker is inside"},
    {"case=unmap variant=unasked", "no leaf is left where nothing is mapped"},
    {"case=reuse variant=reuses-first", "a frame is freed while a second MMU still maps it"},
    {"case=pte variant=looks-before-lock",
     "CHECK failed: a leaf that fits into a hole can be mapped"},
    {"case=revoke variant=revokes-after-zap", "nothing "},
    {"case=readers variant=revokes-after-zap", "no"},
    {"case=container variant=untold", "no device reaches a revoked region"},
    {"case=container-all variant=untold", "no device reaches a revoked region"},
};

class Mutants : public ::testing::TestWithParam<Mutant> {};

TEST_P(Mutants, is_caught) {
    ExploreOptions options;
    options.strategy = GetParam().strategy;
    options.most_executions = sanitized_executions;
    options.minimises = false;
    const Report report = explore::explore(program_of(GetParam().configuration), options);
    ASSERT_TRUE(report.found) << report.tally.executions << " executions and nothing found";
    EXPECT_EQ(name(report.found->violation.kind), name(GetParam().kind));
    EXPECT_TRUE(report.found->violation.text.starts_with(GetParam().found_by))
        << report.found->violation.text;
    RecordProperty("executions", std::to_string(report.tally.executions + 1));
}

INSTANTIATE_TEST_SUITE_P(AddressSpace, Mutants, ::testing::ValuesIn(mutants),
                         [](const auto& tested) { return name_of(tested.param.configuration); });

} // namespace
} // namespace moat::explore::testing
