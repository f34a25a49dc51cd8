// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped software IOMMU under every schedule of a device and a driver that unmaps strictly.
#include "moat/explore/explorer.hpp"

#include "scenarios/scenario.hpp"
#include "traces.hpp"

#include <gtest/gtest.h>

namespace moat::explore::testing {
namespace {

using Counted = std::pair<MemoryModelKind, std::uint64_t>;

class SoftIommu : public ::testing::TestWithParam<Counted> {};

TEST_P(SoftIommu, a_strict_unmap_is_proved) {
    const scenarios::Scenario* const scenario = scenarios::find("iommu");
    const auto configuration = scenarios::complete(*scenario, {});
    ASSERT_TRUE(configuration.has_value());
    ExploreOptions options;
    options.machine.memory_model = GetParam().first;
    const Report report = explore::explore(scenario->program(*configuration), options);
    EXPECT_FALSE(report.found) << report.found->violation.text;
    EXPECT_TRUE(report.exhausted);
    EXPECT_EQ(report.tally.executions, GetParam().second);
}

INSTANTIATE_TEST_SUITE_P(Models, SoftIommu,
                         ::testing::Values(Counted(MemoryModelKind::sc, 23),
                                           Counted(MemoryModelKind::tso, 23),
                                           Counted(MemoryModelKind::c11, 122)),
                         [](const auto& tested) { return std::string(name(tested.param.first)); });

} // namespace
} // namespace moat::explore::testing
