// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An audit of a server that goes wrong in its middle: it dies, hangs, lies about sizes, or answers
// out of order. Each ends soon with a finding or a clear error, and leaves no descriptor.
#include "moat/core/text.hpp"

#include "audit/audit.hpp"
#include "machine/vfio_user/vfio_user_machine.hpp"
#include "run/device_kinds.hpp"
#include "serve/conversation.hpp"
#include "serve/listener.hpp"

#include <functional>
#include <gtest/gtest.h>
#include <thread>
#include <unistd.h>

namespace moat::tests {
namespace {

using namespace machine::vfio_user;
using namespace std::chrono_literals;

enum class Fate : std::uint8_t { passes, vanishes, ends_the_connection };

/// What happens to a message of the server's on its way. It may change.
using Tamper = std::function<Fate(Message&)>;

/// Passes messages between two channels until one ends; those from `server` by `tamper`.
void relay(Channel client, Channel server, const Tamper& tamper) {
    const auto pass = [](Channel& from, Channel& to, const Tamper* change) {
        auto message = from.receive(0ms);
        if (!message)
            return false;
        if (!*message)
            return true;
        const Fate fate = change != nullptr ? (*change)(**message) : Fate::passes;
        if (fate != Fate::passes)
            return fate == Fate::vanishes;
        std::vector<int> descriptors;
        for (const auto& each : (*message)->descriptors)
            descriptors.push_back(each.get());
        return to.send((*message)->header, {(*message)->body}, descriptors).has_value();
    };
    while (pass(client, server, nullptr) && pass(server, client, &tamper))
        wait_for_any({client.descriptor(), server.descriptor()}, 1ms);
}

/// The lowest free number: higher after a leak.
[[nodiscard]] int next_descriptor() {
    const platform::FileDescriptor next(::dup(STDERR_FILENO));
    return next.get();
}

/// So many messages come before the middle of an audit.
constexpr unsigned middle = 70;

class StrangeServer : public testing::Test {
  protected:
    /// Audits a soft NVMe controller whose server's messages pass `tamper`. Returns once everything
    /// has ended.
    static Result<audit::DeviceReport> audit_through(const Tamper& tamper) {
        const int before = next_descriptor();
        auto report = [&] {
            const std::string path =
                testing::TempDir() + "moat_strange_test." + std::to_string(::getpid());
            auto listener = serve::Listener::create(path);
            EXPECT_TRUE(listener) << listener.error();
            std::thread server([&] {
                auto client = listener->accept(-1);
                auto pair = Channel::pair();
                EXPECT_TRUE(client && *client && pair);
                std::thread device([channel = Channel(std::move(pair->second))]() mutable {
                    serve_nvme(std::move(channel));
                });
                relay(Channel(**std::move(client)), std::move(pair->first), tamper);
                device.join();
            });
            auto result = audited(path);
            server.join();
            return result;
        }();
        EXPECT_EQ(next_descriptor(), before) << "a descriptor is left";
        return report;
    }

    static void expect_error(ErrorCode code, const Tamper& tamper) {
        const auto report = audit_through(tamper);
        ASSERT_FALSE(report);
        EXPECT_EQ(report.error().code(), code) << report.error();
    }

    /// The audit ends in its middle, with a finding whose report has `words`.
    static void expect_early_end(std::string_view words, const Tamper& tamper) {
        const auto report = audit_through(tamper);
        ASSERT_TRUE(report) << report.error();
        EXPECT_TRUE(report->ended_early);
        ASSERT_FALSE(report->findings.empty());
        const audit::Finding& last = report->findings.back();
        EXPECT_EQ(last.kind, audit::FindingKind::hang);
        EXPECT_NE(last.report.find(words), std::string::npos) << last.report;
    }

  private:
    static Result<audit::DeviceReport> audited(const std::string& path) {
        auto machine = VfioUserMachine::connect({.socket = path, .patience = 100ms});
        if (!machine)
            return std::unexpected(machine.error());
        return audit::audit_function(**machine, VfioUserMachine::address, {.end_case = 20});
    }

