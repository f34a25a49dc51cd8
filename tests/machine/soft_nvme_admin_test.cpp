// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The NVMe model's registers, admin commands and queues as real drivers use them, and the mistakes
// of drivers that it remarks.
#include "soft_nvme.hpp"

#include <optional>
#include <set>
#include <string>
#include <vector>

namespace moat::machine::soft {

namespace {

class SoftNvmeAdmin : public SoftNvme {
  protected:
    using SoftNvme::SoftNvme;

    void SetUp() override {
        SoftNvme::SetUp();
        nvme.report_to([this](const Remark& remark) { remarks.push_back(remark); });
    }

    /// An admin command whose data are a page at data_iova.
    Completion ask(std::uint32_t opcode, std::uint32_t word10, std::uint32_t name_space = 0,
                   std::uint32_t word11 = 0) {
        Words command{opcode, name_space};
        set_wide(command, 6, data_iova);
        set_wide(command, 8, data_iova + page);
        command[10] = word10;
        command[11] = word11;
        return submit(admin, command);
    }

    [[nodiscard]] std::uint32_t status() { return system.registers().read32(0x1c); }

    /// A submission without waiting for the completion. Return: its number.
    std::uint16_t post(Queue& queue, Words command) {
        command[0] |= static_cast<std::uint32_t>(++number) << 16;
        std::memcpy(queue.submissions.bytes().data() + 64 * queue.tail, command.data(), 64);
        queue.tail = (queue.tail + 1) % depth;
        system.registers().write32(0x1000 + 8 * queue.number, queue.tail);
        system.run();
        return number;
    }

    /// The next completion; nothing if there is none.
    std::optional<Completion> next(Queue& queue) {
        std::array<std::uint32_t, 4> entry{};
        std::memcpy(entry.data(), queue.completions.bytes().data() + 16 * queue.head, 16);
        if (((entry[3] >> 16 & 1) != 0) != queue.phase)
            return std::nullopt;
        queue.head = (queue.head + 1) % depth;
        queue.phase = queue.head == 0 ? !queue.phase : queue.phase;
        system.registers().write32(0x1004 + 8 * queue.number, queue.head);
        return Completion{entry[0], static_cast<Status>(entry[3] >> 17 & 0x7ff),
                          static_cast<std::uint16_t>(entry[3]), (entry[3] >> 31) != 0};
    }

    /// Without a reset of the function.
    void disable_and_start() {
        system.registers().write32(0x14, 6U << 16 | 4U << 20);
        EXPECT_EQ(status(), 0U);
        for (Queue* const each : {&admin, &io}) {
            std::ranges::fill(each->completions.bytes(), std::byte{0});
            each->tail = each->head = 0;
            each->phase = true;
        }
        start();
    }

    /// The only remark since the last call.
    Remark one_remark() {
        EXPECT_EQ(remarks.size(), 1U);
        return remarks.empty() ? Remark{} : std::exchange(remarks, {}).front();
    }

    template <class T>
    [[nodiscard]] T datum(std::size_t offset) const {
        T value{};
        std::memcpy(&value, data.bytes().data() + offset, sizeof value);
        return value;
    }

