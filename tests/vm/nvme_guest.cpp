// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An NVMe controller driven through the DMA API on the kernel's tables. vm_test.py checks the
// written data from outside, on the disk's image.
#include "guest.hpp"

namespace moat::tests {
namespace {

constexpr std::uint64_t block = 512;
constexpr std::uint64_t written_at = (1 << 20) / block;
constexpr std::uint64_t written_bytes = 12 << 10;

/// From the kernel's count of interrupts that it turned into an eventfd.
std::uint64_t interrupts_of_queue() {
    std::istringstream lines(content("/proc/interrupts"));
    std::string line;
    std::uint64_t count = 0;
    while (std::getline(lines, line)) {
        if (line.find("vfio-msix[1](0000:00:05.0)") == line.npos)
            continue;
        std::istringstream numbers(line);
        std::string number;
        numbers >> number;
        std::uint64_t of_processor = 0;
        while (numbers >> of_processor)
            count += of_processor;
    }
    return count;
}

class NvmeTest : public GuestTest {
  protected:
    void SetUp() override {
        GuestTest::SetUp();
        if (HasFatalFailure())
            return;
        open_function(nvme);
        make_space();
        drive();
    }
};

TEST_F(NvmeTest, reads_and_writes_with_interrupts) {
    const auto buffer = memory_of(3);
    const dma::Memory memory{buffer.bytes(), buffer.physical()};
    const auto list_memory = memory_of(1);
    const dma::Memory list_bytes{list_memory.bytes(), list_memory.physical()};
    const auto data = space->map(memory, dma::Direction::bidirectional, "data");
    const auto list = space->map(list_bytes, dma::Direction::to_device, "PRP list");
    ASSERT_TRUE(data && list);
    const audit::Buffer lists[] = {{*list, list_memory.bytes()}};
    EXPECT_EQ(run("identify", *data, page).verdict, audit::Verdict::success);
    EXPECT_GT(changed(buffer.bytes().first(page)), 0);
    EXPECT_EQ(run("health log", *data, 512).verdict, audit::Verdict::success);
    for (std::size_t i = 0; i != written_bytes; ++i)
        buffer.bytes()[i] = static_cast<std::byte>(i * 7 + i / block);
    const std::vector<std::byte> wanted(buffer.bytes().begin(), buffer.bytes().end());
    const std::uint64_t interrupts = interrupts_of_queue();
    EXPECT_EQ(run("write", *data, written_bytes, written_at, lists).verdict,
              audit::Verdict::success);
    EXPECT_EQ(interrupts_of_queue(), interrupts + 1) << "the driver waited for its eventfd";
    std::ranges::fill(buffer.bytes(), canary);
    EXPECT_EQ(run("read", *data, written_bytes, written_at, lists).verdict,
              audit::Verdict::success);
    EXPECT_TRUE(std::ranges::equal(buffer.bytes(), wanted));
    EXPECT_EQ(run("flush", *data, 0).verdict, audit::Verdict::success);
    EXPECT_TRUE(space->unmap(*data, memory.size(), dma::Direction::bidirectional));
    EXPECT_TRUE(space->unmap(*list, list_bytes.size(), dma::Direction::to_device));
}

/// A length of two pages for a buffer of one: the second PRP lies in the guard.
TEST_F(NvmeTest, a_prp_that_lies_behind_its_buffer_is_caught) {
    const auto buffer = memory_of(1);
    const auto beside = memory_of(1);
    const auto data = space->map({buffer.bytes(), buffer.physical()}, dma::Direction::from_device,
                                 "a page of data");
    const auto neighbour = space->map({beside.bytes(), beside.physical()},
                                      dma::Direction::from_device, "its neighbour");
    ASSERT_TRUE(data && neighbour);
    (void)run("read", *data, 2 * page);
    bring_fault_home();
    EXPECT_EQ(changed(beside.bytes()), 0);
    ASSERT_FALSE(heard.empty());
    EXPECT_EQ(heard[0].kind, fault::Kind::out_of_bounds_right);
    EXPECT_EQ(heard[0].mapping.value_or(fault::Mapping{}).label, "a page of data");
    EXPECT_EQ(heard[0].record.source.id(), nvme.requester());
    EXPECT_TRUE(space->unmap(*data, 4_KiB, dma::Direction::from_device));
    EXPECT_TRUE(space->unmap(*neighbour, 4_KiB, dma::Direction::from_device));
}

} // namespace
} // namespace moat::tests
