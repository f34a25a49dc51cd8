// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's audio controller: streams over cyclic buffers inside their ends and past them, after their
// stop, and rings that are not mapped.
#include "device_bench.hpp"

namespace moat::tests {
namespace {

using audit::Verdict;

class HdaTest : public DeviceTest {
  protected:
    /// Indices in `queues`.
    enum Queue : std::uint8_t { command_queue, response_queue, position_queue };

    static constexpr std::uint64_t grain = 128;

    void SetUp() override { drive_codec("hda-duplex"); }

    void drive_codec(std::string_view codec) {
        drive({.devices = {"intel-hda,addr=5", std::string(codec) + ",audiodev=audio"},
               .arguments = {"-audiodev", "none,id=audio,timer-period=1000"}},
              0x040300);
    }

    audit::Answer go_around(std::string_view name, const Piece& data, std::uint64_t length,
                            Piece& list) {
        const audit::Buffer descriptors{list.iova, list.memory.bytes().first(8 * 16)};
        return run(name, data.iova, length, 0, {&descriptors, 1});
    }

    void unmap(const Piece& piece) { ASSERT_TRUE(domain->unmap(piece.iova, piece.memory.size())); }
};

TEST_F(HdaTest, streams_fill_their_buffers_and_nothing_else) {
    if (!driver)
        return;
    Piece& data = piece(2);
    Piece& list = piece(1, read_only);
    for (const std::uint64_t length : {2 * grain, 3 * grain, page - grain, page}) {
        SCOPED_TRACE(length);
        std::ranges::fill(data.memory.bytes(), canary);
        const audit::Answer captured = go_around("capture", data, length, list);
        EXPECT_EQ(captured.verdict, Verdict::success) << captured.code;
        const auto filled = data.memory.bytes().first(length);
        EXPECT_TRUE(std::ranges::none_of(filled, [](std::byte b) { return b == canary; }));
        EXPECT_EQ(data.untouched_from(length), data.memory.bytes().size());
        EXPECT_EQ(go_around("playback", data, length, list).verdict, Verdict::success);
    }
    EXPECT_EQ(run("verb", Iova(0), 0).verdict, Verdict::success);
    EXPECT_TRUE(faults().empty());
}

TEST_F(HdaTest, position_buffer_has_each_stream_s_position) {
    if (!driver)
        return;
    Piece& data = piece(2);
    Piece& list = piece(1, read_only);
    const auto positions = queues.at(position_queue)->memory.bytes();
    std::ranges::fill(positions, canary);
    EXPECT_EQ(go_around("capture", data, 2 * page, list).verdict, Verdict::success);
    EXPECT_EQ(go_around("playback", data, 2 * page, list).verdict, Verdict::success);
    for (const std::size_t stream : {0UL, 4UL}) {
        std::uint32_t position = 0;
        std::memcpy(&position, positions.data() + 8 * stream, sizeof position);
        EXPECT_LT(position, 2 * page) << stream;
    }
    EXPECT_EQ(positions[8], canary) << "another stream";
}

TEST_F(HdaTest, streams_past_a_short_buffer_are_success_though_blocked) {
    if (!driver)
        return;
    Piece& buffer = piece(1);
    Piece& list = piece(1, read_only);
    EXPECT_EQ(go_around("capture", buffer, page + 8 * grain, list).verdict, Verdict::success);
    expect_fault(fault::Access::write, buffer.iova + ByteCount(page), 5);
    EXPECT_EQ(go_around("playback", buffer, page + 8 * grain, list).verdict, Verdict::success);
    expect_fault(fault::Access::read, buffer.iova + ByteCount(page), 6);
}

TEST_F(HdaTest, stopped_stream_touches_its_buffer_no_more) {
    if (!driver)
        return;
    Piece& list = piece(1, read_only);
    for (const std::string_view name : {"capture", "playback"}) {
        Piece& data = piece(1);
        EXPECT_EQ(go_around(name, data, page, list).verdict, Verdict::success);
        unmap(data);
        auto never = [] { return false; };
        (void)machine->wait_until(never, std::chrono::milliseconds(20));
        EXPECT_TRUE(faults().empty()) << name;
    }
}

TEST_F(HdaTest, descriptor_list_that_is_not_mapped_leaves_the_stream_standing) {
    if (!driver)
        return;
    Piece& data = piece(1);
    Piece& list = piece(1);
    unmap(list);
    EXPECT_EQ(go_around("capture", data, page, list).verdict, Verdict::no_answer);
    expect_fault(fault::Access::read, list.iova, 6);
    EXPECT_EQ(data.untouched_from(0), data.memory.bytes().size());
    Piece& mapped = piece(1, read_only);
    EXPECT_EQ(go_around("capture", data, page, mapped).verdict, Verdict::success);
}

TEST_F(HdaTest, command_ring_that_is_not_mapped_reads_as_another_verb) {
    if (!driver)
        return;
    const Piece& ring = *queues.at(command_queue);
    unmap(ring);
    const audit::Answer answer = run("verb", Iova(0), 0);
    EXPECT_EQ(answer.verdict, Verdict::failure);
    EXPECT_EQ(answer.code, 0U);
    expect_fault(fault::Access::read, ring.iova, 6);
}

TEST_F(HdaTest, response_ring_that_is_not_mapped_is_an_overrun) {
    if (!driver)
        return;
    const Piece& ring = *queues.at(response_queue);
    unmap(ring);
    const audit::Answer answer = run("verb", Iova(0), 0);
    EXPECT_EQ(answer.verdict, Verdict::no_answer);
    constexpr std::uint64_t overrun = 4;
    EXPECT_NE(answer.code & overrun, 0U);
    expect_fault(fault::Access::write, ring.iova, 5);
}

class HdaOutputTest : public HdaTest {
  protected:
    void SetUp() override { drive_codec("hda-output"); }
};

TEST_F(HdaOutputTest, codec_without_an_input_only_plays) {
    if (!driver)
        return;
    EXPECT_EQ(driver->operations().size(), 2U);
    Piece& data = piece(1);
    Piece& list = piece(1, read_only);
    EXPECT_EQ(go_around("playback", data, page, list).verdict, Verdict::success);
    EXPECT_EQ(data.untouched_from(0), data.memory.bytes().size());
    EXPECT_EQ(run("verb", Iova(0), 0).verdict, Verdict::success);
    EXPECT_TRUE(faults().empty());
}

} // namespace
} // namespace moat::tests
