// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU as a machine: its bus, its memory, its interrupts, its unit.
#include "qemu.hpp"

namespace moat::tests {
namespace {

using namespace moat::machine;
using namespace moat::literals;

class QemuMachineTest : public QemuTest {};

TEST_F(QemuMachineTest, functions_are_found_and_their_registers_read) {
    start({.devices = {"edu,addr=4"}});
    if (!machine)
        return;
    const Bdf edu = find(0x1234, 0x11e8);
    EXPECT_EQ(edu, Bdf(0, 4, 0));
    auto function = machine->open(edu);
    ASSERT_TRUE(function) << function.error();
    auto registers = (*function)->bar(0);
    ASSERT_TRUE(registers) << registers.error();
    EXPECT_EQ((*registers)->size(), 1_MiB);
    EXPECT_EQ((*registers)->read32(0), 0x010000edU);
    (*registers)->write32(4, 0x12345678);
    EXPECT_EQ((*registers)->read32(4), ~0x12345678U);
    EXPECT_EQ(machine->open(edu).error().code(), ErrorCode::busy);
    EXPECT_EQ(machine->open(Bdf(0, 9, 0)).error().code(), ErrorCode::not_found);
    EXPECT_EQ((*function)->bar(1).error().code(), ErrorCode::not_found);
    EXPECT_TRUE(machine->health());
}

} // namespace
} // namespace moat::tests
