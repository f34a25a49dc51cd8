// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped flush queue under every schedule of a few threads, and each memory model.
#include "lab/scenarios/scenario.hpp"
#include "searched.hpp"

#include <gtest/gtest.h>

namespace moat::explore::testing {
namespace {

class FlushQueue : public ::testing::TestWithParam<std::tuple<const char*, MemoryModelKind>> {};

TEST_P(FlushQueue, is_proved_for_a_few_threads) {
    const auto& [configuration, model] = GetParam();
    expect_proved("iova-flush", scenarios::parse(configuration), model);
}

INSTANTIATE_TEST_SUITE_P(
    Configurations, FlushQueue,
    ::testing::Combine(
        ::testing::Values("queuers=1 flushers=1", "queuers=2 flushers=1", "queuers=1 flushers=2",
                          "queuers=1 ranges=5 flushers=1", "queuers=1 ranges=2 flushers=2",
                          "queuers=1 flushers=0 alarms=1", "queuers=2 flushers=0 alarms=1",
                          "queuers=1 flushers=0 alarms=2"),
        ::testing::Values(MemoryModelKind::sc, MemoryModelKind::tso, MemoryModelKind::c11)));

} // namespace
} // namespace moat::explore::testing
