// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's virtio block device, driven past the ends of its buffers, behind the IOMMU and bypassing
// it.
#include "device_bench.hpp"

namespace moat::tests {
namespace {

using namespace moat::literals;
using audit::Verdict;

constexpr std::uint64_t virtio_sector = 512;
constexpr std::uint32_t scsi_class = 0x010000;

/// The parameter: whether queues are packed.
class VirtioBlkTest : public DeviceTest, public ::testing::WithParamInterface<bool> {
  protected:
    void drive_with(const std::string& properties) {
        drive({.devices = {"virtio-blk-pci,addr=5,drive=disk0,serial=moat,disable-legacy=on" +
                           properties + (GetParam() ? ",packed=on" : "")},
               .disks = {4_MiB}},
              scsi_class);
        if (!driver)
            return;
        for (std::size_t i = 0; i != machine->disk(0).size(); ++i)
            machine->disk(0)[i] = static_cast<std::byte>(i / virtio_sector + i);
    }

    [[nodiscard]] bool holds_disk(std::span<const std::byte> bytes, std::uint64_t first) const {
        return std::ranges::equal(bytes, machine->disk(0).subspan(first, bytes.size()));
    }
};

TEST_P(VirtioBlkTest, reads_and_writes) {
    drive_with(",iommu_platform=on");
    if (!driver)
        return;
    EXPECT_EQ(driver->medium().size, 4_MiB);
    EXPECT_EQ(driver->medium().unit, ByteCount(512));
    Piece& data = piece(40);
    for (const std::uint64_t offset : {0UL, 1UL, 4095UL})
        for (const std::uint64_t sectors : {1UL, 8UL, 256UL}) {
            SCOPED_TRACE(std::to_string(sectors) + " sectors at " + std::to_string(offset));
            std::ranges::fill(data.memory.bytes(), canary);
            const std::uint64_t bytes = sectors * virtio_sector;
            EXPECT_EQ(run("read", data.iova + ByteCount(offset), bytes, 5).verdict,
                      Verdict::success);
            EXPECT_TRUE(holds_disk(data.memory.bytes().subspan(offset, bytes), 5 * virtio_sector));
            EXPECT_EQ(data.untouched_from(offset + bytes), data.memory.bytes().size());
        }
    std::ranges::fill(data.memory.bytes(), std::byte{0x77});
    EXPECT_EQ(run("write", data.iova, 16 * virtio_sector, 100).verdict, Verdict::success);
    EXPECT_EQ(run("flush", Iova(0), 0).verdict, Verdict::success);
    EXPECT_TRUE(holds_disk(data.memory.bytes().first(16 * virtio_sector), 100 * virtio_sector));
    EXPECT_EQ(run("identify", data.iova, 20).verdict, Verdict::success);
    EXPECT_EQ(std::memcmp(data.memory.bytes().data(), "moat", 5), 0);
    EXPECT_EQ(run("read", data.iova, virtio_sector, 1 << 20).verdict, Verdict::failure)
        << "past the disk";
    EXPECT_TRUE(faults().empty());
}

TEST_P(VirtioBlkTest, sectors_beyond_a_short_buffer_are_stopped_at_the_guard) {
    drive_with(",iommu_platform=on");
    if (!driver)
        return;
    Piece& buffer = piece(1);
    EXPECT_EQ(run("read", buffer.iova, 16 * virtio_sector).verdict, Verdict::success);
    expect_fault(fault::Access::write, buffer.iova + ByteCount(page), 5);
    EXPECT_TRUE(holds_disk(buffer.memory.bytes(), 0));
}

TEST_P(VirtioBlkTest, without_the_platform_s_addresses_it_bypasses_the_iommu) {
    identity = true;
    drive_with("");
    if (!driver)
        return;
    const auto hidden = *machine->allocate(ByteCount(page)); // mapped nowhere
    EXPECT_EQ(run("read", Iova(hidden.physical().value()), 8 * virtio_sector).verdict,
              Verdict::success);
    EXPECT_TRUE(holds_disk(hidden.bytes(), 0));
    EXPECT_TRUE(faults().empty());
}

INSTANTIATE_TEST_SUITE_P(Queues, VirtioBlkTest, ::testing::Bool(), name_of_queues);

} // namespace
} // namespace moat::tests
