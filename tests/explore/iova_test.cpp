// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped IOVA allocator under every schedule of two threads. The counts are asserted, since a
// search that omits schedules looks like a fast one.
#include "lab/scenarios/scenario.hpp"
#include "searched.hpp"

#include <algorithm>
#include <gtest/gtest.h>
#include <string>

namespace moat::explore::testing {
namespace {

struct Case {
    const char* name;
    const char* range;
    MemoryModelKind model;
    std::uint64_t executions;
};

class IovaAllocator : public ::testing::TestWithParam<Case> {};

TEST_P(IovaAllocator, is_proved) {
    const Case& tested = GetParam();
    EXPECT_EQ(expect_proved("iova", {{"case", tested.name}, {"range", tested.range}}, tested.model),
              std::min(tested.executions, most_searched));
}

constexpr auto sc_model = MemoryModelKind::sc;
constexpr auto c11_model = MemoryModelKind::c11;

INSTANTIATE_TEST_SUITE_P(
    Cases, IovaAllocator,
    ::testing::Values(
        Case{"remote", "small", sc_model, 91}, Case{"remote", "small", c11_model, 99},
        Case{"remote", "large", sc_model, 63}, Case{"remote", "large", c11_model, 80},
        Case{"exit", "small", sc_model, 54}, Case{"exit", "small", c11_model, 54},
        Case{"exit", "large", sc_model, 34}, Case{"exit", "large", c11_model, 34},
        Case{"deferred", "aligned", sc_model, 1312}, Case{"drain", "small", sc_model, 5791},
        Case{"drain", "large", sc_model, 1860}, Case{"drain", "large", c11_model, 3984},
        Case{"quarantine", "large", sc_model, 2818}, Case{"mixed", "aligned", sc_model, 88},
        Case{"mixed", "aligned", c11_model, 88}),
    [](const auto& tested) {
        return std::string(tested.param.name) + "_" + tested.param.range + "_" +
               std::string(name(tested.param.model));
    });

} // namespace
} // namespace moat::explore::testing
