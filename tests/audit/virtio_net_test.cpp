// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's virtio network device on a wire that returns its frames, inside its buffers and past them.
#include "device_bench.hpp"

#include <cstring>
#include <string>

namespace moat::tests {
namespace {

using audit::Verdict;

/// The parameter: whether queues are packed.
class VirtioNetTest : public DeviceTest, public ::testing::WithParamInterface<bool> {
  protected:
    void SetUp() override {
        const std::string packed = GetParam() ? ",packed=on" : "";
        drive({.devices = {"virtio-net-pci,netdev=wire0,romfile=,addr=5,disable-legacy=on,"
                           "iommu_platform=on" +
                           packed},
               .wires = 1},
              0x020000);
    }

    static void fill(std::span<std::byte> bytes, unsigned first) {
        for (std::size_t i = 0; i != bytes.size(); ++i)
            bytes[i] = static_cast<std::byte>((first + i + i / 251) & 0x7f);
    }
};

TEST_P(VirtioNetTest, frames_return_from_where_they_were_stored) {
    if (!driver)
        return;
    Piece& sent = piece(2);
    Piece& received = piece(2);
    unsigned first = 0;
    for (const std::uint64_t offset : {0UL, 1UL, 4095UL})
        for (const std::uint64_t bytes : {60UL, 61UL, 1000UL, 1514UL}) {
            SCOPED_TRACE(std::to_string(bytes) + " bytes at " + std::to_string(offset));
            const auto frame = sent.memory.bytes().subspan(offset, bytes);
            fill(frame, ++first);
            EXPECT_EQ(run("transmit", sent.iova + ByteCount(offset), bytes, 2000).verdict,
                      Verdict::success);
            std::ranges::fill(received.memory.bytes(), canary);
            EXPECT_EQ(run("receive", received.iova + ByteCount(offset), bytes, 2000).verdict,
                      Verdict::success);
            EXPECT_TRUE(std::ranges::equal(received.memory.bytes().subspan(offset, bytes), frame));
            EXPECT_EQ(received.untouched_from(offset + bytes), received.memory.bytes().size());
            EXPECT_EQ(run("receive", received.iova, 60, 2001).verdict, Verdict::success);
            EXPECT_TRUE(
                std::ranges::equal(received.memory.bytes().first(59), frame.subspan(1).first(59)));
        }
    EXPECT_TRUE(faults().empty());
}

TEST_P(VirtioNetTest, frame_longer_than_its_buffer_is_stopped_at_the_guard) {
    if (!driver)
        return;
    expect_write_stops_at_guard();
}

TEST_P(VirtioNetTest, frame_read_past_its_buffer_is_stopped_at_the_guard) {
    if (!driver)
        return;
    expect_read_stops_at_guard(Verdict::success);
}

/// Of QEMU 7.2: docs/findings.md.
TEST_P(VirtioNetTest, used_descriptor_of_a_packed_queue_lacks_its_flag) {
    if (!driver || !GetParam())
        return;
    Piece& buffer = piece(1);
    EXPECT_EQ(run("receive", buffer.iova, 100).verdict, Verdict::success);

    struct {
        std::uint64_t address;
        std::uint32_t length;
        std::uint16_t id;
        std::uint16_t flags;
    } used{};

    std::memcpy(&used, queues.at(0)->memory.bytes().data(), sizeof used);
    EXPECT_EQ(used.length, 112U);
    EXPECT_EQ(used.flags & 0x8080, 0x8080) << "used";
    EXPECT_EQ(used.flags & 2, 0) << "nothing was written";
}

INSTANTIATE_TEST_SUITE_P(Queues, VirtioNetTest, ::testing::Bool(), name_of_queues);

} // namespace
} // namespace moat::tests