    Mapped data = system.map(data_iova, 2 * page, "data");
    std::vector<Remark> remarks;
};

TEST_F(SoftNvmeAdmin, answers_accesses_of_every_width) {
    Registers& registers = system.registers();
    const std::uint64_t capabilities = registers.read64(0);
    EXPECT_EQ(capabilities & 0xffff, Nvme::most_entries - 1);
    EXPECT_EQ(capabilities >> 32 & 0xf, 0U) << "doorbells of 4 bytes";
    for (std::uint64_t at = 0; at != 0x40; at += 8) {
        const std::uint64_t whole = registers.read64(at);
        for (unsigned byte = 0; byte != 8; ++byte)
            EXPECT_EQ(registers.read8(at + byte), whole >> 8 * byte & 0xff) << at + byte;
        for (unsigned half = 0; half != 8; half += 2)
            EXPECT_EQ(registers.read16(at + half), whole >> 8 * half & 0xffff) << at + half;
        for (unsigned word = 0; word != 8; word += 4)
            EXPECT_EQ(registers.read32(at + word), whole >> 8 * word & 0xffffffff) << at + word;
    }
    EXPECT_EQ(nvme.read(0, 8, Width::bits8), 0U) << "the version, 0x10400, cut by the model itself";
    registers.write8(0x0c, 2);
    registers.write16(0x0e, 0x8000);
    EXPECT_EQ(registers.read32(0x0c), 0x80000002U);
    registers.write8(0x13, 0x80);
    EXPECT_EQ(registers.read32(0x10), 2U) << "narrow clears leave the other bits";
    registers.write16(0x16, 0);
    EXPECT_EQ(registers.read32(0x14), 1U) << "enabled still";
    registers.write8(0x2a, 0xab);
    EXPECT_EQ(registers.read64(0x28), 0xab0000U | (admin.submissions.iova.value() & 0xffff));
    registers.write64(0x30, 0x123456789abcd000);
    EXPECT_EQ(registers.read64(0x30), 0x123456789abcd000U);
    registers.write32(0x34, 1);
    EXPECT_EQ(registers.read64(0x30), 0x19abcd000U);
    registers.write16(0x1000, static_cast<std::uint16_t>(admin.tail));
    EXPECT_TRUE(remarks.empty());
}

TEST_F(SoftNvmeAdmin, describes_controller_and_namespace) {
    ASSERT_EQ(ask(6, 1).status, Status::success);
    EXPECT_EQ(datum<std::uint32_t>(80), 0x10400U);
    EXPECT_EQ(datum<std::uint8_t>(111), 1) << "an I/O controller";
    EXPECT_EQ(datum<std::uint16_t>(520), 0x0d) << "compare, deallocate, write zeroes";
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(data.bytes().data()) + 4, 9), "MOAT0001 ");
    EXPECT_EQ(
        std::string_view(reinterpret_cast<const char*>(data.bytes().data()) + 768).substr(0, 28),
        "nqn.2014-08.org.nvmexpress:1");
    ASSERT_EQ(ask(6, 0, 1).status, Status::success);
    EXPECT_EQ(datum<std::uint8_t>(33), 9) << "deallocated blocks are zeroes";
    const std::uint64_t extended = datum<std::uint64_t>(120);
    EXPECT_NE(extended, 0U);
    ASSERT_EQ(ask(6, 3, 1).status, Status::success);
    EXPECT_EQ(datum<std::uint16_t>(0), 0x0801);
    EXPECT_EQ(datum<std::uint64_t>(4), extended);
    EXPECT_EQ(datum<std::uint16_t>(12), 0x1002);
    EXPECT_EQ(datum<std::uint16_t>(32), 0x1003);
    EXPECT_EQ(datum<std::uint16_t>(52), 0) << "the end";
    ASSERT_EQ(ask(6, 2, 0).status, Status::success);
    EXPECT_EQ(datum<std::uint64_t>(0), 1U) << "one namespace";
    ASSERT_EQ(ask(6, 2, 1).status, Status::success);
    EXPECT_EQ(datum<std::uint64_t>(0), 0U);
    EXPECT_EQ(ask(6, 2, 0xfffffffe).status, Status::invalid_namespace);
    EXPECT_EQ(ask(6, 3, 2).status, Status::invalid_namespace);
    const Completion unknown = ask(6, 6, 1);
    EXPECT_EQ(unknown.status, Status::invalid_field) << "of version 2.0";
    EXPECT_TRUE(unknown.do_not_retry);
}

class SoftNvmeLarge : public SoftNvmeAdmin {
  protected:
    SoftNvmeLarge()
        : SoftNvmeAdmin({.capacity = ByteCount(std::uint64_t{1} << 30),
                         .block_lg2 = 12,
                         .serial_number = 12}) {}
};

