// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The suites that a test program instantiates with its witnesses; witness_suite.cpp has their
// cases.
#pragma once

#include "witness.hpp"
#include "witnessed_table.hpp"

#include <cstdint>
#include <gtest/gtest.h>
#include <memory>

namespace moat::tests {

/// For every witness.
class WitnessTest : public ::testing::TestWithParam<WitnessUnderTest> {
  protected:
    static constexpr std::uint64_t seed = 20260307;

    void SetUp() override;

    [[nodiscard]] WitnessedTable table(std::uint64_t of_seed = seed) const {
        return {GetParam().format, *witness, of_seed};
    }

    std::unique_ptr<Witness> witness;
};

/// For those that update flags as the format's hardware does.
class FlagWitnessTest : public WitnessTest {};

} // namespace moat::tests
