// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU as a machine: its bus, its memory, its interrupts, its unit.
#include "moat/core/bits.hpp"

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

TEST_F(QemuMachineTest, finds_functions_behind_bridges) {
    start({.devices = {"pcie-root-port,id=outer,chassis=1,addr=3", "x3130-upstream,id=up,bus=outer",
                       "xio3130-downstream,id=inner,bus=up,chassis=2",
                       "nvme,drive=disk0,serial=x,bus=inner", "edu,addr=4"},
           .disks = {1_MiB}});
    if (!machine)
        return;
    const Bdf nvme = find(0x1b36, 0x0010);
    EXPECT_EQ(nvme, Bdf(3, 0, 0));
    auto function = *machine->open(nvme);
    auto registers = function->bar(0);
    ASSERT_TRUE(registers) << registers.error();
    constexpr std::uint32_t version_1_4 = 0x00010400;
    EXPECT_EQ((*registers)->read32(8), version_1_4);
    EXPECT_EQ(function->config().read16(pci::vendor_id), 0x1b36U) << "through three bridges";
    auto edu = *machine->open(find(0x1234, 0x11e8));
    EXPECT_EQ((*edu->bar(0))->read32(0), 0x010000edU) << "placed behind the bridge's window";
}

TEST_F(QemuMachineTest, memory_is_aligned_zeroed_and_comes_back) {
    start({.ram = 32_MiB});
    if (!machine)
        return;
    {
        const auto small = *machine->allocate(1_B);
        EXPECT_EQ(small.size(), 4_KiB);
        const auto large = *machine->allocate(4_MiB, 21);
        EXPECT_TRUE(is_aligned(large.physical().value(), 21));
        const auto next = *machine->allocate(8_KiB);
        EXPECT_FALSE(PhysicalRange(large.physical(), large.size())
                         .overlaps(PhysicalRange(next.physical(), next.size())));
        std::ranges::fill(large.bytes(), std::byte{1});
        EXPECT_EQ(machine->ram()[large.physical().value()], std::byte{1});
        EXPECT_EQ(machine->allocate(16_MiB).error().code(), ErrorCode::no_memory);
        EXPECT_EQ(machine->allocate(0_B).error().code(), ErrorCode::empty);
        EXPECT_EQ(machine->allocate(ByteCount(~std::uint64_t{0})).error().code(),
                  ErrorCode::no_memory);
    }
    const auto all = machine->allocate(16_MiB);
    ASSERT_TRUE(all) << "in one piece again";
    EXPECT_EQ(std::ranges::count(all->bytes(), std::byte{0}), 16 << 20);
}

TEST_F(QemuMachineTest, writes_are_posted_and_an_unmap_is_one_round_trip) {
    start({.devices = {"edu,addr=4"}});
    if (!machine)
        return;
    auto function = *machine->open(Bdf(0, 4, 0));
    Registers& registers = **function->bar(0);
    const std::uint64_t before = machine->qtest().round_trips();
    for (std::uint32_t i = 0; i != 50; ++i)
        registers.write32(4, i);
    EXPECT_EQ(machine->qtest().round_trips(), before);
    EXPECT_EQ(registers.read32(4), ~49U);
    EXPECT_EQ(machine->qtest().round_trips(), before + 1);
    for (std::uint32_t i = 0; i != 1000; ++i)
        registers.write32(4, i);
    EXPECT_EQ(registers.read32(4), ~999U) << "more than QEMU's socket holds answers of";
    const auto domain = *machine->create_domain();
    const auto memory = *machine->allocate(4_KiB);
    ASSERT_TRUE(domain->map(Iova(0x1000), 4_KiB, memory.physical(), read_write));
    const std::uint64_t mapped = machine->qtest().round_trips();
    ASSERT_TRUE(domain->unmap(Iova(0x1000), 4_KiB));
    EXPECT_EQ(machine->qtest().round_trips(), mapped + 1);
}

TEST_F(QemuMachineTest, limits_of_a_domain) {
    start({});
    if (!machine)
        return;
    const auto domain = *machine->create_domain();
    const auto map = [&](std::uint64_t at) {
        return domain->map(Iova(at), 4_KiB, PhysicalAddress(0x1000000), read_write);
    };
    EXPECT_EQ(map(bit(47)).error().code(), ErrorCode::out_of_range) << "for interrupts";
    EXPECT_EQ(map(0xfee00000).error().code(), ErrorCode::overlap);
    EXPECT_TRUE(map(bit(47) - 4096));
    EXPECT_TRUE(map(0));
}

TEST_F(QemuMachineTest, reset_restores_a_function) {
    start({.devices = {"edu,addr=4", "nvme,drive=disk0,serial=x,addr=5"}, .disks = {1_MiB}});
    if (!machine)
        return;
    auto edu = *machine->open(Bdf(0, 4, 0));
    EXPECT_EQ(edu->reset().error().code(), ErrorCode::unsupported);
    auto nvme = *machine->open(Bdf(0, 5, 0));
    EXPECT_EQ(nvme->enable_interrupts(1).error().code(), ErrorCode::refused) << "not attached";
    Registers& registers = **nvme->bar(0);
    const std::uint64_t capabilities = registers.read64(0);
    constexpr unsigned admin_queue = 0x28;
    registers.write64(admin_queue, 0x1000);
    EXPECT_EQ(registers.read64(admin_queue), 0x1000U);
    ASSERT_TRUE(nvme->reset());
    EXPECT_EQ(registers.read64(0), capabilities) << "its registers are where they were";
}

} // namespace
} // namespace moat::tests
