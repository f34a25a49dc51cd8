// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's e1000e with looped-back frames, inside its buffers and past them.
#include "device_bench.hpp"

namespace moat::tests {
namespace {

using audit::Verdict;

class E1000eTest : public DeviceTest {
  protected:
    void SetUp() override { drive({.devices = {"e1000e,addr=6"}}, 0x020000); }
};

TEST_F(E1000eTest, frames_are_sent_and_received) {
    if (!driver)
        return;
    Piece& data = piece(2);
    for (const std::uint64_t offset : {0UL, 1UL, 4095UL})
        for (const std::uint64_t bytes : {60UL, 61UL, 1000UL, 1514UL}) {
            SCOPED_TRACE(std::to_string(bytes) + " bytes at " + std::to_string(offset));
            std::ranges::fill(data.memory.bytes(), canary);
            EXPECT_EQ(run("receive", data.iova + ByteCount(offset), bytes).verdict,
                      Verdict::success);
            const auto frame = data.memory.bytes().subspan(offset, bytes);
            EXPECT_EQ(frame[12], std::byte{0x88});
            EXPECT_EQ(frame[bytes - 1], static_cast<std::byte>(bytes - 1));
            EXPECT_EQ(data.untouched_from(offset + bytes), data.memory.bytes().size());
            const std::uint64_t payload = std::min<std::uint64_t>(bytes, 1500);
            EXPECT_EQ(run("transmit", data.iova + ByteCount(offset), payload).verdict,
                      Verdict::success);
        }
    EXPECT_TRUE(faults().empty());
}

TEST_F(E1000eTest, data_that_look_like_a_broken_packet_are_sent) {
    if (!driver)
        return;
    Piece& data = piece(2);
    std::ranges::fill(data.memory.bytes(), std::byte{0});
    data.memory.bytes()[12] = std::byte{0x08}; // IPv4, with a header of zeros
    EXPECT_EQ(run("transmit", data.iova, 1000).verdict, Verdict::success);
}

TEST_F(E1000eTest, frame_longer_than_its_buffer_is_stopped_at_the_guard) {
    if (!driver)
        return;
    Piece& buffer = piece(1);
    constexpr std::uint64_t inside = 128;
    const Iova data = buffer.iova + ByteCount(page - inside);
    EXPECT_EQ(run("receive", data, 1000).verdict, Verdict::success);
    EXPECT_EQ(buffer.untouched_from(0), page - inside);
    expect_fault(fault::Access::write, data + ByteCount(inside), 5);
}

TEST_F(E1000eTest, frame_read_past_its_buffer_is_stopped_at_the_guard) {
    if (!driver)
        return;
    Piece& buffer = piece(1);
    constexpr std::uint64_t inside = 128;
    const Iova data = buffer.iova + ByteCount(page - inside);
    EXPECT_EQ(run("transmit", data, 1000).verdict, Verdict::no_answer) << "nothing is received";
    expect_fault(fault::Access::read, data + ByteCount(inside), 6);
}

} // namespace
} // namespace moat::tests
