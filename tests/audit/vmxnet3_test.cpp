// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's vmxnet3 on a wire that returns its frames, inside its buffers and past them.
#include "device_bench.hpp"

#include <chrono>
#include <string>

namespace moat::tests {
namespace {

using audit::Verdict;

class Vmxnet3Test : public DeviceTest {
  protected:
    /// Indices in `queues`.
    enum Queue : std::uint8_t { transmit_ring = 2, second_receive_ring = 5 };

    void SetUp() override {
        drive({.devices = {"vmxnet3,netdev=wire0,romfile=,addr=5"}, .wires = 1}, 0x020000);
    }

    static void fill(std::span<std::byte> bytes, unsigned first) {
        for (std::size_t i = 0; i != bytes.size(); ++i)
            bytes[i] = static_cast<std::byte>((first + i + i / 251) & 0x7f);
    }

    void unmap(const Piece& piece) { ASSERT_TRUE(domain->unmap(piece.iova, piece.memory.size())); }
};

/// More frames than each ring has entries.
TEST_F(Vmxnet3Test, frames_return_from_where_they_were_stored) {
    if (!driver)
        return;
    Piece& sent = piece(4);
    Piece& received = piece(4);
    unsigned first = 0;
    for (const std::uint64_t offset : {0UL, 1UL, 4095UL})
        for (const std::uint64_t bytes : {1UL, 60UL, 1000UL, 4096UL, 4097UL, 8886UL}) {
            SCOPED_TRACE(std::to_string(bytes) + " bytes at " + std::to_string(offset));
            const auto frame = sent.memory.bytes().subspan(offset, bytes);
            fill(frame, ++first);
            EXPECT_EQ(run("transmit", sent.iova + ByteCount(offset), bytes, 7000).verdict,
                      Verdict::success);
            std::ranges::fill(received.memory.bytes(), canary);
            EXPECT_EQ(run("receive", received.iova + ByteCount(offset), bytes, 7000).verdict,
                      Verdict::success);
            EXPECT_TRUE(std::ranges::equal(received.memory.bytes().subspan(offset, bytes), frame));
            EXPECT_EQ(received.untouched_from(offset + bytes), received.memory.bytes().size());
        }
    EXPECT_TRUE(faults().empty());
}

TEST_F(Vmxnet3Test, frame_longer_than_its_buffer_is_stopped_at_the_guard) {
    if (!driver)
        return;
    expect_write_stops_at_guard();
}

TEST_F(Vmxnet3Test, frame_read_past_its_buffer_is_stopped_at_the_guard) {
    if (!driver)
        return;
    expect_read_stops_at_guard(Verdict::no_answer);
    EXPECT_EQ(run("transmit", piece(1).iova, 1000).verdict, Verdict::success) << "it recovers";
}

/// docs/findings.md has it.
TEST_F(Vmxnet3Test, frame_in_pages_that_lie_apart_is_lost) {
    if (!driver)
        return;
    const Piece& first = *pieces_apart().first;
    const Iova data = first.iova + ByteCount(page - 100);
    EXPECT_EQ(run("receive", data, 1000).verdict, Verdict::success);
    const auto answer = run("transmit", data, 1000);
    EXPECT_EQ(answer.verdict, Verdict::no_answer);
    EXPECT_EQ(answer.code, 1U) << "but sent";
    EXPECT_TRUE(faults().empty());
}

TEST_F(Vmxnet3Test, quiesced_device_is_activated_again) {
    if (!driver)
        return;
    Piece& data = piece(1);
    EXPECT_TRUE(*driver->delete_queues());
    EXPECT_FALSE(*driver->delete_queues());
    EXPECT_EQ(run("receive", data.iova, 1000).verdict, Verdict::success);
}

TEST_F(Vmxnet3Test, transmit_ring_that_is_not_mapped_gets_no_answer) {
    if (!driver)
        return;
    Piece& data = piece(1);
    const Piece& ring = *queues.at(transmit_ring);
    unmap(ring);
    EXPECT_EQ(run("receive", data.iova, 1000).verdict, Verdict::no_answer);
    expect_fault(fault::Access::read, ring.iova, 6);
    EXPECT_EQ(data.untouched_from(0), data.memory.bytes().size());
}

/// QEMU reads a blocked descriptor as zeros, and takes it for a new one in every second round:
/// docs/findings.md.
TEST_F(Vmxnet3Test, second_receive_ring_that_is_not_mapped_ends_qemu) {
    if (!driver)
        return;
    Piece& data = piece(1);
    constexpr unsigned entries = 32;
    for (unsigned i = 0; i != entries; ++i)
        EXPECT_EQ(run("receive", data.iova, 100).verdict, Verdict::success);
    unmap(*queues.at(second_receive_ring));
    run("receive", data.iova, 100);
    auto gone = [&] { return (*function->bar(1))->read32(0) == ~0U && !machine->health(); };
    static_cast<void>(machine->wait_until(gone, std::chrono::seconds(1)));
    EXPECT_FALSE(machine->health());
    EXPECT_NE(machine->qtest().words().find("vmxnet3_get_next_body_rx_descr"), std::string::npos);
}

} // namespace
} // namespace moat::tests
