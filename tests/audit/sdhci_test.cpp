// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's SD host controller with a card: ADMA2 inside buffers and past them, and descriptor tables
// that are not mapped.
#include "device_bench.hpp"

#include <chrono>

namespace moat::tests {
namespace {

using namespace moat::literals;
using audit::Verdict;

constexpr std::uint64_t card_block = 512;
/// Of the controller's errors, in the upper half of an answer's code.
constexpr std::uint64_t adma_error = std::uint64_t{1} << (32 + 25);

class SdhciTest : public DeviceTest {
  protected:
    void SetUp() override { drive_card("sdhci-pci,addr=5", 4_MiB); }

    void drive_card(const std::string& controller, ByteCount size) {
        drive({.devices = {controller, "sd-card,drive=disk0"}, .disks = {size}}, 0x080501);
        if (!driver)
            return;
        const std::span<std::byte> filled = machine->disk(0).first((4_MiB).value());
        for (std::size_t i = 0; i != filled.size(); ++i)
            filled[i] = static_cast<std::byte>(i / card_block + i);
    }

    [[nodiscard]] bool holds_card(std::span<const std::byte> bytes, std::uint64_t first) const {
        return std::ranges::equal(bytes, machine->disk(0).subspan(first, bytes.size()));
    }

    /// Its descriptor table starts at `at` in `table`.
    audit::Answer transfer(std::string_view name, Iova data, std::uint64_t length,
                           std::uint64_t position, Piece& table, std::uint64_t at) {
        const audit::Buffer list{table.iova + ByteCount(at), table.memory.bytes().subspan(at)};
        return run(name, data, length, position, {&list, 1});
    }

    /// Its descriptor table ends at the end of `table`'s pages.
    audit::Answer transfer(std::string_view name, Iova data, std::uint64_t length,
                           std::uint64_t position, Piece& table) {
        const auto needs = driver->lists_for(
            {.operation = operation(name), .data = data, .length = ByteCount(length)});
        EXPECT_EQ(needs.size(), 1U);
        const std::uint64_t bytes = needs.at(0).size.value();
        return transfer(name, data, length, position, table, table.memory.bytes().size() - bytes);
    }

