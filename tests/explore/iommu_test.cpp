// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped software IOMMU under every schedule of a device and a driver that unmaps its buffer.
#include "lab/explore/explorer.hpp"
#include "lab/scenarios/scenario.hpp"
#include "traces.hpp"

#include <algorithm>
#include <gtest/gtest.h>
#include <string>

namespace moat::explore::testing {
namespace {

struct Counted {
    const char* driver;
    MemoryModelKind model;
    std::uint64_t executions;

    friend std::ostream& operator<<(std::ostream& out, const Counted& counted) {
        return out << counted.driver << " under " << name(counted.model);
    }
};

class SoftIommu : public ::testing::TestWithParam<Counted> {};

TEST_P(SoftIommu, what_the_driver_took_is_left_alone) {
    const scenarios::Scenario* const scenario = scenarios::find("iommu");
    const auto configuration = scenarios::complete(*scenario, {{"driver", GetParam().driver}});
    ASSERT_TRUE(configuration.has_value());
    ExploreOptions options;
    options.machine.memory_model = GetParam().model;
    const Report report = explore::explore(scenario->program(*configuration), options);
    EXPECT_FALSE(report.found) << report.found->violation.text;
    EXPECT_TRUE(report.exhausted);
    EXPECT_EQ(report.tally.executions, GetParam().executions);
}

INSTANTIATE_TEST_SUITE_P(
    Models, SoftIommu,
    ::testing::Values(
        Counted("unmap", MemoryModelKind::sc, 10), Counted("unmap", MemoryModelKind::tso, 10),
        Counted("unmap", MemoryModelKind::c11, 25), Counted("unmap-table", MemoryModelKind::sc, 10),
        Counted("unmap-table", MemoryModelKind::tso, 10),
        Counted("unmap-table", MemoryModelKind::c11, 25), Counted("defer", MemoryModelKind::sc, 10),
        Counted("defer", MemoryModelKind::tso, 10), Counted("defer", MemoryModelKind::c11, 25),
        Counted("poison", MemoryModelKind::sc, 12), Counted("poison", MemoryModelKind::tso, 12),
        Counted("poison", MemoryModelKind::c11, 40), Counted("lend", MemoryModelKind::sc, 22),
        Counted("lend", MemoryModelKind::tso, 22), Counted("lend", MemoryModelKind::c11, 64)),
    [](const auto& tested) {
        std::string text = tested.param.driver;
        std::ranges::replace(text, '-', '_');
        return text + "_" + std::string(name(tested.param.model));
    });

} // namespace
} // namespace moat::explore::testing