TEST_F(SoftNvmeLarge, has_the_size_and_number_that_it_was_given) {
    ASSERT_EQ(ask(6, 1).status, Status::success);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(data.bytes().data()) + 4, 9), "MOAT0012 ");
    ASSERT_EQ(ask(6, 0, 1).status, Status::success);
    EXPECT_EQ(datum<std::uint64_t>(0), 1U << 18);
    EXPECT_EQ(datum<std::uint8_t>(130), 12);
    ASSERT_EQ(ask(6, 3, 1).status, Status::success);
    EXPECT_EQ(datum<std::uint8_t>(4 + 7), 12) << "the end of the EUI-64";
    EXPECT_EQ(submit(io, blocks(2, (1U << 18) - 1, 1)).status, Status::success);
    EXPECT_EQ(submit(io, blocks(2, 1U << 18, 1)).status, Status::lba_out_of_range);
}

TEST_F(SoftNvmeAdmin, has_the_logs_that_drivers_read) {
    const auto log = [&](std::uint32_t which, std::uint32_t bytes, std::uint64_t offset = 0) {
        Words command{2, 0xffffffff};
        set_wide(command, 6, data_iova);
        set_wide(command, 8, data_iova + page);
        command[10] = which | (bytes / 4 - 1) << 16;
        set_wide(command, 12, offset);
        return submit(admin, command).status;
    };
    ASSERT_EQ(log(5, 4096), Status::success);
    EXPECT_EQ(datum<std::uint32_t>(6 * 4), 1U) << "identify is supported";
    EXPECT_EQ(datum<std::uint32_t>(3 * 4), 0U);
    EXPECT_EQ(datum<std::uint32_t>(1024 + 1 * 4), 3U) << "write changes blocks";
    EXPECT_EQ(datum<std::uint32_t>(1024 + 2 * 4), 1U);
    ASSERT_EQ(log(5, 4, 1024 + 4), Status::success);
    EXPECT_EQ(datum<std::uint32_t>(0), 3U) << "from an offset";
    ASSERT_EQ(log(3, 512), Status::success);
    EXPECT_EQ(std::memcmp(data.bytes().data() + 8, "1.0     ", 8), 0);
    ASSERT_EQ(log(2, 512), Status::success);
    EXPECT_EQ(datum<std::uint8_t>(4), 10);
    EXPECT_EQ(log(1, 64), Status::success);
    EXPECT_EQ(log(1, 64, 68), Status::invalid_field);
    EXPECT_EQ(log(4, 64), Status::invalid_log_page);
}

TEST_F(SoftNvmeAdmin, refuses_features_that_it_lacks) {
    for (const std::uint32_t feature : {0x0cU, 0x0eU, 0x0fU, 0x81U}) {
        const Completion completion = ask(9, feature);
        EXPECT_EQ(completion.status, Status::invalid_field) << feature;
        EXPECT_TRUE(completion.do_not_retry);
        EXPECT_EQ(ask(10, feature).status, Status::invalid_field) << feature;
    }
    EXPECT_EQ(ask(10, 4).result, 343U);
    EXPECT_EQ(ask(10, 6).result, 1U) << "the write cache";
    EXPECT_EQ(ask(9, 6, 0, 0).status, Status::success);
    EXPECT_EQ(ask(10, 6).result, 0U);
    EXPECT_EQ(ask(9, 2, 0, 1).status, Status::invalid_field) << "one power state";
    EXPECT_EQ(ask(9, 1U << 31 | 6).status, Status::feature_not_saveable);
}

