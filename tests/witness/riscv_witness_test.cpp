// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat's RISC-V tables, walked by unicorn, without groups (Svnapot) and uncached leaves (Svpbmt),
// which it does not support.
#include "flag_witness_suite.hpp"
#include "riscv_unicorn_witness.hpp"
#include "witness_suite.hpp"

#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using formats::RiscvConfig;

using RiscvWitnesses = ::testing::Types<RiscvUnicornWitness<RiscvConfig{.levels = 3}>,
                                        RiscvUnicornWitness<RiscvConfig{.levels = 4}>,
                                        RiscvUnicornWitness<RiscvConfig{.levels = 5}>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Riscv, WitnessTest, RiscvWitnesses, WitnessName);

using RiscvSvaduWitnesses = ::testing::Types<
    RiscvUnicornWitness<RiscvConfig{.levels = 4, .accessed_dirty = FlagUpdate::hardware}>>;
INSTANTIATE_TYPED_TEST_SUITE_P(RiscvSvadu, WitnessTest, RiscvSvaduWitnesses, WitnessName);
INSTANTIATE_TYPED_TEST_SUITE_P(RiscvSvadu, FlagWitnessTest, RiscvSvaduWitnesses, WitnessName);

} // namespace
} // namespace moat::tests