    static void serve_nvme(Channel channel) {
        constexpr auto no_stacks = [](std::uintptr_t, fault::FrameSink) {};
        const auto ignore = [](std::string_view) {};
        const run::SoftDevice device = run::make_device({.kind = "nvme"}, {});
        run::Tally tally{};
        run::Findings findings("", tally, no_stacks, ignore);
        run::Recorder recorder("", no_stacks);
        const serve::Stage stage = {.face = *device.face,
                                    .reports = {.name = "nvme",
                                                .findings = findings,
                                                .recorder = recorder,
                                                .tally = tally,
                                                .print = ignore},
                                    .offered = {}}; // no twin socket, which the relay would not see
        (void)serve::Conversation(stage, std::move(channel)).run(-1);
    }
};

/// Calls change(message) for replies of `command` from the `first`-th on.
template <class Change>
Tamper from_reply(Command command, unsigned first, Change change) {
    return [command, first, change, count = 0U](Message& message) mutable {
        if (message.header.is_reply() && message.header.command == command && ++count >= first)
            change(message);
        return Fate::passes;
    };
}

/// The fate of all messages from the middle of an audit on.
Tamper from_middle(Fate fate) {
    return [fate, count = 0U](Message&) mutable { return ++count < middle ? Fate::passes : fate; };
}

/// Says that the region `index` has `bytes`.
Tamper with_region_bytes(std::uint32_t index, std::uint64_t bytes) {
    return from_reply(Command::get_region_info, 1, [=](Message& message) {
        RegionInfo info = *taken_from<RegionInfo>(message.body);
        info.size = info.index == index ? bytes : info.size;
        std::ranges::copy(bytes_of(info), message.body.begin());
    });
}

TEST_F(StrangeServer, that_is_right_is_audited) {
    unsigned messages = 0;
    const auto report = audit_through([&](Message&) {
        ++messages;
        return Fate::passes;
    });
    ASSERT_TRUE(report) << report.error();
    EXPECT_GT(messages, middle + 20) << "a server that goes wrong there does so in an audit";
    EXPECT_EQ(report->tally.cases, 20U);
    EXPECT_EQ(report->tally.findings, 0U);
}

TEST_F(StrangeServer, that_dies_is_found) {
    expect_early_end("the other end has closed the connection",
                     from_middle(Fate::ends_the_connection));
}

TEST_F(StrangeServer, that_hangs_is_found) {
    expect_early_end("the server does not answer", from_middle(Fate::vanishes));
}

TEST_F(StrangeServer, that_answers_a_question_twice_is_found) {
    expect_early_end("a reply answers no request", [count = 0U](Message& message) mutable {
        if (++count >= middle)
            message.header = {.id = 1, .command = Command::version, .flags = reply_type};
        return Fate::passes;
    });
}

TEST_F(StrangeServer, that_hangs_at_the_start_is_an_error) {
    expect_error(ErrorCode::busy, [](Message& message) {
        return message.header.command == Command::region_read ? Fate::vanishes : Fate::passes;
    });
}

TEST_F(StrangeServer, that_answers_out_of_order_is_an_error) {
    expect_error(ErrorCode::refused, from_reply(Command::region_read, 6,
                                                [](Message& message) { ++message.header.id; }));
}

TEST_F(StrangeServer, that_answers_another_question_is_an_error) {
    expect_error(ErrorCode::refused, from_reply(Command::region_read, 6, [](Message& message) {
                     message.header.command = Command::get_info;
                 }));
}

TEST_F(StrangeServer, that_answers_too_little_is_an_error) {
    expect_error(ErrorCode::mismatch, from_reply(Command::region_read, 6, [](Message& message) {
                     message.body.resize(sizeof(RegionAccess));
                 }));
}

/// A driver sees all ones past the region that the server has.
TEST_F(StrangeServer, whose_registers_are_smaller_than_they_should_be_is_an_error) {
    expect_error(ErrorCode::io, with_region_bytes(0, 17));
}

TEST_F(StrangeServer, whose_registers_are_endless_is_an_error) {
    expect_error(ErrorCode::mismatch, with_region_bytes(0, ~std::uint64_t{0}));
}

/// The server refuses accesses past its true region; the driver makes none.
TEST_F(StrangeServer, whose_registers_are_fewer_than_it_says_is_audited) {
    const auto report = audit_through(with_region_bytes(0, 3 << 20)); // no power of two
    ASSERT_TRUE(report) << report.error();
    EXPECT_EQ(report->tally.cases, 20U);
    EXPECT_EQ(report->tally.findings, 0U);
}

TEST_F(StrangeServer, whose_configuration_space_is_too_small_is_an_error) {
    expect_error(ErrorCode::mismatch, with_region_bytes(RemoteDevice::config_region, 16));
}

/// What is no message ends the connection.
TEST_F(StrangeServer, that_sends_an_impossible_type_is_an_error) {
    expect_error(ErrorCode::out_of_range, from_reply(Command::region_read, 6, [](Message& message) {
                     message.header.flags = 7;
                 }));
}

} // namespace
} // namespace moat::tests