    void read_every_shape(std::uint64_t first) {
        Piece& data = piece(40);
        Piece& table = piece(1, read_only);
        for (const std::uint64_t offset : {0UL, 4UL, 4092UL})
            for (const std::uint64_t blocks : {1UL, 8UL, 9UL, 256UL}) {
                SCOPED_TRACE(std::to_string(blocks) + " blocks at " + std::to_string(offset));
                std::ranges::fill(data.memory.bytes(), canary);
                const std::uint64_t bytes = blocks * card_block;
                const audit::Answer answer =
                    transfer("read", data.iova + ByteCount(offset), bytes, first, table);
                EXPECT_EQ(answer.verdict, Verdict::success) << answer.code;
                EXPECT_TRUE(
                    holds_card(data.memory.bytes().subspan(offset, bytes), first * card_block));
                EXPECT_EQ(data.untouched_from(offset + bytes), data.memory.bytes().size());
            }
        EXPECT_TRUE(faults().empty());
    }
};

TEST_F(SdhciTest, reads_and_writes) {
    if (!driver)
        return;
    EXPECT_EQ(driver->medium().size, 4_MiB);
    EXPECT_EQ(driver->medium().unit, ByteCount(card_block));
    read_every_shape(5);
    Piece& data = piece(8);
    Piece& table = piece(1, read_only);
    for (std::size_t i = 0; i != data.memory.bytes().size(); ++i)
        data.memory.bytes()[i] = static_cast<std::byte>(7 * i);
    for (const std::uint64_t blocks : {1UL, 33UL}) {
        const std::uint64_t bytes = blocks * card_block;
        EXPECT_EQ(transfer("write", data.iova + ByteCount(4), bytes, 100, table).verdict,
                  Verdict::success);
        EXPECT_TRUE(holds_card(data.memory.bytes().subspan(4, bytes), 100 * card_block));
    }
    std::ranges::fill(data.memory.bytes(), canary);
    EXPECT_EQ(transfer("status", data.iova, 64, 0, table).verdict, Verdict::success);
    EXPECT_EQ(data.memory.bytes()[0], std::byte{0}) << "the width of the bus, 1 bit";
    EXPECT_EQ(data.untouched_from(64), data.memory.bytes().size());
    EXPECT_TRUE(faults().empty());
}

TEST_F(SdhciTest, transfers_past_the_card_fail) {
    if (!driver)
        return;
    Piece& data = piece(4);
    Piece& table = piece(1, read_only);
    const std::uint64_t end = 4_MiB .value() / card_block;
    for (const std::string_view name : {"read", "write"}) {
        EXPECT_EQ(transfer(name, data.iova, card_block, end, table).verdict, Verdict::failure);
        EXPECT_EQ(transfer(name, data.iova, 8 * card_block, end, table).verdict, Verdict::failure);
        EXPECT_EQ(transfer(name, data.iova, card_block, end - 1, table).verdict, Verdict::success)
            << "and it goes on";
    }
    EXPECT_EQ(transfer("write", data.iova, 8 * card_block, end - 1, table).verdict,
              Verdict::failure)
        << "which the card reports when it is stopped";
    EXPECT_EQ(transfer("write", data.iova, 8 * card_block, end - 8, table).verdict,
              Verdict::success);
    EXPECT_TRUE(faults().empty());
}

TEST_F(SdhciTest, blocks_beyond_a_short_buffer_are_an_error) {
    if (!driver)
        return;
    Piece& buffer = piece(1);
    Piece& table = piece(1, read_only);
    const audit::Answer read = transfer("read", buffer.iova, 16 * card_block, 0, table);
    EXPECT_EQ(read.verdict, Verdict::failure);
    EXPECT_NE(read.code & adma_error, 0U);
    expect_fault(fault::Access::write, buffer.iova + ByteCount(page), 5);
    EXPECT_TRUE(holds_card(buffer.memory.bytes(), 0));

    std::ranges::fill(buffer.memory.bytes(), std::byte{0x77});
    const audit::Answer written = transfer("write", buffer.iova, 16 * card_block, 40, table);
    EXPECT_EQ(written.verdict, Verdict::failure);
    EXPECT_NE(written.code & adma_error, 0U);
    expect_fault(fault::Access::read, buffer.iova + ByteCount(page), 6);
    EXPECT_TRUE(holds_card(buffer.memory.bytes(), 40 * card_block));
    EXPECT_EQ(machine->disk(0)[48 * card_block], std::byte{48}) << "the card keeps the rest";
}

/// Error recovery: the next operation takes no new identification of the card.
TEST_F(SdhciTest, descriptor_table_that_is_not_mapped_is_an_error) {
    if (!driver)
        return;
    Piece& data = piece(2);
    Piece& table = piece(1, read_only);
    ASSERT_TRUE(domain->unmap(table.iova, table.memory.size()));
    for (const std::string_view name : {"read", "write"}) {
        SCOPED_TRACE(name);
        const audit::Answer answer = transfer(name, data.iova, 8 * card_block, 5, table);
        EXPECT_EQ(answer.verdict, Verdict::failure);
        EXPECT_NE(answer.code & adma_error, 0U);
        EXPECT_EQ(data.untouched_from(0), data.memory.bytes().size());
        expect_fault(fault::Access::read, table.iova, 6);
    }
    Piece& mapped = piece(1, read_only);
    const std::uint64_t before = machine->qtest().round_trips();
    EXPECT_EQ(transfer("read", data.iova, 8 * card_block, 5, mapped).verdict, Verdict::success);
    EXPECT_LT(machine->qtest().round_trips() - before, 10U);
    EXPECT_TRUE(holds_card(data.memory.bytes().first(8 * card_block), 5 * card_block));
    EXPECT_TRUE(faults().empty());
}

TEST_F(SdhciTest, descriptor_table_that_ends_too_early_ends_the_transfer) {
    if (!driver)
        return;
    Piece& data = piece(3);
    Piece& table = piece(2);
    ASSERT_TRUE(domain->unmap(table.iova + ByteCount(page), ByteCount(page)));
    constexpr std::uint64_t two_lines = 16;
    const audit::Answer answer = transfer("read", data.iova, 3 * page, 5, table, page - two_lines);
    EXPECT_EQ(answer.verdict, Verdict::failure);
    EXPECT_NE(answer.code & adma_error, 0U);
    expect_fault(fault::Access::read, table.iova + ByteCount(page), 6);
    EXPECT_TRUE(holds_card(data.memory.bytes().first(2 * page), 5 * card_block));
    EXPECT_EQ(data.untouched_from(2 * page), data.memory.bytes().size());
}

/// The line of a page that is not mapped, before another line: docs/findings.md.
class SdhciBlockedLineTest : public SdhciTest {
  protected:
    void SetUp() override {
        SdhciTest::SetUp();
        if (!driver)
            return;
        data_ = &piece(2);
        Piece& table = piece(1, read_only);
        ASSERT_TRUE(domain->unmap(data_->iova, ByteCount(page)));
        EXPECT_EQ(transfer("read", data_->iova, 2 * page, 5, table).verdict, Verdict::failure);
        (void)faults_later();
        auto strays = [this] { return !faults().empty(); };
        ASSERT_EQ(machine->wait_until(strays, longest), machine::Wait::happened)
            << "it goes on after the reset of both lines";
    }

