// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat's x86-64 tables, walked by QEMU's software MMU and, if available, by KVM.
#include "flag_witness_suite.hpp"
#include "witness_suite.hpp"
#include "x86_kvm_witness.hpp"
#include "x86_qemu_witness.hpp"

#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using QemuWitnesses = ::testing::Types<X86QemuWitness<4>, X86QemuWitness<5>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Qemu, WitnessTest, QemuWitnesses, WitnessName);
INSTANTIATE_TYPED_TEST_SUITE_P(Qemu, FlagWitnessTest, QemuWitnesses, WitnessName);

using KvmWitnesses = ::testing::Types<X86KvmWitness<4>, X86KvmWitness<5>>;
INSTANTIATE_TYPED_TEST_SUITE_P(Kvm, WitnessTest, KvmWitnesses, WitnessName);
INSTANTIATE_TYPED_TEST_SUITE_P(Kvm, FlagWitnessTest, KvmWitnesses, WitnessName);

} // namespace
} // namespace moat::tests
