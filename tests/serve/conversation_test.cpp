// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A soft device behind vfio-user: what it answers, what it refuses, and how it reaches a client's
// memory. A client's messages are all in the socket before the conversation.
#include "moat/core/text.hpp"

#include "machine/soft/edu.hpp"
#include "run/findings.hpp"
#include "serve/conversation.hpp"
#include "serve/listener.hpp"

#include <array>
#include <cerrno>
#include <gtest/gtest.h>
#include <map>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

namespace moat::tests {
namespace {

using namespace machine::vfio_user;
using platform::FileDescriptor;

constexpr std::uint32_t config_region = 7;
constexpr std::uint64_t page = 4096;

class ServedEdu : public testing::Test {
  protected:
    ServedEdu() {
        auto ends = Channel::pair(std::chrono::milliseconds(20));
        EXPECT_TRUE(ends);
        server.emplace(std::move(ends->first));
        client.emplace(std::move(ends->second));
        if (client)
            ask(Command::version, {encode_version({}, Role::client)});
    }

    void ask(Command command, Channel::Pieces pieces, std::span<const int> descriptors = {}) {
        EXPECT_TRUE(client->send({.id = next_++, .command = command}, pieces, descriptors));
    }

    void write(std::uint32_t region, std::uint64_t offset, std::uint64_t value,
               std::uint32_t bytes = 8) {
        const RegionAccess where = {.offset = offset, .region = region, .count = bytes};
        ask(Command::region_write, {bytes_of(where), bytes_of(value).first(bytes)});
    }

    void read(std::uint32_t region, std::uint64_t offset, std::uint32_t bytes) {
        const RegionAccess where = {.offset = offset, .region = region, .count = bytes};
        ask(Command::region_read, {bytes_of(where)});
    }

    void map(std::uint64_t address, std::uint64_t size, const FileDescriptor* file = nullptr) {
        const DmaMap map = {.flags = map_readable | map_writable, .address = address, .size = size};
        const std::array<int, 1> files = {file == nullptr ? -1 : file->get()};
        ask(Command::dma_map, {bytes_of(map)}, std::span(files).first(file == nullptr ? 0 : 1));
    }

    /// edu writes `bytes` of its buffer to `address`.
    void order_write(std::uint64_t address, std::uint64_t bytes) {
        write(config_region, machine::pci::command,
              machine::pci::command_memory | machine::pci::command_master, 2);
        write(0, 0x80, 0x40000);
        write(0, 0x88, address);
        write(0, 0x90, bytes);
        write(0, 0x98, 3);
        for (unsigned turn = 0; turn != 4; ++turn) // each message is followed by a step
            read(0, 0, 4);
    }

    /// Serves all that was asked. Return: the end's error, if it had one.
    std::optional<Error> serve() {
        ::shutdown(client->descriptor(), SHUT_WR);
        return serve_silent_client();
    }

    /// The same with a client that stays. A DMA message that it owes an answer ends it.
    std::optional<Error> serve_silent_client() {
        const serve::Stage stage = {.face = face,
                                    .reports = {.name = "edu",
                                                .findings = findings,
                                                .recorder = recorder,
                                                .tally = tally,
                                                .print = [this](auto text) { printed += text; }},
                                    .unchecked = unchecked};
        serve::Conversation conversation(stage, *std::move(server));
        const auto ended = conversation.run(-1);
        return ended ? std::nullopt : std::optional(ended.error());
    }

    /// The next reply; its identity is the next request's.
    Message reply() {
        auto message = client->receive(std::chrono::milliseconds(0));
        EXPECT_TRUE(message && *message);
        return message && *message ? **std::move(message) : Message{};
    }

    std::uint32_t error_of_next() { return reply().header.error; }

    std::optional<Channel> server;
    std::optional<Channel> client;
    std::string printed;
    bool unchecked = false;
    run::Tally tally{};
    static constexpr auto no_stacks = [](std::uintptr_t, fault::FrameSink) {};
    run::Findings findings{"", tally, no_stacks,
                           [this](std::string_view text) { printed += text; }};
    run::Recorder recorder{"", no_stacks};
    machine::soft::Edu edu;
    machine::soft::Face face{machine::Bdf(0, 5, 0), edu};

