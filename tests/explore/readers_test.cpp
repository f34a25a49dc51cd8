// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped read sections and grace periods under every schedule of a few threads.
#include "lab/scenarios/scenario.hpp"
#include "searched.hpp"

#include <gtest/gtest.h>

namespace moat::explore::testing {
namespace {

class GracePeriods : public ::testing::TestWithParam<std::tuple<const char*, MemoryModelKind>> {};

TEST_P(GracePeriods, are_proved_for_a_few_threads) {
    const auto& [configuration, model] = GetParam();
    expect_proved("readers", scenarios::parse(configuration), model);
}

INSTANTIATE_TEST_SUITE_P(
    Configurations, GracePeriods,
    ::testing::Combine(
        ::testing::Values("slots=listed", "waits=1", "readers=2 sections=1",
                          "readers=2 sections=1 slots=listed", "reclaimers=2 sections=1"),
        ::testing::Values(MemoryModelKind::sc, MemoryModelKind::tso, MemoryModelKind::c11)));

INSTANTIATE_TEST_SUITE_P(
    Crowded, GracePeriods,
    ::testing::Values(std::tuple("readers=2 sections=1 slots=listed waits=1", MemoryModelKind::tso),
                      std::tuple("reclaimers=2 sections=1 slots=listed", MemoryModelKind::sc)));

} // namespace
} // namespace moat::explore::testing