TEST_F(SoftNvmeAdmin, negotiates_the_number_of_queues) {
    const Completion late = ask(9, 7, 0, 3 | 3U << 16);
    EXPECT_EQ(late.status, Status::command_sequence_error) << "there are queues";
    ASSERT_EQ(ask(0, 1).status, Status::success);
    ASSERT_EQ(ask(4, 1).status, Status::success);
    EXPECT_EQ(ask(9, 7, 0, 0xffff).status, Status::invalid_field);
    EXPECT_EQ(ask(9, 7, 0, 0xffff0000).status, Status::invalid_field);
    EXPECT_EQ(ask(9, 7, 0, 0x0fff0fff).result, (Nvme::most_queues - 2) * 0x10001);
    EXPECT_EQ(ask(9, 7, 0, 0x00010000).result, 0x00010000U) << "one, and two for completions";
    EXPECT_EQ(ask(10, 7).result, 0x00010000U);
    const auto create = [&](std::uint32_t opcode, std::uint32_t queue, std::uint32_t word) {
        Words command{opcode};
        set_wide(command, 6, data_iova);
        command[10] = queue | 1U << 16;
        command[11] = word;
        return submit(admin, command).status;
    };
    EXPECT_EQ(create(5, 3, 1), Status::invalid_queue_identifier);
    EXPECT_EQ(create(5, 2, 1), Status::success);
    EXPECT_EQ(create(1, 2, 1 | 2U << 16), Status::invalid_queue_identifier);
    EXPECT_EQ(create(1, 1, 1 | 2U << 16), Status::success);
    EXPECT_TRUE(remarks.empty());
}

TEST_F(SoftNvmeAdmin, takes_queues_of_as_many_entries_as_it_claims) {
    const auto create = [&](std::uint32_t entries, std::uint64_t memory) {
        Words command{5};
        set_wide(command, 6, memory);
        command[10] = 2 | (entries - 1) << 16;
        command[11] = 1;
        return submit(admin, command).status;
    };
    EXPECT_EQ(create(Nvme::most_entries + 1, data_iova), Status::invalid_queue_size);
    EXPECT_EQ(create(1, data_iova), Status::invalid_queue_size);
    EXPECT_EQ(create(2, data_iova + 8), Status::invalid_prp_offset);
    EXPECT_EQ(one_remark().mistake, Mistake::invalid_data_pointer);
    EXPECT_EQ(create(Nvme::most_entries, data_iova), Status::success);
}

TEST_F(SoftNvmeAdmin, keeps_requests_for_events_until_there_is_one) {
    std::vector<std::uint16_t> requests;
    for (unsigned request = 0; request != Nvme::most_event_requests; ++request)
        requests.push_back(post(admin, {0x0c}));
    EXPECT_FALSE(next(admin));
    const Completion fifth = submit(admin, {0x0c});
    EXPECT_EQ(fifth.status, Status::too_many_event_requests);
    EXPECT_TRUE(fifth.do_not_retry);

    system.registers().write32(0x1000 + 8, depth);
    system.run();
    std::optional<Completion> event = next(admin);
    ASSERT_TRUE(event);
    EXPECT_EQ(event->number, requests[0]);
    EXPECT_EQ(event->status, Status::success);
    EXPECT_EQ(event->result, 0x010100U) << "an invalid value in a doorbell";
    system.registers().write32(0x1000 + 8 * 5, 1);
    system.run();
    EXPECT_FALSE(next(admin)) << "the log page is not read yet";
    ASSERT_EQ(ask(2, 1 | 1U << 15 | 15U << 16).status, Status::success) << "retains the event";
    system.run();
    EXPECT_FALSE(next(admin));
    ASSERT_EQ(ask(2, 1 | 15U << 16).status, Status::success);
    system.run();
    event = next(admin);
    ASSERT_TRUE(event);
    EXPECT_EQ(event->number, requests[1]);
    EXPECT_EQ(event->result, 0x010000U) << "a doorbell without a queue";
}

TEST_F(SoftNvmeAdmin, aborts_requests_for_events) {
    const std::uint16_t request = post(admin, {0x0c});
    post(admin, {8, 0, 0, 0, 0, 0, 0, 0, 0, 0, static_cast<std::uint32_t>(request) << 16});
    const std::optional<Completion> aborted = next(admin);
    ASSERT_TRUE(aborted);
    EXPECT_EQ(aborted->number, request);
    EXPECT_EQ(aborted->status, Status::command_aborted);
    EXPECT_FALSE(aborted->do_not_retry);
    const std::optional<Completion> abort = next(admin);
    ASSERT_TRUE(abort);
    EXPECT_EQ(abort->number, number);
    EXPECT_EQ(abort->status, Status::success);
    EXPECT_EQ(abort->result, 0U);
    EXPECT_EQ(ask(8, static_cast<std::uint32_t>(request) << 16).result, 1U) << "not aborted";
}

