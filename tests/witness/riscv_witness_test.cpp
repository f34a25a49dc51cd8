// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat's RISC-V tables, walked by unicorn, without groups (Svnapot) and uncached leaves (Svpbmt),
// which it does not support.
#include "riscv_unicorn_witness.hpp"
#include "witness_suite.hpp"

#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using formats::RiscvConfig;

MOAT_WITNESSES(Riscv, WitnessTest, RiscvUnicornWitness<RiscvConfig{.levels = 3}>,
               RiscvUnicornWitness<RiscvConfig{.levels = 4}>,
               RiscvUnicornWitness<RiscvConfig{.levels = 5}>);

using RiscvSvaduWitness =
    RiscvUnicornWitness<RiscvConfig{.levels = 4, .accessed_dirty = FlagUpdate::hardware}>;
MOAT_WITNESSES(RiscvSvadu, WitnessTest, RiscvSvaduWitness);
MOAT_WITNESSES(RiscvSvadu, FlagWitnessTest, RiscvSvaduWitness);

} // namespace
} // namespace moat::tests
