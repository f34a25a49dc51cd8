// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped queues of the IOMMUs' drivers under every schedule of two threads and a unit. What
// must fail is in mutants_test.cpp.
#include "lab/scenarios/scenario.hpp"
#include "searched.hpp"

#include <algorithm>
#include <cctype>
#include <gtest/gtest.h>
#include <string>

namespace moat::explore::testing {
namespace {

struct Queue {
    const char* scenario;
    const char* configuration;
    MemoryModelKind model;
};

void PrintTo(const Queue& queue, std::ostream* out) {
    *out << queue.scenario << " " << queue.configuration;
}

class UnitQueues : public ::testing::TestWithParam<Queue> {};

TEST_P(UnitQueues, are_proved) {
    const Queue& queue = GetParam();
    expect_proved(queue.scenario, scenarios::parse(queue.configuration), queue.model);
}

using enum MemoryModelKind;

INSTANTIATE_TEST_SUITE_P(
    Table, UnitQueues,
    ::testing::Values(Queue{"vtd-queue", "", sc}, Queue{"vtd-queue", "", tso},
                      Queue{"vtd-queue", "", c11}, Queue{"vtd-queue", "batch=3", sc},
                      Queue{"vtd-queue", "runs=2", sc}, Queue{"vtd-queue", "failure=reported", sc},
                      Queue{"vtd-queue", "failure=silent", sc}, Queue{"amd-commands", "", sc},
                      Queue{"amd-commands", "", tso}, Queue{"amd-commands", "", c11},
                      Queue{"amd-commands", "batch=3", sc},
                      Queue{"amd-commands", "failure=reported", sc},
                      Queue{"amd-commands", "failure=silent", sc}, Queue{"smmu-commands", "", sc},
                      Queue{"smmu-commands", "", tso}, Queue{"smmu-commands", "", c11},
                      Queue{"smmu-commands", "batch=2", sc},
                      Queue{"smmu-commands", "failure=reported", sc},
                      Queue{"smmu-commands", "failure=silent", sc}, Queue{"smmu-events", "", sc},
                      Queue{"smmu-events", "", tso}, Queue{"smmu-events", "takes=1", c11},
                      Queue{"virtio-requests", "", sc}, Queue{"virtio-requests", "", c11},
                      Queue{"virtio-requests", "failure=reported", sc},
                      Queue{"virtio-requests", "failure=silent", sc}),
    [](const auto& tested) {
        std::string text = tested.param.scenario;
        text.append("_").append(tested.param.configuration);
        std::ranges::replace_if(
            text, [](unsigned char each) { return std::isalnum(each) == 0; }, '_');
        return text.append("_").append(name(tested.param.model));
    });

} // namespace
} // namespace moat::explore::testing
