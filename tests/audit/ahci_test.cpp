// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's AHCI controller, driven past the ends of its buffers.
#include "device_bench.hpp"

namespace moat::tests {
namespace {

using namespace moat::literals;
using audit::Verdict;

constexpr std::uint64_t sector = 512;

class AhciTest : public DeviceTest {
  protected:
    void SetUp() override {
        // q35 includes the controller.
        drive({.devices = {"ide-hd,drive=disk0,bus=ide.0,serial=moat"}, .disks = {4_MiB}},
              0x010601);
        if (!driver)
            return;
        for (std::size_t i = 0; i != machine->disk(0).size(); ++i)
            machine->disk(0)[i] = static_cast<std::byte>(i / sector + i);
    }

    [[nodiscard]] bool holds_disk(std::span<const std::byte> bytes, std::uint64_t first) const {
        return std::ranges::equal(bytes, machine->disk(0).subspan(first, bytes.size()));
    }
};

TEST_F(AhciTest, reads_and_writes) {
    if (!driver)
        return;
    EXPECT_EQ(driver->medium().size, 4_MiB);
    EXPECT_EQ(driver->medium().unit, ByteCount(512));
    Piece& data = piece(40);
    for (const std::uint64_t offset : {0UL, 2UL, 4094UL})
        for (const std::uint64_t sectors : {1UL, 8UL, 256UL}) {
            SCOPED_TRACE(std::to_string(sectors) + " sectors at " + std::to_string(offset));
            std::ranges::fill(data.memory.bytes(), canary);
            const std::uint64_t bytes = sectors * sector;
            EXPECT_EQ(run("read", data.iova + ByteCount(offset), bytes, 5).verdict,
                      Verdict::success);
            EXPECT_TRUE(holds_disk(data.memory.bytes().subspan(offset, bytes), 5 * sector));
            EXPECT_EQ(data.untouched_from(offset + bytes), data.memory.bytes().size());
        }
    std::ranges::fill(data.memory.bytes(), std::byte{0x77});
    EXPECT_EQ(run("write", data.iova, 16 * sector, 100).verdict, Verdict::success);
    EXPECT_EQ(run("flush", Iova(0), 0).verdict, Verdict::success);
    EXPECT_TRUE(holds_disk(data.memory.bytes().first(16 * sector), 100 * sector));
    EXPECT_EQ(run("identify", data.iova, sector).verdict, Verdict::success);
    EXPECT_EQ(std::memcmp(data.memory.bytes().data() + 20, "omta", 4), 0) << "words, high first";
    EXPECT_EQ(run("read", data.iova, sector, 1 << 20).verdict, Verdict::failure) << "past the disk";
    EXPECT_EQ(run("read", data.iova, sector, 5).verdict, Verdict::success) << "and it goes on";
    EXPECT_TRUE(faults().empty());
}

TEST_F(AhciTest, sectors_beyond_a_short_buffer_are_success_though_blocked) {
    if (!driver)
        return;
    Piece& buffer = piece(1);
    EXPECT_EQ(run("read", buffer.iova, 16 * sector).verdict, Verdict::success);
    EXPECT_TRUE(holds_disk(buffer.memory.bytes(), 0));
    expect_fault(fault::Access::write, buffer.iova + ByteCount(page), 5);
}

} // namespace
} // namespace moat::tests
