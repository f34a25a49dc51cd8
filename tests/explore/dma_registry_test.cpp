// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The DMA API's shipped registry under every schedule of a few threads, and each memory model.
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
struct Configured {
    const char* text;
    std::uint64_t sc;
    std::uint64_t tso;
    std::uint64_t c11;
};

constexpr std::array configurations = {
    Configured{"adders=1 searchers=1 leaves=same", 57, 57, 95},
    Configured{"adders=1 searchers=1 leaves=two", 230, 230, 445},
    Configured{"adders=2 searchers=1 leaves=two", 6487, 6487, 19275},
};

class DmaRegistry : public ::testing::TestWithParam<std::tuple<std::size_t, MemoryModelKind>> {};

TEST_P(DmaRegistry, finds_every_live_mapping) {
    const auto& [number, model] = GetParam();
    const Configured& configured = configurations[number];
    const std::uint64_t searched =
        expect_proved("dma-registry", scenarios::parse(configured.text), model);
    const std::uint64_t executions = model == MemoryModelKind::sc    ? configured.sc
                                     : model == MemoryModelKind::tso ? configured.tso
                                                                     : configured.c11;
    EXPECT_EQ(searched, std::min(executions, most_searched));
}

INSTANTIATE_TEST_SUITE_P(Configurations, DmaRegistry,
                         ::testing::Combine(::testing::Range<std::size_t>(0, configurations.size()),
                                            ::testing::Values(MemoryModelKind::sc,
                                                              MemoryModelKind::tso,
                                                              MemoryModelKind::c11)));

} // namespace
} // namespace moat::explore::testing
