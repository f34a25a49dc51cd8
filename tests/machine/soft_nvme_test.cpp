// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The NVMe model: its I/O commands by PRP and SGL, its misdeeds as the IOMMU reports them, and
// drivers that write nonsense. Its admin commands and registers: soft_nvme_admin_test.cpp.
#include "sanitized.hpp"
#include "soft_nvme.hpp"

namespace moat::machine::soft {

namespace {

using fault::Kind;

TEST_F(SoftNvme, identifies_itself) {
    const Mapped data = system.map(data_iova, page, "data", fault::Allows::write);
    Words command{6};
    set_wide(command, 6, data_iova);
    command[10] = 1;
    EXPECT_EQ(submit(admin, command).status, Status::success);
    EXPECT_EQ(std::memcmp(data.bytes().data() + 24, "moat soft NVMe  ", 16), 0);
    command[1] = 1;
    command[10] = 0;
    EXPECT_EQ(submit(admin, command).status, Status::success);
    std::uint64_t blocks_of_it = 0;
    std::memcpy(&blocks_of_it, data.bytes().data(), sizeof blocks_of_it);
    EXPECT_EQ(blocks_of_it, nvme.medium().size() / 512);
    EXPECT_EQ(std::to_integer<int>(data.bytes()[130]), 9);
    EXPECT_TRUE(system.faults().empty());
}

/// Reads the memory of one mapping.
class OneMapping final : public BusMaster {
  public:
    explicit OneMapping(const Mapped& memory) : memory_(memory) {}

    [[nodiscard]] ByteCount read(Iova from, std::span<std::byte> into) override {
        std::ranges::copy(memory_.bytes().subspan(from.value() - memory_.iova.value(), into.size()),
                          into.begin());
        return ByteCount(into.size());
    }

    [[nodiscard]] ByteCount write(Iova /*to*/, std::span<const std::byte> /*from*/) override {
        return ByteCount();
    }

    void interrupt(unsigned /*vector*/) override {}