TEST_F(SoftNvmeAdmin, shuts_down_without_completing_requests_for_events) {
    post(admin, {0x0c});
    const std::uint32_t configuration = system.registers().read32(0x14);
    system.registers().write32(0x14, configuration | 1U << 14);
    EXPECT_EQ(status(), 1U | 1U << 2) << "in progress";
    system.run();
    EXPECT_EQ(status(), 1U | 2U << 2) << "complete";
    system.registers().write32(0x14, configuration | 1U << 14);
    EXPECT_EQ(status(), 1U | 2U << 2) << "once is enough";
    system.registers().write32(0x14, configuration & ~1U);
    system.run();
    EXPECT_EQ(status(), 0U);
    EXPECT_FALSE(next(admin));
}

TEST_F(SoftNvmeAdmin, forgets_its_queues_when_disabled) {
    post(admin, {0x0c});
    ASSERT_EQ(ask(9, 6, 0, 0).status, Status::success);
    system.registers().write32(0x0c, 4);
    disable_and_start();
    EXPECT_EQ(system.registers().read32(0x0c), 0U) << "no vector is masked";
    EXPECT_EQ(ask(10, 6).result, 1U);
    EXPECT_EQ(ask(9, 7, 0, 0).result, 0U) << "one queue";
    EXPECT_EQ(create_io_queues(), Status::success);
    disable_and_start();
    EXPECT_EQ(ask(10, 7).result, (Nvme::most_queues - 2) * 0x10001);
    for (unsigned request = 0; request != Nvme::most_event_requests; ++request)
        post(admin, {0x0c});
    EXPECT_FALSE(next(admin)) << "the earlier request does not count";
    EXPECT_TRUE(remarks.empty());
}

/// The commands of both queues are there before the controller works; it takes turns.
TEST_F(SoftNvmeAdmin, never_completes_what_was_in_a_deleted_queue) {
    Words remove{0 | 7U << 16};
    remove[10] = 1;
    std::memcpy(admin.submissions.bytes().data() + 64 * admin.tail, remove.data(), 64);
    admin.tail = (admin.tail + 1) % depth;
    const Words flush_it{0, 1};
    for (unsigned command = 0; command != 3; ++command)
        std::memcpy(io.submissions.bytes().data() + 64 * command, flush_it.data(), 64);
    system.registers().write32(0x1008, 3);
    system.registers().write32(0x1000, admin.tail);
    system.run();
    const std::optional<Completion> removed = next(admin);
    ASSERT_TRUE(removed);
    EXPECT_EQ(removed->status, Status::success);
    EXPECT_TRUE(next(io)) << "its turn came before the deletion";
    EXPECT_FALSE(next(io));
    EXPECT_EQ(ask(4, 1).status, Status::success);
    system.registers().write32(0x1008, 4);
    EXPECT_EQ(one_remark().mistake, Mistake::doorbell_without_queue);
}

