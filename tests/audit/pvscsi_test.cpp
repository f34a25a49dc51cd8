// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's paravirtual SCSI controller: its data goes through the IOMMU, and its request ring, its
// completion ring and its scatter lists by physical address (docs/findings.md).
#include "device_bench.hpp"

namespace moat::tests {
namespace {

using namespace moat::literals;
using audit::Verdict;

constexpr std::uint64_t pvscsi_block = 512;

class PvscsiTest : public DeviceTest {
  protected:
    /// Indices in `queues`.
    enum Queue : std::uint8_t { state_queue, request_queue, completion_queue, sense_queue };

    void SetUp() override {
        identity = true;
        drive({.devices = {"pvscsi,id=scsi,addr=5", "scsi-hd,drive=disk0,bus=scsi.0"},
               .disks = {4_MiB}},
              0x010000);
        if (!driver)
            return;
        for (std::size_t i = 0; i != machine->disk(0).size(); ++i)
            machine->disk(0)[i] = static_cast<std::byte>(i / pvscsi_block + i);
    }

    [[nodiscard]] bool holds_disk(std::span<const std::byte> bytes, std::uint64_t first) const {
        return std::ranges::equal(bytes, machine->disk(0).subspan(first, bytes.size()));
    }

    void unmap(const Piece& piece) { ASSERT_TRUE(domain->unmap(piece.iova, piece.memory.size())); }

    audit::Answer read_by_list(Piece& data, std::uint64_t blocks, Piece& list) {
        const audit::Buffer buffer{list.iova, list.memory.bytes()};
        return run("read by a list", data.iova, blocks * pvscsi_block, 5, {&buffer, 1});
    }
};

TEST_F(PvscsiTest, reads_and_writes) {
    if (!driver)
        return;
    Piece& data = piece(40);
    Piece& list = piece(1, read_only);
    for (const std::uint64_t offset : {0UL, 1UL, 4095UL})
        for (const std::uint64_t blocks : {1UL, 8UL, 256UL}) {
            SCOPED_TRACE(std::to_string(blocks) + " blocks at " + std::to_string(offset));
            std::ranges::fill(data.memory.bytes(), canary);
            const std::uint64_t bytes = blocks * pvscsi_block;
            EXPECT_EQ(run("read", data.iova + ByteCount(offset), bytes, 5).verdict,
                      Verdict::success);
            EXPECT_TRUE(holds_disk(data.memory.bytes().subspan(offset, bytes), 5 * pvscsi_block));
            EXPECT_EQ(data.untouched_from(offset + bytes), data.memory.bytes().size());
        }
    std::ranges::fill(data.memory.bytes(), canary);
    EXPECT_EQ(read_by_list(data, 70, list).verdict, Verdict::success);
    EXPECT_TRUE(holds_disk(data.memory.bytes().first(70 * pvscsi_block), 5 * pvscsi_block));
    std::ranges::fill(data.memory.bytes(), std::byte{0x77});
    EXPECT_EQ(run("write", data.iova, 16 * pvscsi_block, 100).verdict, Verdict::success);
    constexpr unsigned more_than_a_ring = 130;
    for (unsigned i = 0; i != more_than_a_ring; ++i)
        EXPECT_EQ(run("flush", Iova(0), 0).verdict, Verdict::success);
    EXPECT_TRUE(holds_disk(data.memory.bytes().first(16 * pvscsi_block), 100 * pvscsi_block));
    EXPECT_EQ(run("read", data.iova, pvscsi_block, 1 << 20).verdict, Verdict::failure)
        << "past the disk";
    EXPECT_EQ(driver->medium().size, 4_MiB);
    EXPECT_TRUE(faults().empty());
}

TEST_F(PvscsiTest, blocks_beyond_a_short_buffer_are_stopped_at_the_guard) {
    if (!driver)
        return;
    Piece& buffer = piece(1);
    const audit::Answer answer = run("read", buffer.iova, 16 * pvscsi_block);
    EXPECT_EQ(answer.verdict, Verdict::success) << answer.code;
    expect_fault(fault::Access::write, buffer.iova + ByteCount(page), 5);
    EXPECT_TRUE(holds_disk(buffer.memory.bytes(), 0));
}

TEST_F(PvscsiTest, ring_state_goes_through_the_iommu) {
    if (!driver)
        return;
    Piece& data = piece(1);
    unmap(*queues.at(state_queue));
    EXPECT_EQ(run("read", data.iova, pvscsi_block).verdict, Verdict::no_answer);
    EXPECT_FALSE(faults().empty());
    EXPECT_EQ(data.untouched_from(0), data.memory.bytes().size());
}

/// Nothing of these is mapped, and yet the device reads and writes it.
TEST_F(PvscsiTest, rings_lists_and_sense_data_bypass_the_iommu) {
    if (!driver)
        return;
    Piece& data = piece(4);
    Piece& list = piece(1);
    for (const Queue each : {request_queue, completion_queue, sense_queue})
        unmap(*queues.at(each));
    unmap(list);
    EXPECT_EQ(read_by_list(data, 32, list).verdict, Verdict::success);
    EXPECT_TRUE(holds_disk(data.memory.bytes(), 5 * pvscsi_block));
    const auto sense = queues.at(sense_queue)->memory.bytes();
    std::ranges::fill(sense, canary);
    EXPECT_EQ(run("read", data.iova, pvscsi_block, 1 << 20).verdict, Verdict::failure);
    constexpr std::byte current_error{0x70};
    EXPECT_EQ(sense[0], current_error);
    EXPECT_TRUE(faults().empty());
}

} // namespace
} // namespace moat::tests
