// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// vfio-user from both sides: a client's messages at a soft device, a server's at the client, and
// both at the proxy: any header, size, order, descriptors, and an end in the middle. Each ends with
// a reason, in bounded time, and leaves no descriptor.
#include "moat/core/check.hpp"

#include "machine/soft/edu.hpp"
#include "machine/vfio_user/remote_device.hpp"
#include "run/findings.hpp"
#include "serve/conversation.hpp"
#include "serve/proxy.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

using namespace moat;
using namespace moat::machine::vfio_user;
using platform::FileDescriptor;

/// Counts the messages that the tested side took, and prints at the end how many.
class Messages final : public Channel::Observer {
  public:
    Messages() = default;

    ~Messages() override { std::fprintf(stderr, "stat::messages: %zu\n", count_); }

    void sent(const Header& /*header*/, std::span<const std::byte> /*body*/,
              std::size_t /*descriptors*/) override {}

    void received(const Header& /*header*/, std::span<const std::byte> /*body*/,
                  std::size_t /*descriptors*/) override {
        ++count_;
    }

  private:
    std::size_t count_ = 0;
};

Messages messages;

class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

    [[nodiscard]] bool empty() const { return rest_.empty(); }

    std::uint8_t byte() {
        const std::uint8_t value = rest_.empty() ? 0 : rest_.front();
        rest_ = rest_.subspan(rest_.empty() ? 0 : 1);
        return value;
    }

    std::span<const std::byte> bytes(std::size_t most) {
        const auto part = rest_.first(std::min(most, rest_.size()));
        rest_ = rest_.subspan(part.size());
        return std::as_bytes(part);
    }

  private:
    std::span<const std::uint8_t> rest_;
};

