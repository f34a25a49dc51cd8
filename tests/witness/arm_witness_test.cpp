// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat's Arm tables of both stages, walked by unicorn. It ignores the contiguous bit and walks a
// group entry by entry; it updates no flags, so the test covers none.
#include "arm_unicorn_witness.hpp"
#include "witness_suite.hpp"

#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using formats::ArmConfig;

MOAT_WITNESSES(ArmStage1, WitnessTest, ArmStage1UnicornWitness<ArmConfig{}>,
               ArmStage1UnicornWitness<ArmConfig{.input_bits = 39}>,
               ArmStage1UnicornWitness<ArmConfig{.granule_lg2 = 14}>,
               ArmStage1UnicornWitness<ArmConfig{.granule_lg2 = 14, .input_bits = 47}>,
               ArmStage1UnicornWitness<ArmConfig{.granule_lg2 = 16}>,
               ArmStage1UnicornWitness<ArmConfig{.granule_lg2 = 16, .input_bits = 42}>);

// The processor has 44-bit physical addresses, and so intermediate ones.
MOAT_WITNESSES(ArmStage2, WitnessTest, ArmStage2UnicornWitness<ArmConfig{.input_bits = 40}>,
               ArmStage2UnicornWitness<ArmConfig{.input_bits = 43}>,
               ArmStage2UnicornWitness<ArmConfig{.input_bits = 44}>,
               ArmStage2UnicornWitness<ArmConfig{.granule_lg2 = 14, .input_bits = 40}>,
               ArmStage2UnicornWitness<ArmConfig{.granule_lg2 = 16, .input_bits = 42}>);

} // namespace
} // namespace moat::tests
