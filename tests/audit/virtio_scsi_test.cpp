// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's virtio SCSI controller with a disk: indirect descriptors, and buffers that end too early.
#include "device_bench.hpp"

namespace moat::tests {
namespace {

using namespace moat::literals;
using audit::Verdict;

constexpr std::uint64_t scsi_block = 512;

class VirtioScsiTest : public DeviceTest {
  protected:
    /// Indices in `queues`.
    enum Queue : std::uint8_t { table_queue = 3, response_queue = 5 };

    void SetUp() override {
        drive({.devices = {"virtio-scsi-pci,id=scsi,addr=5,disable-legacy=on,iommu_platform=on",
                           "scsi-hd,drive=disk0,bus=scsi.0"},
               .disks = {4_MiB}},
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

TEST_F(VirtioScsiTest, reads_and_writes) {
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
    if (!driver)
        return;
    Piece& buffer = piece(1);
    EXPECT_EQ(run("read", buffer.iova, 16 * scsi_block).verdict, Verdict::no_answer);
    expect_fault(fault::Access::write, buffer.iova + ByteCount(page), 5);
    EXPECT_TRUE(holds_disk(buffer.memory.bytes(), 0));
}

/// So the device used it.
TEST_F(VirtioScsiTest, indirect_table_that_is_not_mapped_is_a_fault) {
    if (!driver)
        return;
    Piece& data = piece(1);
    const Piece& table = *queues.at(table_queue);
    ASSERT_TRUE(domain->unmap(table.iova, table.memory.size()));
    EXPECT_EQ(run("read", data.iova, scsi_block).verdict, Verdict::no_answer);
    expect_fault(fault::Access::read, table.iova, 6);
    EXPECT_EQ(data.untouched_from(0), data.memory.bytes().size());
}

} // namespace
} // namespace moat::tests