TEST_F(SoftNvmeAdmin, deallocates_and_zeroes_and_compares) {
    fill_medium();
    const auto medium = nvme.medium();
    const std::vector<std::byte> before(medium.begin(), medium.end());
    Words zero{8, 1};
    set_wide(zero, 10, 2);
    zero[12] = 999; // more than a transfer may have
    ASSERT_EQ(submit(io, zero).status, Status::success);
    EXPECT_TRUE(std::ranges::equal(medium.first(1024), std::span(before).first(1024)));
    const std::size_t end = std::size_t{1002} * 512;
    EXPECT_EQ(std::ranges::count(medium.subspan(1024, end - 1024), std::byte{0}), end - 1024);
    EXPECT_TRUE(std::ranges::equal(medium.subspan(end), std::span(before).subspan(end)));
    set_wide(zero, 10, medium.size() / 512 - 1);
    EXPECT_EQ(submit(io, zero).status, Status::lba_out_of_range);

    const auto ranges = [&](std::uint32_t flags, std::uint64_t first, std::uint32_t count) {
        const std::array<std::uint64_t, 4> table = {std::uint64_t{1} << 32, 2000,
                                                    std::uint64_t{count} << 32, first};
        std::memcpy(data.bytes().data(), table.data(), sizeof table);
        Words command{9, 1};
        set_wide(command, 6, data_iova);
        command[10] = 1;
        command[11] = flags;
        return submit(io, command).status;
    };
    EXPECT_EQ(ranges(4, medium.size() / 512 - 1, 2), Status::lba_out_of_range);
    EXPECT_EQ(ranges(2, 3000, 2), Status::success) << "a hint";
    EXPECT_TRUE(std::ranges::equal(medium.subspan(end), std::span(before).subspan(end)));
    EXPECT_EQ(ranges(4, 3000, 2), Status::success);
    for (const std::size_t block : {2000U, 3000U, 3001U})
        EXPECT_EQ(std::ranges::count(medium.subspan(512 * block, 512), std::byte{0}), 512);
    EXPECT_TRUE(std::ranges::equal(medium.subspan(std::size_t{3002} * 512),
                                   std::span(before).subspan(std::size_t{3002} * 512)));

    std::ranges::copy(medium.subspan(std::size_t{4000} * 512, page), data.bytes().begin());
    EXPECT_EQ(submit(io, blocks(5, 4000, 8)).status, Status::success);
    data.bytes()[4095] ^= std::byte{1};
    const Completion differs = submit(io, blocks(5, 4000, 8));
    EXPECT_EQ(differs.status, Status::compare_failure);
    EXPECT_TRUE(remarks.empty());
}

TEST_F(SoftNvmeAdmin, says_whether_a_command_may_be_retried) {
    EXPECT_TRUE(submit(io, {0x7f, 1}).do_not_retry);
    const Completion lost = submit(io, blocks(2, 0, 1, list_iova));
    EXPECT_EQ(lost.status, Status::data_transfer_error);
    EXPECT_FALSE(lost.do_not_retry);
    EXPECT_FALSE(submit(io, {0, 1}).do_not_retry) << "success";
    EXPECT_EQ(system.faults().size(), 1U);
}

TEST_F(SoftNvmeAdmin, takes_lists_for_io_commands_only) {
    Words command{6 | 1U << 14};
    set_wide(command, 6, data_iova);
    command[8] = page;
    command[10] = 1;
    EXPECT_EQ(submit(admin, command).status, Status::invalid_field);
}

TEST_F(SoftNvmeAdmin, remarks_doorbells_that_are_wrong) {
    Registers& registers = system.registers();
    registers.write32(0x1008, depth);
    Remark remark = one_remark();
    EXPECT_EQ(remark.mistake, Mistake::doorbell_past_queue);
    EXPECT_EQ(remark.queue, 1U);
    EXPECT_EQ(remark.value, depth);
    registers.write32(0x1008, 0x10001);
    EXPECT_EQ(one_remark().mistake, Mistake::doorbell_past_queue) << "no number is cut";
    registers.write32(0x1000 + 8 * 2 + 4, 0);
    remark = one_remark();
    EXPECT_EQ(remark.mistake, Mistake::doorbell_without_queue);
    EXPECT_EQ(remark.queue, 2U);
    registers.write32(0x3ffc, 1);
    EXPECT_EQ(one_remark().mistake, Mistake::doorbell_without_queue);
    registers.write32(0x100c, io.head + 1);
    remark = one_remark();
    EXPECT_EQ(remark.mistake, Mistake::doorbell_past_completions);
    EXPECT_EQ(remark.queue, 1U);
    EXPECT_EQ(submit(io, {0, 1}).status, Status::success) << "none of it had an effect";
    EXPECT_TRUE(remarks.empty());

    registers.write32(0x14, 6U << 16 | 4U << 20);
    registers.write32(0x1000, 1);
    EXPECT_EQ(one_remark().mistake, Mistake::doorbell_while_disabled);
    registers.write32(0x14, 6U << 16 | 4U << 20 | 1);
    registers.write32(0x1000, 1);
    EXPECT_EQ(one_remark().mistake, Mistake::doorbell_while_disabled) << "not ready";
}

