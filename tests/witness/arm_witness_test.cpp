// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Our Arm tables of both stages, walked by unicorn. A group is walked entry by entry, since it
// ignores the contiguous bit; hardware updates of flags are not asked about: it makes none.
#include "arm_unicorn_witness.hpp"
#include "witness_suite.hpp"

#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using formats::ArmConfig;

using ArmStage1Witnesses =
    ::testing::Types<ArmStage1UnicornWitness<ArmConfig{}>,
                     ArmStage1UnicornWitness<ArmConfig{.input_bits = 39}>,
                     ArmStage1UnicornWitness<ArmConfig{.granule_lg2 = 14}>,
                     ArmStage1UnicornWitness<ArmConfig{.granule_lg2 = 14, .input_bits = 47}>,
                     ArmStage1UnicornWitness<ArmConfig{.granule_lg2 = 16}>,
                     ArmStage1UnicornWitness<ArmConfig{.granule_lg2 = 16, .input_bits = 42}>>;
INSTANTIATE_TYPED_TEST_SUITE_P(ArmStage1, WitnessTest, ArmStage1Witnesses, WitnessName);

// The processor's physical addresses, and so intermediate ones, have 44 bits.
using ArmStage2Witnesses =
    ::testing::Types<ArmStage2UnicornWitness<ArmConfig{.input_bits = 40}>,
                     ArmStage2UnicornWitness<ArmConfig{.input_bits = 43}>,
                     ArmStage2UnicornWitness<ArmConfig{.input_bits = 44}>,
                     ArmStage2UnicornWitness<ArmConfig{.granule_lg2 = 14, .input_bits = 40}>,
                     ArmStage2UnicornWitness<ArmConfig{.granule_lg2 = 16, .input_bits = 42}>>;
INSTANTIATE_TYPED_TEST_SUITE_P(ArmStage2, WitnessTest, ArmStage2Witnesses, WitnessName);

} // namespace
} // namespace moat::tests