  private:
    std::uint16_t next_ = 1;
};

TEST_F(ServedEdu, shows_its_regions_and_registers) {
    const DeviceInfo info;
    ask(Command::get_info, {bytes_of(info)});
    const RegionInfo region = {.index = 0};
    ask(Command::get_region_info, {bytes_of(region)});
    read(0, 0, 4);
    EXPECT_FALSE(serve());
    EXPECT_EQ(reply().header.command, Command::version);
    EXPECT_EQ(taken_from<DeviceInfo>(reply().body)->regions, 9U);
    EXPECT_EQ(taken_from<RegionInfo>(reply().body)->size, std::uint64_t{1} << 20);
    const Message value = reply();
    EXPECT_EQ(value.header.id, 4U);
    ASSERT_EQ(value.body.size(), sizeof(RegionAccess) + 4);
    EXPECT_EQ(value.body[sizeof(RegionAccess)], std::byte{0xed});
}

TEST_F(ServedEdu, refuses_nonsense_and_goes_on) {
    read(42, 0, 4);
    read(0, std::uint64_t{1} << 40, 4);
    ask(Command::feature, {});
    map(page, page);
    map(page, page);
    const DmaUnmap part = {.address = page, .size = page / 2};
    ask(Command::dma_unmap, {bytes_of(part)});
    const DmaUnmap nothing = {.address = 4 * page, .size = page};
    ask(Command::dma_unmap, {bytes_of(nothing)});
    read(0, 0, 4);
    EXPECT_FALSE(serve());
    (void)reply();
    EXPECT_EQ(error_of_next(), EINVAL);
    EXPECT_EQ(error_of_next(), EINVAL);
    EXPECT_EQ(error_of_next(), ENOTSUP);
    EXPECT_EQ(error_of_next(), 0U);
    EXPECT_EQ(error_of_next(), EEXIST);
    EXPECT_EQ(error_of_next(), EINVAL);
    EXPECT_EQ(error_of_next(), 0U) << "as Linux's VFIO";
    EXPECT_EQ(error_of_next(), 0U);
}

TEST_F(ServedEdu, writes_through_a_descriptor_and_no_further) {
    const FileDescriptor file(::memfd_create("test", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(file.get(), page), 0);
    ASSERT_EQ(::pwrite(file.get(), "xxxx", 4, 0), 4);
    map(page, page, &file);
    order_write(page, 4);
    order_write(2 * page - 8, 16);
    EXPECT_FALSE(serve());
    std::array<char, 4> got{'x', 'x', 'x', 'x'};
    ASSERT_EQ(::pread(file.get(), got.data(), got.size(), 0), 4);
    EXPECT_EQ(got, (std::array<char, 4>{})) << "edu's buffer is zero";
    EXPECT_EQ(tally.findings, 1U);
    EXPECT_NE(printed.find("8 bytes"), std::string::npos) << printed;
}

TEST_F(ServedEdu, leaves_an_unchecked_access_to_the_client) {
    unchecked = true;
    order_write(page, 64); // there is no map
    EXPECT_TRUE(serve()) << "no answer to the DMA message";
    bool has_come = false;
    for (;;) {
        const auto message = client->receive(std::chrono::milliseconds(0));
        if (!message || !*message)
            break;
        has_come = has_come || (*message)->header.command == Command::dma_write;
    }
    EXPECT_TRUE(has_come);
    EXPECT_EQ(tally.findings, 0U) << printed;
}

TEST_F(ServedEdu, survives_a_client_that_truncates_its_memory) {
    const FileDescriptor file(::memfd_create("test", MFD_CLOEXEC));
    map(page, page, &file); // an empty file
    order_write(page, 64);
    EXPECT_FALSE(serve());
    EXPECT_NE(printed.find("dma-memory-gone"), std::string::npos) << printed;
}

TEST_F(ServedEdu, ends_when_a_client_ignores_its_dma_messages) {
    map(page, page);
    order_write(page, 64);
    const auto error = serve();
    ASSERT_TRUE(error);
    EXPECT_EQ(tally.findings, 0U) << printed;
}

/// As QEMU, which holds a lock meanwhile. A write to a register, and what follows it, waits.
TEST_F(ServedEdu, serves_a_client_that_awaits_replies_before_it_answers_a_dma_message) {
    map(page, page);
    order_write(page, 64);
    map(4 * page, page);
    read(0, 0, 4);
    write(0, 0x04, 1, 4);
    read(0, 0, 4);
    const DmaUnmap unmap = {.address = 4 * page, .size = page};
    ask(Command::dma_unmap, {bytes_of(unmap)});
    EXPECT_TRUE(serve()) << "no answer to the DMA message";
    std::map<Command, unsigned> replies;
    for (;;) {
        const auto message = client->receive(std::chrono::milliseconds(0));
        if (!message || !*message)
            break;
        EXPECT_FALSE((*message)->header.failed());
        replies[(*message)->header.command] += (*message)->header.is_reply() ? 1 : 0;
    }
    EXPECT_EQ(replies[Command::dma_map], 2U);
    EXPECT_EQ(replies[Command::dma_unmap], 1U);
    EXPECT_EQ(replies[Command::region_read], 4U + 1U);
    EXPECT_EQ(replies[Command::region_write], 5U);
}

/// QEMU answers no DMA message while it awaits the reply to a read, which follows a posted write.
TEST_F(ServedEdu, answers_a_read_behind_a_queued_write_where_no_dma_reply_comes) {
    map(page, page);
    order_write(page, 64);
    write(0, 0x04, 0xff, 4);
    read(0, 0x04, 4);
    const auto error = serve_silent_client();
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code(), ErrorCode::busy) << *error;
    unsigned reads = 0;
    unsigned writes = 0;
    for (;;) {
        const auto message = client->receive(std::chrono::milliseconds(0));
        if (!message || !*message)
            break;
        const Header& header = (*message)->header;
        reads += header.is_reply() && header.command == Command::region_read ? 1 : 0;
        writes += header.is_reply() && header.command == Command::region_write ? 1 : 0;
    }
    EXPECT_EQ(reads, 4U + 1U);
    EXPECT_EQ(writes, 5U) << "the device is in the middle of its access";
}

TEST_F(ServedEdu, signals_an_interrupt_that_the_client_triggers) {
    const FileDescriptor event(::eventfd(0, EFD_CLOEXEC));
    const SetIrqs connect = {.flags = irq_eventfds | irq_trigger, .index = 2, .count = 1};
    const std::array<int, 1> passed = {event.get()};
    ask(Command::set_irqs, {bytes_of(connect)}, passed);
    const SetIrqs trigger = {.flags = irq_no_data | irq_trigger, .index = 2, .count = 1};
    ask(Command::set_irqs, {bytes_of(trigger)});
    EXPECT_FALSE(serve());
    pollfd ready = {.fd = event.get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(::poll(&ready, 1, 0), 1);
}

TEST_F(ServedEdu, performs_several_writes_of_one_message) {
    const std::uint64_t count = 2;
    const auto entry = [](std::uint64_t offset, std::uint8_t value) {
        MultiWrite write = {.where = {.offset = offset, .region = 0, .count = 8}};
        write.data[0] = std::byte{value};
        return write;
    };
    const std::array<MultiWrite, 2> writes = {entry(0x80, 0x11), entry(0x88, 0x22)};
    ask(Command::write_multi, {bytes_of(count), std::as_bytes(std::span(writes))});
    read(0, 0x88, 8);
    EXPECT_FALSE(serve());
    (void)reply();
    EXPECT_EQ(taken_from<std::uint64_t>(reply().body), 2U);
    EXPECT_EQ(reply().body[sizeof(RegionAccess)], std::byte{0x22});
}

/// QEMU 11.1 speaks 0.0 and refuses a server of 0.1.
TEST_F(ServedEdu, answers_with_a_version_that_the_client_has) {
    auto ends = Channel::pair();
    ASSERT_TRUE(ends);
    Channel other(std::move(ends->second));
    ASSERT_TRUE(other.send({.id = 1, .command = Command::version},
                           {encode_version({.minor = 0}, Role::client)}));
    ::shutdown(other.descriptor(), SHUT_WR);
    server.emplace(std::move(ends->first));
    EXPECT_FALSE(serve());
    const auto version = other.receive(std::chrono::milliseconds(0));
    ASSERT_TRUE(version && *version);
    const auto capabilities = decode_version((*version)->body);
    ASSERT_TRUE(capabilities);
    EXPECT_EQ(capabilities->minor, 0U);
}

TEST_F(ServedEdu, gives_a_twin_socket_where_it_is_offered) {
    const auto message = client.has_value();
    ASSERT_TRUE(message);
    auto ends = Channel::pair();
    ASSERT_TRUE(ends);
    Channel other(std::move(ends->second));
    ASSERT_TRUE(other.send({.id = 1, .command = Command::version},
                           {encode_version(own_capabilities, Role::client)}));
    ::shutdown(other.descriptor(), SHUT_WR);
    server.emplace(std::move(ends->first));
    ::shutdown(client->descriptor(), SHUT_WR);
    EXPECT_FALSE(serve());
    const auto version = other.receive(std::chrono::milliseconds(0));
    ASSERT_TRUE(version && *version);
    const auto capabilities = decode_version((*version)->body);
    ASSERT_TRUE(capabilities);
    EXPECT_TRUE(capabilities->twin_socket);
    EXPECT_EQ((*version)->descriptors.size(), 1U);
}

TEST(ServeListener, removes_its_socket_and_replaces_a_dead_one) {
    const std::string path =
        testing::TempDir() + "moat_listener_test." + std::to_string(::getpid());
    {
        const auto listener = serve::Listener::create(path);
        ASSERT_TRUE(listener) << listener.error();
        const auto second = serve::Listener::create(path);
        ASSERT_FALSE(second);
        EXPECT_EQ(second.error().code(), ErrorCode::busy);
    }
    EXPECT_NE(::access(path.c_str(), F_OK), 0);
    EXPECT_FALSE(serve::Listener::create("/dev/null"));
    EXPECT_FALSE(serve::Listener::create(std::string(200, 'x')));
}

} // namespace
} // namespace moat::tests
