// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's virtio SCSI controller with a disk: indirect descriptors, and buffers that end too early.
#include "device_bench.hpp"

#include <chrono>
#include <cstring>
#include <set>
#include <string>

namespace moat::tests {
namespace {

using namespace moat::literals;
using audit::Verdict;

constexpr std::uint64_t scsi_block = 512;

class VirtioScsiTest : public DeviceTest {
  protected:
    /// Indices in `queues`.
    enum Queue : std::uint8_t { ring_queue, driver_queue, table_queue = 3 };

    void drive_disk(bool packed, std::chrono::milliseconds patience = std::chrono::seconds(10)) {
        const std::string properties = packed ? ",packed=on" : "";
        drive({.devices = {"virtio-scsi-pci,id=scsi,addr=5,disable-legacy=on,iommu_platform=on" +
                               properties,
                           "scsi-hd,drive=disk0,bus=scsi.0"},
               .disks = {4_MiB},
               .patience = patience},
              0x010000);
        if (!driver)
            return;
        for (std::size_t i = 0; i != machine->disk(0).size(); ++i)
            machine->disk(0)[i] = static_cast<std::byte>(i / scsi_block + i);
    }

    [[nodiscard]] bool holds_disk(std::span<const std::byte> bytes, std::uint64_t first) const {
        return std::ranges::equal(bytes, machine->disk(0).subspan(first, bytes.size()));
    }
};

/// The parameter: whether queues are packed.
class VirtioScsiQueuesTest : public VirtioScsiTest, public ::testing::WithParamInterface<bool> {};

TEST_P(VirtioScsiQueuesTest, reads_and_writes) {
    drive_disk(GetParam());
    if (!driver)
        return;
    Piece& data = piece(40);
    for (const std::uint64_t offset : {0UL, 1UL, 4095UL})
        for (const std::uint64_t blocks : {1UL, 8UL, 256UL}) {
            SCOPED_TRACE(std::to_string(blocks) + " blocks at " + std::to_string(offset));
            std::ranges::fill(data.memory.bytes(), canary);
            const std::uint64_t bytes = blocks * scsi_block;
            EXPECT_EQ(run("read", data.iova + ByteCount(offset), bytes, 5).verdict,
                      Verdict::success);
            EXPECT_TRUE(holds_disk(data.memory.bytes().subspan(offset, bytes), 5 * scsi_block));
            EXPECT_EQ(data.untouched_from(offset + bytes), data.memory.bytes().size());
        }
    std::ranges::fill(data.memory.bytes(), std::byte{0x77});
    EXPECT_EQ(run("write", data.iova, 16 * scsi_block, 100).verdict, Verdict::success);
    EXPECT_EQ(run("flush", Iova(0), 0).verdict, Verdict::success);
    EXPECT_TRUE(holds_disk(data.memory.bytes().first(16 * scsi_block), 100 * scsi_block));
    EXPECT_EQ(run("read", data.iova, scsi_block, 1 << 20).verdict, Verdict::failure)
        << "past the disk";
    EXPECT_EQ(driver->medium().size, 4_MiB);
    EXPECT_TRUE(faults().empty());
}

TEST_F(VirtioScsiTest, blocks_beyond_a_short_buffer_are_stopped_at_the_guard) {
    drive_disk(false);
    if (!driver)
        return;
    Piece& buffer = piece(1);
    EXPECT_EQ(run("read", buffer.iova, 16 * scsi_block).verdict, Verdict::no_answer);
    expect_fault(fault::Access::write, buffer.iova + ByteCount(page), 5);
    EXPECT_TRUE(holds_disk(buffer.memory.bytes(), 0));
}

/// So the device used it.
TEST_F(VirtioScsiTest, indirect_table_that_is_not_mapped_is_a_fault) {
    drive_disk(false);
    if (!driver)
        return;
    Piece& data = piece(1);
    const Piece& table = *queues.at(table_queue);
    ASSERT_TRUE(domain->unmap(table.iova, table.memory.size()));
    EXPECT_EQ(run("read", data.iova, scsi_block).verdict, Verdict::no_answer);
    expect_fault(fault::Access::read, table.iova, 6);
    EXPECT_EQ(data.untouched_from(0), data.memory.bytes().size());
}

/// VIRTIO 1.2, 2.8.1 and 2.8.10: the device marked the descriptor, whose use it had to report.
TEST_F(VirtioScsiTest, packed_queue_names_the_entry_of_its_notification) {
    drive_disk(true);
    if (!driver)
        return;
    const auto half = [&](Queue which, std::size_t index) {
        std::uint16_t value = 0;
        std::memcpy(&value, queues.at(which)->memory.bytes().data() + 2 * index, sizeof value);
        return value;
    };
    Piece& data = piece(1);
    std::set<std::uint16_t> events;
    for (unsigned i = 0; i != 16; ++i) {
        EXPECT_EQ(run("read", data.iova, scsi_block).verdict, Verdict::success);
        const std::uint16_t event = half(driver_queue, 0);
        EXPECT_EQ(half(driver_queue, 1), 2) << "of an entry";
        const std::uint16_t flags = half(ring_queue, 8U * (event & 0x7fffU) + 7);
        EXPECT_EQ(flags & 0x8080, (event & 0x8000) != 0 ? 0x8080 : 0);
        events.insert(event);
    }
    EXPECT_EQ(events.size(), 16U) << "8 entries, with both wrap counters";
}

/// QEMU 7.2 reads the queue forever: docs/findings.md.
TEST_F(VirtioScsiTest, indirect_table_that_is_not_mapped_hangs_qemu_if_the_queue_is_packed) {
    drive_disk(true, std::chrono::seconds(2));
    if (!driver)
        return;
    const Piece& table = *queues.at(table_queue);
    ASSERT_TRUE(domain->unmap(table.iova, table.memory.size()));
    EXPECT_FALSE(driver->run({.operation = operation("flush"), .data = {}, .length = {}}));
    EXPECT_FALSE(machine->health());
}

INSTANTIATE_TEST_SUITE_P(Queues, VirtioScsiQueuesTest, ::testing::Bool(), name_of_queues);

} // namespace
} // namespace moat::tests
