// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat's x86-64 tables, walked by QEMU's software MMU and, if available, by KVM.
#include "witness_suite.hpp"
#include "x86_kvm_witness.hpp"
#include "x86_qemu_witness.hpp"

#include <gtest/gtest.h>

namespace moat::tests {
namespace {

MOAT_WITNESSES(Qemu, WitnessTest, X86QemuWitness<4>, X86QemuWitness<5>);
MOAT_WITNESSES(Qemu, FlagWitnessTest, X86QemuWitness<4>, X86QemuWitness<5>);

MOAT_WITNESSES(Kvm, WitnessTest, X86KvmWitness<4>, X86KvmWitness<5>);
MOAT_WITNESSES(Kvm, FlagWitnessTest, X86KvmWitness<4>, X86KvmWitness<5>);

} // namespace
} // namespace moat::tests
