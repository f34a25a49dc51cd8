// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The proxy between a client and a server: what passes, what it withholds, and the access that the
// client's maps do not permit.
#include "moat/core/text.hpp"

#include "machine/soft/edu.hpp"
#include "machine/vfio_user/remote_device.hpp"
#include "run/findings.hpp"
#include "serve/conversation.hpp"
#include "serve/proxy.hpp"

#include <array>
#include <gtest/gtest.h>
#include <optional>
#include <sys/mman.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

namespace moat::tests {
namespace {

using namespace machine::vfio_user;
using machine::Width;
using platform::FileDescriptor;

constexpr std::uint64_t proxied_page = 4096;

/// edu behind a proxy, both on threads of their own, and the client in front of them.
class Proxied : public testing::Test {
  protected:
    explicit Proxied(bool unchecked = false) {
        stage_.unchecked = unchecked;
        auto front = Channel::pair();
        auto back = Channel::pair();
        EXPECT_TRUE(front && back);
        server_ = std::thread([this, channel = std::move(back->first)]() mutable {
            serve::Conversation conversation(stage_, std::move(channel));
            (void)conversation.run(-1);
        });
        proxy_ = std::thread([this, client = Channel(std::move(front->second)),
                              server = Channel(std::move(back->second))]() mutable {
            serve::Proxy proxy(std::move(client), std::move(server), reports_);
            (void)proxy.run(-1);
        });
        auto made = RemoteDevice::negotiate(std::move(front->first));
        EXPECT_TRUE(made) << made.error();
        device = *std::move(made);
        device->write(RemoteDevice::config_region, machine::pci::command, Width::bits16,
                      machine::pci::command_memory | machine::pci::command_master);
    }

    ~Proxied() override { end(); }

    /// edu copies `bytes` of its buffer to `address`; returns when it is idle.
    void order_write(std::uint64_t address, std::uint64_t bytes) {
        device->write(0, 0x80, Width::bits64, 0x40000);
        device->write(0, 0x88, Width::bits64, address);
        device->write(0, 0x90, Width::bits64, bytes);
        device->write(0, 0x98, Width::bits64, 3);
        while ((device->read(0, 0x98, Width::bits64) & 1) != 0 && !device->failure())
            std::this_thread::yield();
    }

    [[nodiscard]] DmaMap page_at(std::uint64_t address) const {
        return {.flags = map_readable | map_writable, .address = address, .size = proxied_page};
    }

    /// Ends the connections; what was found is complete then.
    void end() {
        device.reset();
        for (std::thread* const each : {&proxy_, &server_})
            if (each->joinable())
                each->join();
    }

    /// What the device does wrong from its first command on; the server leaves it to the proxy.
    void misbehave(machine::soft::Misdeed misdeed, std::uint64_t bytes) {
        edu_.misbehave({.misdeed = misdeed, .bytes = bytes});
    }

    std::unique_ptr<RemoteDevice> device;
    std::string printed;

    [[nodiscard]] std::uint64_t found() const { return tally_.findings; }

  private:
    static void ignore(std::string_view /*text*/) {}

    static constexpr auto no_stacks = [](std::uintptr_t, fault::FrameSink) {};

