// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's NVMe, driven past the ends of its buffers: it reports success although it was blocked, so
// only memory and the unit's fault records show the stray.
#include "device_bench.hpp"

#include <array>

namespace moat::tests {
namespace {

using namespace moat::literals;
using audit::Verdict;

constexpr std::uint64_t bytes_inside = 64; // offset in the buffer, at its page's end
constexpr std::uint64_t block = 512;

class NvmeTest : public DeviceTest {
  protected:
    void SetUp() override {
        drive({.devices = {"nvme,drive=disk0,serial=moat,addr=5"}, .disks = {4_MiB}}, 0x010802);
        if (!driver)
            return;
        for (std::size_t i = 0; i != machine->disk(0).size(); ++i)
            machine->disk(0)[i] = static_cast<std::byte>(i / block + i);
    }

    [[nodiscard]] bool holds_disk(std::span<const std::byte> bytes, std::uint64_t first) const {
        return std::ranges::equal(bytes, machine->disk(0).subspan(first, bytes.size()));
    }
};

TEST_F(NvmeTest, reads_and_writes_of_every_shape) {
    if (!driver)
        return;
    Piece& data = piece(160);
    Piece& list = piece(2, read_only);
    for (const std::string_view name : {"read", "read by SGL"})
        for (const std::uint64_t offset : {0UL, 512UL, 4092UL})
            for (const std::uint64_t blocks : {1UL, 8UL, 9UL, 17UL, 1024UL}) {
                SCOPED_TRACE(std::string(name) + " of " + std::to_string(blocks) + " blocks at " +
                             std::to_string(offset));
                std::memset(data.memory.bytes().data(), static_cast<int>(canary), 160 * page);
                // A list that crosses a page boundary.
                const std::array lists = {audit::Buffer{list.iova + ByteCount(page - 64),
                                                        list.memory.bytes().subspan(page - 64)}};
                const std::uint64_t bytes = blocks * block;
                const auto answer = run(name, data.iova + ByteCount(offset), bytes, 3, lists);
                EXPECT_EQ(answer.verdict, Verdict::success) << answer.code;
                EXPECT_TRUE(holds_disk(data.memory.bytes().subspan(offset, bytes), 3 * block));
                EXPECT_EQ(data.untouched_from(offset + bytes), 160 * page);
                EXPECT_TRUE(faults().empty());
            }
    std::ranges::fill(data.memory.bytes(), std::byte{0x77});
    for (const std::string_view name : {"write", "write by SGL"}) {
        EXPECT_EQ(run(name, data.iova, 8 * block, 100).verdict, Verdict::success);
        EXPECT_EQ(run("flush", Iova(0), 0).verdict, Verdict::success);
        EXPECT_TRUE(holds_disk(data.memory.bytes().first(8 * block), 100 * block));
        std::ranges::fill(data.memory.bytes(), std::byte{0x78});
    }
    EXPECT_TRUE(faults().empty());
}

TEST_F(NvmeTest, queues_are_deleted_once_and_then_created_again) {
    if (!driver)
        return;
    Piece& data = piece(1);
    EXPECT_EQ(run("read", data.iova, block).verdict, Verdict::success);
    EXPECT_TRUE(driver->delete_queues().value_or(false));
    EXPECT_FALSE(driver->delete_queues().value_or(true));
    EXPECT_EQ(run("read", data.iova, block).verdict, Verdict::success);
    EXPECT_TRUE(faults().empty());
}

/// Doorbells are posted writes; completions and interrupts arrive in memory. The remaining reads
/// are the unit's fault status, and one of the controller if the machine was slow.
TEST_F(NvmeTest, operations_take_few_round_trips) {
    if (!driver)
        return;
    Piece& data = piece(1);
    const std::uint64_t before = machine->qtest().round_trips();
    for (unsigned i = 0; i != 100; ++i) {
        EXPECT_EQ(run("read", data.iova, block).verdict, Verdict::success);
        EXPECT_TRUE(faults().empty());
    }
    EXPECT_LE(machine->qtest().round_trips() - before, 200U);
}

TEST_F(NvmeTest, health_log_past_the_end_reaches_a_neighbour_that_is_mapped) {
    if (!driver)
        return;
    Piece& buffer = piece(2);
    EXPECT_EQ(run("health log", buffer.iova + ByteCount(page - bytes_inside), block).verdict,
              Verdict::success);
    EXPECT_EQ(buffer.untouched_from(0), page - bytes_inside);
    EXPECT_EQ(buffer.untouched_from(page), page);
    EXPECT_EQ(buffer.untouched_from(page + block - bytes_inside), 2 * page);
    EXPECT_TRUE(faults().empty());
}

TEST_F(NvmeTest, health_log_past_the_end_is_success_though_blocked) {
    if (!driver)
        return;
    Piece& buffer = piece(1);
    const Iova data = buffer.iova + ByteCount(page - bytes_inside);
    EXPECT_EQ(run("health log", data, block).verdict, Verdict::success);
    EXPECT_EQ(buffer.untouched_from(0), page - bytes_inside);
    expect_fault(fault::Access::write, data + ByteCount(bytes_inside), 5);
}

TEST_F(NvmeTest, blocks_beyond_a_short_buffer_are_success_though_blocked) {
    if (!driver)
        return;
    Piece& buffer = piece(1);
    EXPECT_EQ(run("read", buffer.iova, 16 * block).verdict, Verdict::success);
    EXPECT_TRUE(holds_disk(buffer.memory.bytes(), 0));
    expect_fault(fault::Access::write, buffer.iova + ByteCount(page), 5);
    EXPECT_EQ(run("write", buffer.iova, 16 * block, 64).verdict, Verdict::success);
    expect_fault(fault::Access::read, buffer.iova + ByteCount(page), 6);
}

TEST_F(NvmeTest, list_that_is_not_mapped) {
    if (!driver)
        return;
    Piece& buffer = piece(4);
    std::array<std::byte, 64> nowhere{};
    const std::array lists = {audit::Buffer{Iova(0x70000000), nowhere}};
    const auto answer = run("read", buffer.iova, 4 * page, 0, lists);
    EXPECT_EQ(answer.verdict, Verdict::failure);
    EXPECT_EQ(answer.code, 0x04U);
    EXPECT_EQ(buffer.untouched_from(0), 4 * page);
    expect_fault(fault::Access::read, Iova(0x70000000), 6);
}

TEST_F(NvmeTest, list_with_an_entry_that_is_not_aligned) {
    if (!driver)
        return;
    Piece& buffer = piece(4);
    Piece& list = piece(1);
    const std::uint64_t odd = buffer.iova.value() + page + 4;
    std::memcpy(list.memory.bytes().data(), &odd, sizeof odd);
    std::array<std::byte, 64> elsewhere{}; // the correct driver writes the right one
    const std::array lists = {audit::Buffer{list.iova, elsewhere}};
    const auto answer = run("read", buffer.iova, 4 * page, 0, lists);
    EXPECT_EQ(answer.verdict, Verdict::failure);
    EXPECT_EQ(answer.code, 0x13U);
    EXPECT_TRUE(faults().empty());
}

TEST_F(NvmeTest, admin_queues_that_are_not_mapped) {
    if (!driver)
        return;
    constexpr std::uint64_t fatal = 2;
    Piece& buffer = piece(1);
    for (const bool completions : {false, true}) {
        SCOPED_TRACE(completions ? "completions" : "submissions");
        Piece& queue = *queues[completions ? 1 : 0];
        ASSERT_TRUE(domain->unmap(queue.iova, ByteCount(page)));
        const auto answer = run("health log", buffer.iova, block);
        EXPECT_EQ(answer.verdict, Verdict::no_answer);
        EXPECT_NE(answer.code & fatal, 0U);
        if (completions)
            expect_fault(fault::Access::write, queue.iova, 5);
        else
            expect_fault(fault::Access::read, queue.iova, 6);
        ASSERT_TRUE(domain->map(queue.iova, ByteCount(page), queue.memory.physical(), read_write));
        EXPECT_EQ(run("health log", buffer.iova, block).verdict, Verdict::success);
        EXPECT_TRUE(faults().empty());
    }
}

} // namespace
} // namespace moat::tests
