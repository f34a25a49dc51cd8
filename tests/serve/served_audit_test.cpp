// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The audit of a soft device in another process finds what it finds in this process: each injection
// with the same classes, buffers and bytes; and likewise with a proxy in between.
#include "moat/core/text.hpp"

#include "audit/audit.hpp"
#include "audit/subject.hpp"
#include "run/device_kinds.hpp"
#include "serve/conversation.hpp"
#include "serve/listener.hpp"
#include "serve/proxy.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <tuple>
#include <unistd.h>

namespace moat::tests {
namespace {

using audit::Injection;

constexpr std::uint64_t bytes = 48;
constexpr std::uint64_t cases = 60;

using machine::soft::Misbehaviour;
using machine::soft::Misdeed;

/// A process that serves one client.
class Served {
  public:
    using Channel = machine::vfio_user::Channel;

    /// Its client gets a soft device.
    Served(std::string_view device, const Misbehaviour& how)
        : Served([&](Channel client) { serve_device(std::move(client), device, how); }) {}

    /// It passes messages to the server at `behind`.
    static Served proxy(const std::string& behind) {
        return Served([&](Channel client) { stand_between(std::move(client), behind); });
    }

    ~Served() {
        ::kill(child_, SIGKILL);
        ::waitpid(child_, nullptr, 0);
    }

    Served(const Served&) = delete;
    Served& operator=(const Served&) = delete;

    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    /// Calls serve(channel to the client) in another process.
    template <class Serve>
    explicit Served(Serve serve)
        : path_(testing::TempDir() + "moat_served_test." + std::to_string(::getpid()) + '.' +
                std::to_string(++count_)) {
        auto listener = serve::Listener::create(path_);
        EXPECT_TRUE(listener) << listener.error();
        child_ = ::fork();
        if (child_ == 0) {
            auto client = listener->accept(-1);
            if (client && *client)
                serve(Channel(**std::move(client)));
            ::_exit(0);
        }
        listener_.emplace(*std::move(listener));
    }

    /// Where nobody reads reports.
    struct Silence {
        static void ignore(std::string_view /*text*/) {}

        static constexpr auto no_stacks = [](std::uintptr_t, fault::FrameSink) {};

        run::Tally tally{};
        run::Findings findings{"", tally, no_stacks, &ignore};
        run::Recorder recorder{"", no_stacks};
        serve::Reports reports = {.name = "served",
                                  .findings = findings,
                                  .recorder = recorder,
                                  .tally = tally,
                                  .print = &ignore};
    };

    static void serve_device(Channel client, std::string_view device, const Misbehaviour& how) {
        Silence silence;
        const run::SoftDevice soft = run::make_device({.kind = std::string(device)}, {});
        soft.model->misbehave(how);
        const serve::Stage stage = {.face = *soft.face, .reports = silence.reports};
        (void)serve::Conversation(stage, std::move(client)).run(-1);
    }

    static void stand_between(Channel client, const std::string& behind) {
        Silence silence;
        auto server = Channel::connect(behind);
        if (server)
            (void)serve::Proxy(std::move(client), *std::move(server), silence.reports).run(-1);
    }

    static inline unsigned count_ = 0;