    run::Tally tally_{};
    run::Tally server_tally_{};
    run::Findings findings_{"", tally_, no_stacks,
                            [this](std::string_view text) { printed += text; }};
    run::Findings server_findings_{"", server_tally_, no_stacks, &ignore};
    run::Recorder recorder_{"", no_stacks};
    serve::Reports reports_ = {.name = "edu",
                               .findings = findings_,
                               .recorder = recorder_,
                               .tally = tally_,
                               .print = &ignore};
    machine::soft::Edu edu_;
    machine::soft::Face face_{machine::Bdf(0, 5, 0), edu_};
    serve::Stage stage_ = {.face = face_,
                           .reports = {.name = "edu",
                                       .findings = server_findings_,
                                       .recorder = recorder_,
                                       .tally = server_tally_,
                                       .print = &ignore}};
    std::thread server_;
    std::thread proxy_;
};

TEST_F(Proxied, passes_registers_and_reaches_memory_by_the_descriptor) {
    const FileDescriptor file(::memfd_create("test", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(file.get(), proxied_page), 0);
    ASSERT_EQ(::pwrite(file.get(), "xxxx", 4, 0), 4);
    EXPECT_EQ(device->read(0, 0, Width::bits32) & 0xff, 0xedU);
    ASSERT_TRUE(device->map(page_at(proxied_page), file.get()));
    order_write(proxied_page, 4);
    std::array<char, 4> got{'x', 'x', 'x', 'x'};
    ASSERT_EQ(::pread(file.get(), got.data(), got.size(), 0), 4);
    EXPECT_EQ(got, (std::array<char, 4>{})) << "edu's buffer is zero";
    end();
    EXPECT_EQ(found(), 0U) << printed;
}

/// A device whose server checks nothing.
class ProxiedStray : public Proxied {
  protected:
    ProxiedStray() : Proxied(true) {}

    /// The client's page, with its neighbours not mapped.
    void map_one_page() { ASSERT_TRUE(device->map(page_at(2 * proxied_page), file.get())); }

    /// Whether the report names `kind` and `how_far`.
    void expect_found(std::string_view kind, std::string_view how_far) {
        end();
        EXPECT_EQ(found(), 1U) << printed;
        EXPECT_NE(printed.find(kind), std::string::npos) << printed;
        EXPECT_NE(printed.find(how_far), std::string::npos) << printed;
    }

    static FileDescriptor page_file() {
        FileDescriptor file(::memfd_create("test", MFD_CLOEXEC));
        EXPECT_EQ(::ftruncate(file.get(), proxied_page), 0);
        return file;
    }

    const FileDescriptor file = page_file();
};

TEST_F(ProxiedStray, past_the_end_is_found_to_the_byte) {
    misbehave(machine::soft::Misdeed::overrun, 48);
    map_one_page();
    order_write(3 * proxied_page - 64, 64);
    expect_found("dma-buffer-overflow", "48 bytes");
}

TEST_F(ProxiedStray, before_the_start_is_found_to_the_byte) {
    misbehave(machine::soft::Misdeed::underrun, 48);
    map_one_page();
    order_write(2 * proxied_page, 64);
    expect_found("dma-buffer-underflow", "48 bytes");
}

TEST_F(ProxiedStray, after_the_unmap_is_found) {
    misbehave(machine::soft::Misdeed::stale_address, 48);
    map_one_page();
    order_write(2 * proxied_page, 64);
    ASSERT_TRUE(device->unmap({.address = 2 * proxied_page, .size = proxied_page}));
    ASSERT_TRUE(device->map(page_at(8 * proxied_page)));
    order_write(8 * proxied_page, 64);
    expect_found("dma-use-after-unmap", "64 bytes");
}

TEST_F(ProxiedStray, from_a_read_only_page_is_found) {
    misbehave(machine::soft::Misdeed::read_only_violated, 48);
    DmaMap map = page_at(2 * proxied_page);
    map.flags = map_readable;
    ASSERT_TRUE(device->map(map, file.get()));
    device->write(0, 0x80, Width::bits64, 2 * proxied_page); // edu reads
    device->write(0, 0x88, Width::bits64, 0x40000);
    device->write(0, 0x90, Width::bits64, 64);
    device->write(0, 0x98, Width::bits64, 1);
    while ((device->read(0, 0x98, Width::bits64) & 1) != 0 && !device->failure())
        std::this_thread::yield();
    expect_found("dma-permission", "48 bytes");
}

TEST_F(Proxied, undoes_a_map_that_the_server_refuses) {
    ASSERT_TRUE(device->map(page_at(proxied_page)));
    EXPECT_FALSE(device->map(page_at(proxied_page)));
    ASSERT_TRUE(device->unmap({.address = proxied_page, .size = proxied_page}));
    EXPECT_TRUE(device->map(page_at(proxied_page))) << "the first map's range is free again";
}

/// The server checks nothing. The proxy takes a message of each side in turn, so all can be in the
/// sockets before.
TEST(Proxy, finds_an_access_that_the_clients_maps_do_not_permit) {
    auto front = Channel::pair(std::chrono::milliseconds(20));
    auto back = Channel::pair(std::chrono::milliseconds(20));
    ASSERT_TRUE(front && back);
    Channel& client = front->first;
    Channel& server = back->first;
    const FileDescriptor file(::memfd_create("test", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(file.get(), proxied_page), 0);

    const auto ask = [&](Command command, Channel::Pieces pieces, std::span<const int> files = {}) {
        ASSERT_TRUE(client.send({.id = 1, .command = command}, pieces, files));
    };
    ask(Command::version, {encode_version(own_capabilities, Role::client)});
    const RegionAccess where = {
        .offset = machine::pci::command, .region = RemoteDevice::config_region, .count = 2};
    const std::uint16_t master = machine::pci::command_master;
    ask(Command::region_write, {bytes_of(where), bytes_of(master)});
    const DmaMap map = {.flags = map_writable, .address = proxied_page, .size = proxied_page};
    const std::array<int, 1> files = {file.get()};
    ask(Command::dma_map, {bytes_of(map)}, files);
    for (unsigned turn = 0; turn != 4; ++turn)
        ask(Command::get_info, {});
    ::shutdown(client.descriptor(), SHUT_WR);

    ASSERT_TRUE(server.send({.id = 1, .command = Command::version, .flags = reply_type},
                            {encode_version({}, Role::server)}));
    for (unsigned turn = 0; turn != 3; ++turn)
        ASSERT_TRUE(server.send({.id = 1, .command = Command::get_info, .flags = reply_type}));
    const std::vector<std::byte> data(16, std::byte{0x5a});
    for (const std::uint64_t address : {proxied_page, 2 * proxied_page - 8}) {
        const DmaAccess access = {.address = address, .count = data.size()};
        ASSERT_TRUE(
            server.send({.id = 5, .command = Command::dma_write}, {bytes_of(access), data}));
    }
    ASSERT_TRUE(server.send({.id = 1, .command = Command::dma_map, .flags = reply_type}));

    std::string printed;
    const auto print = [&](std::string_view text) { printed += text; };
    constexpr auto no_stacks = [](std::uintptr_t, fault::FrameSink) {};
    run::Tally tally{};
    run::Findings findings("", tally, no_stacks, print);
    run::Recorder recorder("", no_stacks);
    const serve::Reports reports = {
        .name = "edu", .findings = findings, .recorder = recorder, .tally = tally, .print = print};
    serve::Proxy proxy(Channel(std::move(front->second)), Channel(std::move(back->second)),
                       reports);
    EXPECT_TRUE(proxy.run(-1));
    EXPECT_EQ(tally.findings, 1U) << printed;
    EXPECT_NE(printed.find("8 bytes"), std::string::npos) << printed;
    std::byte first{};
    ASSERT_EQ(::pread(file.get(), &first, 1, 0), 1);
    EXPECT_EQ(first, data.front()) << "the permitted access is performed";
    for (;;) { // what arrived at the server
        const auto message = server.receive(std::chrono::milliseconds(0));
        ASSERT_TRUE(message && *message) << "the map arrives";
        if ((*message)->header.command != Command::dma_map)
            continue;
        EXPECT_TRUE((*message)->descriptors.empty()) << "the descriptor is withheld";
        break;
    }
}

/// A proxy on a thread; the test is its client and its server.
class ProxyAlone : public testing::Test {
  protected:
    ProxyAlone() {
        auto front = Channel::pair();
        auto back = Channel::pair();
        EXPECT_TRUE(front && back);
        client.emplace(std::move(front->first));
        server.emplace(std::move(back->first));
        proxy_ = std::thread([this, to_client = Channel(std::move(front->second)),
                              to_server = Channel(std::move(back->second))]() mutable {
            serve::Proxy proxy(std::move(to_client), std::move(to_server), reports_);
            EXPECT_TRUE(proxy.run(-1));
        });
        client_sends(0, Command::version, {encode_version(own_capabilities, Role::client)});
        answer({encode_version({}, Role::server)});
    }

    ~ProxyAlone() override { end(); }

    void end() {
        client.reset();
        if (proxy_.joinable())
            proxy_.join();
    }

    [[nodiscard]] static Message next(Channel& channel) {
        auto message = channel.receive(channel.patience());
        EXPECT_TRUE(message && *message);
        return message && *message ? **std::move(message) : Message{};
    }

    void client_sends(std::uint16_t id, Command command, Channel::Pieces pieces) {
        EXPECT_TRUE(client->send({.id = id, .command = command}, pieces));
    }

    /// The server takes a request and answers. Return: the request's identity, which the client
    /// finds in its reply.
    std::uint16_t answer(Channel::Pieces pieces = {}) {
        const Header request = next(*server).header;
        EXPECT_TRUE(server->send(
            {.id = request.id, .command = request.command, .flags = reply_type}, pieces));
        const Header reply = next(*client).header;
        EXPECT_TRUE(reply.is_reply() && !reply.failed());
        EXPECT_EQ(reply.id, request.id);
        EXPECT_EQ(reply.command, request.command);
        return reply.id;
    }

    std::optional<Channel> client;
    std::optional<Channel> server;
    run::Tally tally{};

  private:
    static void ignore(std::string_view /*text*/) {}

    static constexpr auto no_stacks = [](std::uintptr_t, fault::FrameSink) {};

    run::Findings findings_{"", tally, no_stacks, &ignore};
    run::Recorder recorder_{"", no_stacks};
    serve::Reports reports_ = {.name = "edu",
                               .findings = findings_,
                               .recorder = recorder_,
                               .tally = tally,
                               .print = &ignore};
    std::thread proxy_;
};

constexpr DmaMap one_page = {.flags = map_readable, .address = proxied_page, .size = proxied_page};

/// QEMU awaits no reply between such changes.
TEST_F(ProxyAlone, applies_changes_of_the_maps_in_their_order) {
    const DmaMap around = {.flags = map_readable, .size = 4 * proxied_page};
    const DmaUnmap unmap = {.address = proxied_page, .size = proxied_page};
    client_sends(1, Command::dma_map, {bytes_of(one_page)});
    client_sends(2, Command::dma_unmap, {bytes_of(unmap)});
    client_sends(3, Command::dma_map, {bytes_of(around)});
    for (std::uint16_t id = 1; id != 4; ++id)
        EXPECT_EQ(answer(), id);
}

/// A client may await a reply of the server's before it answers.
TEST_F(ProxyAlone, passes_messages_while_the_client_owes_a_dma_reply) {
    const RegionAccess where = {
        .offset = machine::pci::command, .region = RemoteDevice::config_region, .count = 2};
    const std::uint16_t master = machine::pci::command_master;
    client_sends(1, Command::region_write, {bytes_of(where), bytes_of(master)});
    (void)answer();
    client_sends(2, Command::dma_map, {bytes_of(one_page)});
    (void)answer();
    const DmaAccess access = {.address = proxied_page, .count = 8};
    EXPECT_TRUE(server->send({.id = 77, .command = Command::dma_read}, {bytes_of(access)}));
    const Header asked = next(*client).header;
    EXPECT_EQ(asked.command, Command::dma_read);
    client_sends(3, Command::get_info, {});
    EXPECT_EQ(answer(), 3U);
    const std::uint64_t value = 0x1122334455667788;
    EXPECT_TRUE(client->send({.id = asked.id, .command = Command::dma_read, .flags = reply_type},
                             {bytes_of(access), bytes_of(value)}));
    const Message got = next(*server);
    EXPECT_EQ(got.header.id, 77U);
    EXPECT_EQ(taken_from<std::uint64_t>(std::span(got.body).subspan(sizeof(DmaAccess))), value);
    end();
    EXPECT_EQ(tally.findings, 0U);
}

} // namespace
} // namespace moat::tests
