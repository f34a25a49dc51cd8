// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's edu, driven past the ends of its buffer: it reports "done" each time, so only memory and
// the unit's fault records show the stray.
#include "device_bench.hpp"

namespace moat::tests {
namespace {

using audit::Verdict;

constexpr std::uint64_t inside = 64; // offset in the buffer, at its page's end
constexpr std::uint64_t told = 128;

class EduTest : public DeviceTest {
  protected:
    void SetUp() override {
        drive({.devices = {"edu,addr=4,dma_mask=0xffffffffffffffff"}}, 0x00ff00);
    }
};

TEST_F(EduTest, write_past_the_end_reaches_a_neighbour_that_is_mapped) {
    if (!driver)
        return;
    Piece& buffer = piece(2);
    EXPECT_EQ(run("read", buffer.iova + ByteCount(page - inside), told).verdict, Verdict::success);
    EXPECT_EQ(buffer.untouched_from(0), page - inside);
    EXPECT_EQ(buffer.untouched_from(page), page);
    EXPECT_EQ(buffer.untouched_from(page + told - inside), 2 * page);
    EXPECT_TRUE(faults().empty());
}

TEST_F(EduTest, write_past_the_end_is_stopped_at_the_guard) {
    if (!driver)
        return;
    Piece& buffer = piece(1);
    const Iova data = buffer.iova + ByteCount(page - inside);
    EXPECT_EQ(run("read", data, told).verdict, Verdict::success);
    EXPECT_EQ(buffer.untouched_from(0), page - inside);
    EXPECT_EQ(std::ranges::count(buffer.memory.bytes().last(inside), std::byte{0}), inside);
    expect_fault(fault::Access::write, data + ByteCount(inside), 5);
}

TEST_F(EduTest, read_past_the_end_is_stopped_at_the_guard) {
    if (!driver)
        return;
    Piece& buffer = piece(1);
    const Iova data = buffer.iova + ByteCount(page - inside);
    EXPECT_EQ(run("write", data, told).verdict, Verdict::success);
    expect_fault(fault::Access::read, data + ByteCount(inside), 6);
}

TEST_F(EduTest, read_only_memory_is_not_written) {
    if (!driver)
        return;
    Piece& buffer = piece(1, read_only);
    EXPECT_EQ(run("read", buffer.iova, inside).verdict, Verdict::success);
    EXPECT_EQ(buffer.untouched_from(0), page);
    expect_fault(fault::Access::write, buffer.iova, 5);
}

TEST_F(EduTest, address_that_the_unit_cannot_translate) {
    if (!driver)
        return;
    EXPECT_EQ(run("read", Iova(bit(48)), inside).verdict, Verdict::success);
    expect_fault(fault::Access::write, Iova(bit(48)), 4);
}

TEST_F(EduTest, function_that_is_attached_to_nothing) {
    if (!driver)
        return;
    Piece& buffer = piece(1);
    ASSERT_TRUE(machine->detach(address));
    EXPECT_EQ(run("read", buffer.iova, inside).verdict, Verdict::success);
    EXPECT_EQ(buffer.untouched_from(0), page);
    expect_fault(fault::Access::write, buffer.iova, 2);
    ASSERT_TRUE(machine->attach(address, *domain));
}

TEST_F(EduTest, more_than_the_device_has_is_refused) {
    if (!driver)
        return;
    const auto answer = driver->run({.operation = 0, .data = Iova(0), .length = ByteCount(4096)});
    EXPECT_EQ(answer.error().code(), ErrorCode::out_of_range);
}

} // namespace
} // namespace moat::tests