    std::string path_;
    std::optional<serve::Listener> listener_;
    pid_t child_ = -1;
};

/// What is the same in both processes: addresses are not.
using Seen =
    std::tuple<std::uint64_t, std::string, std::string, std::string, fault::Side, std::uint64_t>;

struct Outcome {
    audit::DeviceReport report;
    std::vector<Seen> seen;
};

Outcome audited(const audit::Kind& kind, const audit::Wrong& wrong, std::uint64_t end = cases,
                std::optional<std::chrono::nanoseconds> settle = {}) {
    Outcome made;
    const auto subject = audit::Subject::start(kind, wrong);
    EXPECT_TRUE(subject) << subject.error();
    if (!subject)
        return made;
    audit::AuditOptions options = (*subject)->options();
    options.end_case = end;
    options.settle = settle.value_or(options.settle);
    options.found = [&](const audit::Finding& each) {
        made.seen.emplace_back(each.about.number, std::string(name(each.kind)), each.operation,
                               each.buffer, each.side, each.bytes);
    };
    auto report = audit::audit_function((*subject)->machine(), (*subject)->address(), options);
    EXPECT_TRUE(report) << report.error();
    if (report)
        made.report = std::move(*report);
    std::ranges::sort(made.seen);
    return made;
}

const audit::Kind& soft_kind(std::string_view device) {
    return *std::ranges::find_if(audit::kinds(), [&](const auto& each) {
        return each.machine == "soft" && each.name == device;
    });
}

std::string text(const Seen& seen) {
    const auto& [number, kind, operation, buffer, side, count] = seen;
    return "case " + std::to_string(number) + ": " + kind + ", " + operation + ", " + buffer +
           ", side " + std::to_string(static_cast<unsigned>(side)) + ", " + std::to_string(count);
}

void expect_same(const Outcome& here, const Outcome& there) {
    std::vector<Seen> only_here;
    std::vector<Seen> only_there;
    std::ranges::set_difference(here.seen, there.seen, std::back_inserter(only_here));
    std::ranges::set_difference(there.seen, here.seen, std::back_inserter(only_there));
    for (const Seen& each : only_here)
        ADD_FAILURE() << "found in this process only: " << text(each);
    for (const Seen& each : only_there)
        ADD_FAILURE() << "found over the socket only: " << text(each);
    EXPECT_EQ(there.report.tally.cases, here.report.tally.cases);
}

/// Within the pages of a buffer, canaries see what messages would show.
TEST(ServedDevice, finds_writes_into_the_rest_of_shared_pages) {
    const Served quiet("nvme", {});
    EXPECT_TRUE(audited(audit::vfio_user_kind(quiet.path(), true), {}).seen.empty());
    const Served served("nvme",
                        {.misdeed = Misdeed::overrun, .bytes = bytes, .when = {.after = 2}});
    const Outcome made = audited(audit::vfio_user_kind(served.path(), true), {});
    EXPECT_TRUE(std::ranges::any_of(made.seen, [](const Seen& each) {
        return std::get<1>(each) == "wrote-outside" && std::get<5>(each) == bytes;
    }));
}

struct Fault {
    Injection what;
    Misdeed misdeed;
};

constexpr std::array faults = {Fault{Injection::none, Misdeed::none},
                               Fault{Injection::overrun, Misdeed::overrun},
                               Fault{Injection::underrun, Misdeed::underrun},
                               Fault{Injection::stale, Misdeed::stale_address},
                               Fault{Injection::read_only, Misdeed::read_only_violated},
                               Fault{Injection::short_transfer, Misdeed::wrong_length}};

class ServedAudit : public testing::TestWithParam<Fault> {
  protected:
    /// `after`: so many commands with data come before the first case.
    static void expect_same_finds(std::string_view device, std::uint64_t after) {
        const auto [what, misdeed] = GetParam();
        const Misbehaviour how = {.misdeed = misdeed, .bytes = bytes, .when = {.after = after}};
        const Outcome here = audited(soft_kind(device), {what, bytes});
        EXPECT_EQ(here.seen.empty(), what == Injection::none);
        const Served served(device, how);
        expect_same(here, audited(audit::vfio_user_kind(served.path()), {}));
        const Served behind(device, how);
        const Served between = Served::proxy(behind.path());
        expect_same(here, audited(audit::vfio_user_kind(between.path()), {}));
    }
};

/// Its driver identifies the controller and the namespace before the first case.
TEST_P(ServedAudit, finds_the_same_in_an_nvme_controller) {
    expect_same_finds("nvme", 2);
}

TEST_P(ServedAudit, finds_the_same_in_edu) {
    expect_same_finds("edu", 0);
}

/// The driver has unmapped the buffer long before the write, and its next command comes long after.
TEST(ServedDevice, finds_the_same_late_writes) {
    constexpr std::uint64_t few_cases = 10;
    constexpr std::chrono::milliseconds delay(40);
    for (const auto& [device, after] : {std::pair("nvme", 2U), std::pair("edu", 0U)}) {
        const Outcome here = audited(soft_kind(device), {Injection::late, bytes}, few_cases);
        EXPECT_FALSE(here.seen.empty());
        const Served served(device, {.misdeed = Misdeed::write_after_completion,
                                     .bytes = bytes,
                                     .when = {.after = after},
                                     .delay = delay});
        expect_same(here, audited(audit::vfio_user_kind(served.path()), {}, few_cases, 3 * delay));
    }
}

INSTANTIATE_TEST_SUITE_P(Faults, ServedAudit, testing::ValuesIn(faults), [](const auto& each) {
    std::string name(machine::soft::name(each.param.misdeed));
    std::ranges::replace(name, '-', '_');
    return name;
});

TEST(ServedDevice, a_server_that_dies_is_an_error_with_its_reason) {
    std::optional<Served> served(std::in_place, "edu", Misbehaviour{});
    const auto subject = audit::Subject::start(audit::vfio_user_kind(served->path()), {});
    ASSERT_TRUE(subject) << subject.error();
    served.reset();
    audit::AuditOptions options = (*subject)->options();
    options.end_case = 5;
    const auto report =
        audit::audit_function((*subject)->machine(), (*subject)->address(), options);
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().code(), ErrorCode::io) << report.error();
}

TEST(ServedDevice, no_server_is_an_error) {
    const auto subject = audit::Subject::start(audit::vfio_user_kind("/nowhere/at/all"), {});
    ASSERT_FALSE(subject);
    EXPECT_EQ(subject.error().code(), ErrorCode::not_found);
}

} // namespace
} // namespace moat::tests
