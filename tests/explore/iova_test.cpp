// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped IOVA allocator under every schedule of two threads. The counts are asserted, since a
// search that omits schedules looks like a fast one.
#include "lab/explore/explorer.hpp"
#include "lab/scenarios/scenario.hpp"
#include "searched.hpp"

#include <algorithm>
#include <gtest/gtest.h>
#include <string>

namespace moat::explore::testing {
namespace {

struct Case {
    const char* name;
    MemoryModelKind model;
    std::uint64_t executions;
};

class IovaAllocator : public ::testing::TestWithParam<Case> {};

TEST_P(IovaAllocator, is_proved) {
    const Case& tested = GetParam();
    const scenarios::Scenario* const scenario = scenarios::find("iova");
    const auto configuration = scenarios::complete(*scenario, {{"case", tested.name}});
    ASSERT_TRUE(configuration.has_value());
    ExploreOptions options;
    options.machine.memory_model = tested.model;
    options.most_executions = most_searched;
    const Report report = explore::explore(scenario->program(*configuration), options);
    expect_proved(report);
    EXPECT_EQ(report.tally.executions, std::min(tested.executions, most_searched));
}

constexpr auto sc_model = MemoryModelKind::sc;
constexpr auto c11_model = MemoryModelKind::c11;

INSTANTIATE_TEST_SUITE_P(
    Cases, IovaAllocator,
    ::testing::Values(Case{"remote", sc_model, 91}, Case{"remote", c11_model, 99},
                      Case{"exit", sc_model, 54}, Case{"exit", c11_model, 54},
                      Case{"deferred", sc_model, 3701}, Case{"drain", sc_model, 289},
                      Case{"drain", c11_model, 474}, Case{"quarantine", sc_model, 236},
                      Case{"quarantine", c11_model, 263}),
    [](const auto& tested) {
        return std::string(tested.param.name) + "_" + std::string(name(tested.param.model));
    });

} // namespace
} // namespace moat::explore::testing