    [[nodiscard]] std::vector<fault::Record> faults_later() const {
        auto never = [] { return false; };
        (void)machine->wait_until(never, std::chrono::milliseconds(2));
        return faults();
    }

    static constexpr std::chrono::seconds longest{5};
    Piece* data_ = nullptr;
};

TEST_F(SdhciBlockedLineTest, is_written_once_its_page_is_mapped) {
    if (!driver)
        return;
    EXPECT_EQ(data_->untouched_from(0), 2 * page);
    ASSERT_TRUE(domain->map(data_->iova, ByteCount(page), data_->memory.physical(), read_write));
    auto writes = [this] { return data_->untouched_from(0) == 0; };
    EXPECT_EQ(machine->wait_until(writes, longest), machine::Wait::happened)
        << "after the operation failed";
    (void)faults_later();
    EXPECT_TRUE(faults_later().empty());
}

TEST_F(SdhciBlockedLineTest, ends_with_a_reset_of_the_controller) {
    if (!driver)
        return;
    constexpr unsigned software_reset = 0x2f;
    constexpr std::uint8_t of_everything = 1;
    (*function->bar(0))->write8(software_reset, of_everything);
    (void)faults_later();
    EXPECT_TRUE(faults_later().empty());
}

/// A card of more than 2 GiB counts blocks, and lines have 12 bytes.
class SdhciWideTest : public SdhciTest {
  protected:
    void SetUp() override {
        constexpr std::string_view capabilities_with_64_bits = "0x157834b4";
        drive_card("sdhci-pci,addr=5,capareg=" + std::string(capabilities_with_64_bits), 4_GiB);
    }
};

TEST_F(SdhciWideTest, reads_with_long_addresses) {
    if (!driver)
        return;
    EXPECT_EQ(driver->medium().size, 4_GiB);
    read_every_shape(5);
    const auto needs = driver->lists_for(
        {.operation = operation("read"), .data = Iova(page), .length = ByteCount(3 * page)});
    EXPECT_EQ(needs.at(0).size, ByteCount(36));
}

} // namespace
} // namespace moat::tests