/// Sends what the input says, then closes this direction. Fills no socket's buffer.
void send_all(Input& input, Channel& to, std::uint16_t first_id) {
    const FileDescriptor memory(::memfd_create("fuzz", MFD_CLOEXEC));
    (void)!::ftruncate(memory.get(), 8192);
    const FileDescriptor event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    const std::array<int, 3> descriptors = {memory.get(), event.get(), memory.get()};
    std::uint16_t id = first_id;
    for (unsigned count = 0; !input.empty() && count != 64; ++count) {
        const std::uint8_t shape = input.byte();
        if (shape >= 0xf0) { // no message at all
            const auto raw = input.bytes(shape - 0xefU);
            (void)!::send(to.descriptor(), raw.data(), raw.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            continue;
        }
        const Header header = {
            .id = static_cast<std::uint16_t>((shape & 1U) != 0 ? input.byte() : id++),
            .command = static_cast<Command>(input.byte() % 20),
            .flags = (shape & 2U) != 0 ? input.byte() & 0x3fU : first_id & 1U};
        const auto body = input.bytes(input.byte());
        if (!to.send(header, {body}, std::span(descriptors).first(shape >> 2U & 3U)))
            break;
    }
    ::shutdown(to.descriptor(), SHUT_WR);
}

struct Ends {
    Channel tested;
    Channel peer;
};

[[nodiscard]] Ends make_ends() {
    auto ends = Channel::pair(Channel::Patience(1));
    MOAT_CHECK(ends.has_value(), "sockets for the fuzzer");
    ends->first.observe(messages);
    return {std::move(ends->first), Channel(std::move(ends->second), Channel::Patience(1))};
}

constexpr auto no_stacks = [](std::uintptr_t, fault::FrameSink) {};

void ignore(std::string_view /*text*/) {}

void send_version(Channel& client) {
    (void)client.send({.id = 0, .command = Command::version},
                      {encode_version(own_capabilities, Role::client)});
}

void converse(Input& input) {
    Ends ends = make_ends();
    machine::soft::Edu edu;
    machine::soft::Face face(machine::Bdf(0, 5, 0), edu);
    run::Tally tally{};
    run::Findings findings("", tally, no_stacks, &ignore);
    run::Recorder recorder("", no_stacks);
    const serve::Stage stage = {.face = face,
                                .reports = {.name = "edu",
                                            .findings = findings,
                                            .recorder = recorder,
                                            .tally = tally,
                                            .print = &ignore}};
    if ((input.byte() & 1U) != 0)
        send_version(ends.peer);
    send_all(input, ends.peer, 2);
    serve::Conversation conversation(stage, std::move(ends.tested));
    (void)conversation.run(-1);
}

/// Refuses half of the addresses.
class Bus final : public machine::soft::BusMaster {
  public:
    [[nodiscard]] ByteCount read(Iova from, std::span<std::byte> into) override {
        return ByteCount((from.value() & 0x1000) == 0 ? into.size() : 0);
    }

    [[nodiscard]] ByteCount write(Iova to, std::span<const std::byte> from) override {
        return ByteCount((to.value() & 0x1000) == 0 ? from.size() : 0);
    }

    void interrupt(unsigned /*vector*/) override {}
};

void send_shape(Channel& server) {
    std::uint16_t id = 1;
    const auto answer = [&](Command command, Channel::Pieces pieces) {
        (void)server.send({.id = id++, .command = command, .flags = reply_type}, pieces);
    };
    answer(Command::version, {encode_version({}, Role::server)});
    const DeviceInfo info = {.flags = device_is_pci, .regions = 9, .interrupts = 3};
    answer(Command::get_info, {bytes_of(info)});
    for (std::uint32_t index = 0; index != 8; ++index) {
        const RegionInfo region = {.index = index, .size = index % 7 == 0 ? 4096U : 0U};
        answer(Command::get_region_info, {bytes_of(region)});
    }
    const RegionAccess where = {.region = 7, .count = 4};
    const std::uint32_t value = 0x11e81234;
    for (unsigned turn = 0; turn != 3; ++turn)
        answer(Command::region_read, {bytes_of(where), bytes_of(value)});
    const IrqInfo interrupts = {.index = 2, .count = 3};
    answer(Command::get_irq_info, {bytes_of(interrupts)});
}

constexpr std::uint16_t after_shape = 15;

void be_served(Input& input) {
    Ends ends = make_ends();
    const bool in_shape = (input.byte() & 1U) != 0;
    if (in_shape)
        send_shape(ends.peer);
    send_all(input, ends.peer, in_shape ? after_shape : 1);
    const auto device = RemoteDevice::negotiate(std::move(ends.tested));
    if (!device)
        return;
    Bus bus;
    (*device)->connect_bus(bus);
    for (unsigned turn = 0; turn != 8 && !(*device)->failure(); ++turn) {
        (*device)->write(0, 8 * turn, machine::Width::bits64, turn);
        (void)(*device)->read(0, 8 * turn, machine::Width::bits32);
        (void)(*device)->map({.flags = map_readable, .size = 4096});
        (void)(*device)->set_interrupts({});
        (void)(*device)->step(bus);
        (*device)->reset();
    }
}

void stand_between(Input& input) {
    Ends client = make_ends();
    Ends server = make_ends();
    run::Tally tally{};
    run::Findings findings("", tally, no_stacks, &ignore);
    send_version(client.peer);
    const Header reply = {.id = 0, .command = Command::version, .flags = reply_type};
    (void)server.peer.send(reply, {encode_version({}, Role::server)});
    const std::size_t half = input.byte();
    const auto of_client = input.bytes(half);
    Input first(reinterpret_cast<const std::uint8_t*>(of_client.data()), of_client.size());
    send_all(first, client.peer, 2);
    send_all(input, server.peer, 1);
    run::Recorder recorder("", no_stacks);
    const serve::Reports reports = {.name = "fuzz",
                                    .findings = findings,
                                    .recorder = recorder,
                                    .tally = tally,
                                    .print = &ignore};
    serve::Proxy proxy(std::move(client.tested), std::move(server.tested), reports);
    (void)proxy.run(-1);
}

/// The lowest free number: higher after a leak.
[[nodiscard]] int next_descriptor() {
    const FileDescriptor next(::dup(STDERR_FILENO));
    return next.get();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    ::signal(SIGPIPE, SIG_IGN);
    const int before = next_descriptor();
    Input input(data, size);
    switch (input.byte() % 3) {
    case 0:
        converse(input);
        break;
    case 1:
        be_served(input);
        break;
    default:
        stand_between(input);
    }
    MOAT_CHECK(next_descriptor() == before, "every descriptor was closed");
    return 0;
}