TEST_F(SoftNvmeAdmin, remarks_that_it_was_enabled_before_its_queues) {
    Registers& registers = system.registers();
    for (const std::uint32_t missing : {0x24U, 0x28U, 0x30U}) {
        SCOPED_TRACE(missing);
        need(system.function().reset());
        if (missing != 0x24)
            registers.write32(0x24, 0xf000f);
        if (missing != 0x28)
            registers.write64(0x28, admin.submissions.iova.value());
        if (missing != 0x30)
            registers.write64(0x30, admin.completions.iova.value());
        EXPECT_TRUE(remarks.empty());
        registers.write32(0x14, 6U << 16 | 4U << 20 | 1);
        system.run();
        const Remark remark = one_remark();
        EXPECT_EQ(remark.mistake, Mistake::enabled_before_queues);
        EXPECT_EQ(remark.value, missing);
        EXPECT_EQ(status(), missing == 0x24 ? 2U : 1U) << "without sizes it cannot start";
    }
}

TEST_F(SoftNvmeAdmin, remarks_queues_out_of_order) {
    EXPECT_EQ(create_io_queues(), Status::invalid_queue_identifier);
    EXPECT_EQ(one_remark().mistake, Mistake::queue_created_twice);
    Words again{1};
    set_wide(again, 6, data_iova);
    again[10] = 1 | 1U << 16;
    again[11] = 1 | 1U << 16;
    EXPECT_EQ(submit(admin, again).status, Status::invalid_queue_identifier);
    EXPECT_EQ(one_remark().mistake, Mistake::queue_created_twice);
    EXPECT_EQ(ask(4, 1).status, Status::invalid_queue_deletion);
    const Remark remark = one_remark();
    EXPECT_EQ(remark.mistake, Mistake::completions_deleted_first);
    EXPECT_EQ(remark.queue, 1U);
    EXPECT_EQ(remark.value, 1U);
}

TEST_F(SoftNvmeAdmin, remarks_invalid_data_pointers) {
    EXPECT_EQ(submit(io, blocks(2, 0, 1, data_iova + 1)).status, Status::invalid_prp_offset);
    const Remark remark = one_remark();
    EXPECT_EQ(remark.mistake, Mistake::invalid_data_pointer);
    EXPECT_EQ(remark.queue, 1U);
    EXPECT_EQ(remark.value, number);
    Words command = blocks(2, 0, 8);
    set_descriptor(command, {data_iova, 512, 0});
    EXPECT_EQ(submit(io, command).status, Status::invalid_data_length);
    EXPECT_EQ(one_remark().mistake, Mistake::invalid_data_pointer);
    EXPECT_EQ(submit(io, {0x7f, 1}).status, Status::invalid_opcode);
    EXPECT_TRUE(remarks.empty());
}

TEST(SoftNvmeMistakes, have_different_names_and_texts) {
    std::set<std::string_view> all;
    for (std::size_t mistake = 0; mistake != mistakes; ++mistake) {
        all.insert(name(static_cast<Mistake>(mistake)));
        all.insert(text(static_cast<Mistake>(mistake)));
    }
    EXPECT_EQ(all.size(), 2 * mistakes);
    EXPECT_FALSE(all.contains(""));
    EXPECT_EQ(name(Mistake::invalid_data_pointer), "invalid-data-pointer");
}

} // namespace

} // namespace moat::machine::soft
