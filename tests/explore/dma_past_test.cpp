// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The rings of past mappings under every schedule of a few threads, and each memory model.
#include "lab/scenarios/scenario.hpp"
#include "searched.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <gtest/gtest.h>
#include <tuple>

namespace moat::explore::testing {
namespace {

/// The executions of a full search, by memory model.
struct PastConfigured {
    const char* text;
    std::uint64_t sc;
    std::uint64_t tso;
    std::uint64_t c11;
};

constexpr std::array past_configurations = {
    PastConfigured{"drivers=2 queries=1 turns=1 capacity=4", 1018, 1018, 1314},
    PastConfigured{"drivers=2 queries=0 turns=2 capacity=1", 50, 50, 50},
    PastConfigured{"drivers=3 queries=0 turns=1 capacity=1", 1590, 1590, 1590},
};

class DmaPast : public ::testing::TestWithParam<std::tuple<std::size_t, MemoryModelKind>> {};

TEST_P(DmaPast, indexes_the_mappings_of_a_page_in_order) {
    const auto& [number, model] = GetParam();
    const PastConfigured& configured = past_configurations[number];
    const std::uint64_t searched =
        expect_proved("dma-past", scenarios::parse(configured.text), model);
    const std::uint64_t executions = model == MemoryModelKind::sc    ? configured.sc
                                     : model == MemoryModelKind::tso ? configured.tso
                                                                     : configured.c11;
    EXPECT_EQ(searched, std::min(executions, most_searched));
}

INSTANTIATE_TEST_SUITE_P(
    Configurations, DmaPast,
    ::testing::Combine(::testing::Range<std::size_t>(0, past_configurations.size()),
                       ::testing::Values(MemoryModelKind::sc, MemoryModelKind::tso,
                                         MemoryModelKind::c11)));

} // namespace
} // namespace moat::explore::testing