  private:
    const Mapped& memory_;
};

TEST_F(SoftNvme, uses_the_memory_of_commands_until_it_completes_them) {
    (void)system.map(data_iova, 4 * page, "data");
    OneMapping bus(io.submissions);
    const auto uses = [&](std::uint64_t at) {
        return nvme.uses(IovaRange(Iova(at), ByteCount(page)), bus);
    };
    const auto queue = [&](const Words& command) {
        std::memcpy(io.submissions.bytes().data() + 64 * io.tail, command.data(), 64);
        io.tail = (io.tail + 1) % depth;
        system.registers().write32(0x1008, io.tail);
    };
    EXPECT_FALSE(uses(data_iova));
    queue(blocks(2, 0, 16));           // both pages
    queue(blocks(1, 0, 8, 0x3000000)); // a page; the second pointer has no meaning
    queue({0, 1, 0, 0, 0, 0, 0x5000}); // flush: neither
    EXPECT_TRUE(uses(data_iova));
    EXPECT_TRUE(uses(data_iova + page));
    EXPECT_FALSE(uses(data_iova + 2 * page));
    EXPECT_TRUE(uses(0x3000000));
    EXPECT_FALSE(uses(0x3000000 + page));
    EXPECT_FALSE(uses(0x5000));
    system.run();
    EXPECT_FALSE(uses(data_iova));
    queue(blocks(2, 0, 16));
    EXPECT_FALSE(nvme.disabled());
    system.registers().write32(0x14, 0); // forgets its commands
    EXPECT_FALSE(uses(data_iova));
    EXPECT_TRUE(nvme.disabled());
}

TEST_F(SoftNvme, writes_and_reads_back) {
    const Mapped data = system.map(data_iova, 16 * page, "data");
    const Mapped list = system.map(list_iova, page, "list", fault::Allows::read);
    std::mt19937 random(2);
    for (const std::uint32_t count : {1U, 8U, 16U, 128U}) { // a page, two, a list
        for (std::byte& each : data.bytes())
            each = static_cast<std::byte>(random());
        const std::vector<std::byte> before(data.bytes().begin(), data.bytes().end());
        fill_list(list, 0, data_iova + page, 15);
        Words command = blocks(1, 100, count);
        if (count > 16)
            set_wide(command, 8, list_iova);
        ASSERT_EQ(submit(io, command).status, Status::success);
        EXPECT_EQ(submit(io, {0, 1}).status, Status::success) << "flush";
        EXPECT_TRUE(std::ranges::equal(nvme.medium().subspan(51200, 512 * count),
                                       std::span(before).first(512 * count)));
        std::ranges::fill(data.bytes(), std::byte{0});
        command[0] = 2;
        ASSERT_EQ(submit(io, command).status, Status::success);
        EXPECT_TRUE(std::ranges::equal(data.bytes().first(512 * count),
                                       std::span(before).first(512 * count)));
    }
    EXPECT_TRUE(system.faults().empty());
}

TEST_F(SoftNvme, follows_a_page_list_into_its_next_page) {
    fill_medium();
    const Mapped data = system.map(data_iova, 8 * page, "data", fault::Allows::write);
    const Mapped list = system.map(list_iova, 2 * page, "list", fault::Allows::read);
    fill_list(list, 509, data_iova + page, 2);
    fill_list(list, 511, list_iova + page, 1);
    fill_list(list, 512, data_iova + 3 * page, 5);
    Words command = blocks(2, 0, 64);
    set_wide(command, 8, list_iova + 509 * 8);
    EXPECT_EQ(submit(io, command).status, Status::success);
    EXPECT_TRUE(std::ranges::equal(data.bytes(), nvme.medium().first(8 * page)));
}

TEST_F(SoftNvme, reads_by_scatter_gather_list) {
    fill_medium();
    const Mapped data = system.map(data_iova, 4 * page, "data", fault::Allows::write);
    const Mapped list = system.map(list_iova, page, "list", fault::Allows::read);
    Words command = blocks(2, 0, 8);
    set_descriptor(command, {data_iova + 100, 4096, 0});
    EXPECT_EQ(submit(io, command).status, Status::success);
    EXPECT_TRUE(std::ranges::equal(data.bytes().subspan(100, 4096), nvme.medium().first(4096)));
    put(list, 0, {{data_iova, 1000, 0}, {list_iova + 256, 32, 3U << 28}});
    put(list, 16, {{data_iova + 2000, 96, 0}, {data_iova + 5000, 3000, 0}});
    set_descriptor(command, {list_iova, 32, 2U << 28});
    EXPECT_EQ(submit(io, command).status, Status::success);
    const auto medium = nvme.medium();
    EXPECT_TRUE(std::ranges::equal(data.bytes().first(1000), medium.first(1000)));
    EXPECT_TRUE(std::ranges::equal(data.bytes().subspan(2000, 96), medium.subspan(1000, 96)));
    EXPECT_TRUE(std::ranges::equal(data.bytes().subspan(5000, 3000), medium.subspan(1096, 3000)));
    EXPECT_TRUE(system.faults().empty());
}

TEST_F(SoftNvme, has_logs_and_features) {
    const Mapped data = system.map(data_iova, page, "data", fault::Allows::write);
    Words command{2};
    set_wide(command, 6, data_iova);
    command[10] = 2 | 127U << 16;
    EXPECT_EQ(submit(admin, command).status, Status::success);
    EXPECT_EQ(std::to_integer<int>(data.bytes()[3]), 100);
    command[10] = 0x77;
    EXPECT_EQ(submit(admin, command).status, Status::invalid_log_page);
    Words feature{9};
    feature[10] = 6;
    feature[11] = 1;
    EXPECT_EQ(submit(admin, feature).status, Status::success);
    feature = Words{10};
    feature[10] = 6;
    EXPECT_EQ(submit(admin, feature).result, 1U);
    feature[10] = 0xff;
    EXPECT_EQ(submit(admin, feature).status, Status::invalid_field);
    feature[10] = 7;
    EXPECT_EQ(submit(admin, feature).result, (Nvme::most_queues - 2) * 0x10001);
}

TEST_F(SoftNvme, refuses_what_is_wrong) {
    system.map(data_iova, page, "data");
    const std::uint32_t all = static_cast<std::uint32_t>(nvme.medium().size() / 512);
    EXPECT_EQ(submit(io, {0x7f, 1}).status, Status::invalid_opcode);
    EXPECT_EQ(submit(io, {0, 2}).status, Status::invalid_namespace);
    EXPECT_EQ(submit(io, blocks(2, all, 1)).status, Status::lba_out_of_range);
    EXPECT_EQ(submit(io, blocks(2, all - 1, 2)).status, Status::lba_out_of_range);
    EXPECT_EQ(submit(io, blocks(2, ~0ULL, 2)).status, Status::lba_out_of_range);
    EXPECT_EQ(submit(io, blocks(2, 0, 0x10000)).status, Status::invalid_field);
    EXPECT_EQ(submit(io, blocks(2, 0, 1, data_iova + 1)).status, Status::invalid_prp_offset);
    EXPECT_EQ(create_io_queues(), Status::invalid_queue_identifier) << "it is there already";
    Words remove{4};
    remove[10] = 1;
    EXPECT_EQ(submit(admin, remove).status, Status::invalid_queue_deletion);
    remove[0] = 0;
    EXPECT_EQ(submit(admin, remove).status, Status::success);
    remove[0] = 4;
    EXPECT_EQ(submit(admin, remove).status, Status::success);
    EXPECT_TRUE(system.faults().empty());
}

TEST_F(SoftNvme, goes_around_its_queues) {
    for (unsigned command = 0; command != 3 * depth; ++command)
        ASSERT_EQ(submit(io, {0, 1}).status, Status::success) << command;
}

TEST_F(SoftNvme, says_that_data_did_not_arrive) {
    EXPECT_EQ(submit(io, blocks(2, 0, 1)).status, Status::data_transfer_error);
    EXPECT_EQ(one_fault().record.where.start(), Iova(data_iova));
}

TEST_F(SoftNvme, writes_more_than_was_asked_for) {
    fill_medium();
    system.map(data_iova, page, "log page", fault::Allows::write);
    const Mapped neighbour = system.map(data_iova + 2 * page, page, "neighbour");
    nvme.misbehave({Misdeed::overrun, 512});
    EXPECT_EQ(submit(io, blocks(2, 0, 8)).status, Status::success);
    const fault::Diagnosis found = one_fault();
    EXPECT_EQ(found.kind, Kind::out_of_bounds_right);
    EXPECT_EQ(found.mapping->label, "log page");
    EXPECT_EQ(found.distance.least, 1U);
    EXPECT_EQ(found.bytes_outside, 512U);
    EXPECT_EQ(strays_in(neighbour), 0U);
}

TEST_F(SoftNvme, writes_before_the_buffer) {
    system.map(data_iova, page, "data", fault::Allows::write);
    nvme.misbehave({Misdeed::underrun, 64});
    EXPECT_EQ(submit(io, blocks(2, 0, 8)).status, Status::success);
    const fault::Diagnosis found = one_fault();
    EXPECT_EQ(found.kind, Kind::out_of_bounds_left);
    EXPECT_EQ(found.bytes_outside, 64U);
}

TEST_F(SoftNvme, writes_after_its_completion) {
    fill_medium();
    const Mapped data = system.map(data_iova, page, "data", fault::Allows::write);
    nvme.misbehave({Misdeed::write_after_completion, 64});
    ASSERT_EQ(submit(io, blocks(2, 0, 8)).status, Status::success);
    EXPECT_EQ(strays_in(data), 0U);
    system.unmap(data);
    system.run();
    const fault::Diagnosis found = one_fault();
    EXPECT_EQ(found.kind, Kind::use_after_unmap);
    EXPECT_EQ(found.past->mapping.label, "data");
    EXPECT_EQ(strays_in(data), 0U);
}

TEST_F(SoftNvme, writes_to_a_stale_address) {
    const Mapped before = system.map(data_iova, page, "before", fault::Allows::write);
    const Mapped now = system.map(data_iova + 4 * page, page, "now", fault::Allows::write);
    ASSERT_EQ(submit(io, blocks(2, 0, 8)).status, Status::success);
    system.unmap(before);
    nvme.misbehave({Misdeed::stale_address});
    EXPECT_EQ(submit(io, blocks(2, 0, 8, now.iova.value())).status, Status::success);
    const fault::Diagnosis found = one_fault();
    EXPECT_EQ(found.kind, Kind::use_after_unmap);
    EXPECT_EQ(found.past->mapping.label, "before");
}

TEST_F(SoftNvme, writes_what_it_should_read) {
    const Mapped data = system.map(data_iova, page, "data", fault::Allows::read);
    nvme.misbehave({Misdeed::read_only_violated, 64});
    EXPECT_EQ(submit(io, blocks(1, 0, 8)).status, Status::success);
    EXPECT_EQ(one_fault().kind, Kind::permission);
    EXPECT_EQ(strays_in(data), 0U);
}

TEST_F(SoftNvme, leaves_out_the_end) {
    fill_medium();
    const Mapped data = system.map(data_iova, page, "data", fault::Allows::write);
    std::ranges::fill(data.bytes(), std::byte{0xff});
    nvme.misbehave({Misdeed::wrong_length, 64});
    EXPECT_EQ(submit(io, blocks(2, 0, 8)).status, Status::success);
    EXPECT_EQ(std::ranges::count(data.bytes(), std::byte{0xff}), 64);
    EXPECT_TRUE(system.faults().empty());
}

TEST_F(SoftNvme, reports_the_wrong_status) {
    fill_medium();
    const Mapped data = system.map(data_iova, page, "data", fault::Allows::write);
    nvme.misbehave({Misdeed::wrong_status});
    EXPECT_EQ(submit(io, blocks(2, 0, 8)).status, Status::data_transfer_error);
    EXPECT_TRUE(std::ranges::equal(data.bytes(), nvme.medium().first(page))) << "it moved";
    EXPECT_EQ(submit(io, blocks(2, 0, 8, list_iova)).status, Status::success);
    EXPECT_EQ(one_fault().record.where.start(), Iova(list_iova));
    EXPECT_EQ(nvme.misdeeds(), 2U);
}

TEST_F(SoftNvme, misbehaves_after_as_many_commands_with_data) {
    system.map(data_iova, page, "data", fault::Allows::write);
    nvme.misbehave({.misdeed = Misdeed::overrun, .bytes = 64, .when = {.after = 2}});
    for (unsigned command = 0; command != 2; ++command) {
        EXPECT_EQ(submit(io, blocks(2, 0, 8)).status, Status::success);
        EXPECT_EQ(submit(io, {0, 1}).status, Status::success) << "a flush, which has no data";
    }
    EXPECT_EQ(nvme.misdeeds(), 0U);
    EXPECT_TRUE(system.faults().empty());
    EXPECT_EQ(submit(io, blocks(2, 0, 8)).status, Status::success);
    EXPECT_EQ(nvme.misdeeds(), 1U);
    EXPECT_EQ(one_fault().kind, Kind::out_of_bounds_right);
}

TEST_F(SoftNvme, misbehaves_at_the_commands_of_a_seed) {
    system.map(data_iova, 4 * page, "data", fault::Allows::write);
    const auto wrong_with = [&](std::uint64_t seed) {
        nvme.misbehave(
            {.misdeed = Misdeed::overrun, .bytes = 64, .when = {.after = 5, .seed = seed}});
        std::vector<unsigned> wrong;
        for (unsigned command = 0; command != 100; ++command) {
            const std::uint64_t before = nvme.misdeeds();
            EXPECT_EQ(submit(io, blocks(2, 0, 8)).status, Status::success);
            if (nvme.misdeeds() != before)
                wrong.push_back(command);
        }
        return wrong;
    };
    const std::vector<unsigned> first = wrong_with(1);
    EXPECT_EQ(first, wrong_with(1));
    EXPECT_NE(first, wrong_with(2));
    EXPECT_GT(first.size(), 10U);
    EXPECT_LT(first.size(), 40U);
    EXPECT_GE(first.front(), 5U);
}

TEST_F(SoftNvme, writes_some_time_after_its_completion) {
    using namespace std::chrono_literals;
    fill_medium();
    const Mapped data = system.map(data_iova, page, "data", fault::Allows::write);
    nvme.misbehave({.misdeed = Misdeed::write_after_completion, .bytes = 64, .delay = 50us});
    const auto start = system.machine().now();
    ASSERT_EQ(submit(io, blocks(2, 0, 8)).status, Status::success);
    ASSERT_EQ(submit(io, {0, 1}).status, Status::success) << "it works meanwhile";
    const auto has_strayed = [&] { return nvme.misdeeds() != 0; };
    EXPECT_EQ(system.machine().wait_until(has_strayed, start + 49us - system.machine().now()),
              Wait::timed_out);
    EXPECT_EQ(strays_in(data), 0U);
    EXPECT_EQ(system.machine().wait_until(has_strayed, 1s), Wait::happened);
    EXPECT_EQ(strays_in(data), 64U);
    EXPECT_LT(system.machine().now() - start, 100us);
}

TEST_F(SoftNvme, ends_on_lists_that_do_not) {
    system.map(data_iova, page, "data");
    const Mapped list = system.map(list_iova, page, "list", fault::Allows::read);
    // A page list whose last entry is the next list: itself.
    fill_list(list, 511, list_iova, 1);
    Words command = blocks(2, 0, 256);
    set_wide(command, 8, list_iova + 511 * 8);
    for (std::size_t index = 0; index != 511; ++index)
        fill_list(list, index, data_iova, 1);
    EXPECT_EQ(submit(io, command).status, Status::success) << "as often as there is data";
    // Segments that point to themselves.
    command = blocks(2, 0, 8);
    put(list, 0, {{list_iova, 16, 2U << 28}});
    set_descriptor(command, {list_iova, 16, 2U << 28});
    EXPECT_EQ(submit(io, command).status, Status::invalid_descriptor_count);
    put(list, 0, {{data_iova, 16, 0}});
    set_descriptor(command, {list_iova, 16, 3U << 28});
    EXPECT_EQ(submit(io, command).status, Status::invalid_data_length);
    set_descriptor(command, {list_iova, 15, 3U << 28});
    EXPECT_EQ(submit(io, command).status, Status::invalid_segment_descriptor);
    set_descriptor(command, {list_iova, 16, 9U << 28});
    EXPECT_EQ(submit(io, command).status, Status::invalid_descriptor_type);
}

TEST_F(SoftNvme, is_fatal_where_its_queues_are_out_of_reach) {
    system.unmap(io.submissions);
    EXPECT_EQ(submit(io, {0, 1}).status, no_answer);
    EXPECT_EQ(system.registers().read32(0x1c) & 2, 2U);
    need(system.function().reset());
    EXPECT_EQ(system.registers().read32(0x1c), 0U);
}

TEST_F(SoftNvme, interrupts_where_the_queue_wants_it) {
    ASSERT_GE(need(system.function().enable_interrupts(4)), 1U);
    EXPECT_EQ(submit(io, {0, 1}).status, Status::success);
    EXPECT_TRUE(system.function().take_interrupt(0));
    system.registers().write32(0x0c, 1);
    EXPECT_EQ(submit(io, {0, 1}).status, Status::success);
    EXPECT_FALSE(system.function().take_interrupt(0)) << "masked";
}

/// With any commands and register values, the controller reaches only mapped memory, writes no
/// memory that is mapped for reading, and works after a reset.
TEST_F(SoftNvme, any_commands_and_registers_leave_it_working) {
    const std::uint64_t seed = 4;
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const Mapped data = system.map(data_iova, 16 * page, "data");
    const auto number_like = [&]() -> std::uint64_t {
        switch (random() % 4) {
        case 0:
            return data_iova + random() % (16 * page);
        case 1:
            return data_iova + random() % 16 * page;
        case 2:
            return random() % 64;
        default:
            return random() >> (random() % 64);
        }
    };
    const auto fill_with_numbers = [&](const Mapped& memory) {
        for (std::size_t at = 0; at + 8 <= page; at += 8)
            if (const std::uint64_t value = number_like(); random() % 8 == 0)
                std::memcpy(memory.bytes().data() + at, &value, sizeof value);
    };
    // Mostly a valid command and namespace: others fail before the controller reads more of them.
    const auto fill_with_commands = [&](const Mapped& memory) {
        for (std::size_t at = 0; at + 64 <= page; at += 64) {
            Words command{};
            for (unsigned word = 2; word != 16; word += 2)
                set_wide(command, word, number_like());
            constexpr std::array known{0U, 1U, 2U, 4U, 5U, 6U, 8U, 9U, 10U, 12U};
            command[0] = random() % 8 == 0 ? static_cast<std::uint32_t>(random())
                                           : known[random() % known.size()];
            command[0] |= static_cast<std::uint32_t>(random() % 4 == 0) << 14;
            command[1] = random() % 8 == 0 ? static_cast<std::uint32_t>(random()) : 1;
            if (random() % 2 == 0)
                command[12] = random() % 64;
            std::memcpy(memory.bytes().data() + at, command.data(), sizeof command);
        }
    };
    const auto bytes_of = [](const Mapped& memory) {
        return std::vector(memory.bytes().begin(), memory.bytes().end());
    };
    std::uint64_t refused = 0;
    std::uint64_t failed = 0;
    for (int round = 0; round != (tests::sanitized ? 500 : 4000); ++round) {
        SCOPED_TRACE("round " + std::to_string(round));
        fill_with_commands(admin.submissions);
        fill_with_commands(io.submissions);
        fill_with_numbers(data);
        const std::array commands{bytes_of(admin.submissions), bytes_of(io.submissions)};
        nvme.misbehave({static_cast<Misdeed>(random() % misdeed_count), number_like()});
        for (int write = 0; write != 8; ++write)
            nvme.write(0, 0x1000 + random() % 5 * 4, Width::bits32, random() % depth);
        if (random() % 64 == 0)
            nvme.write(0, random() % 0x40 & ~3ULL, Width::bits32, number_like());
        if (random() % 64 == 0) { // queues that may be out of reach
            nvme.write(0, 0x14, Width::bits32, 0);
            nvme.write(0, 0x28, Width::bits64, number_like() & ~(page - 1));
            nvme.write(0, 0x14, Width::bits32, 6U << 16 | 4U << 20 | 1);
            nvme.write(0, 0x1000, Width::bits32, 1);
        }
        system.run();
        ASSERT_EQ(bytes_of(admin.submissions), commands[0]);
        ASSERT_EQ(bytes_of(io.submissions), commands[1]);
        for (const fault::Diagnosis& each : system.faults()) {
            const IovaRange allowed(data.iova, ByteCount(data.memory.size()));
            ASSERT_FALSE(allowed.contains(each.record.where.start()));
            ++refused;
        }
        const bool fatal = (system.registers().read32(0x1c) & 2) != 0;
        failed += fatal ? 1 : 0;
        if (fatal || random() % 256 == 0)
            restart();
    }
    EXPECT_NE(nvme.misdeeds(), 0U);
    EXPECT_NE(strays_in(data), 0U);
    EXPECT_NE(refused, 0U);
    EXPECT_NE(failed, 0U);

    nvme.misbehave({});
    restart();
    const auto written = bytes_of(data);
    ASSERT_EQ(submit(io, blocks(1, 0, 16)).status, Status::success);
    std::ranges::fill(data.bytes(), std::byte{0});
    ASSERT_EQ(submit(io, blocks(2, 0, 16)).status, Status::success);
    EXPECT_TRUE(
        std::ranges::equal(data.bytes().first(2 * page), std::span(written).first(2 * page)));
    EXPECT_TRUE(system.faults().empty());
}

} // namespace

} // namespace moat::machine::soft
