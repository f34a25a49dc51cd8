// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The audit of a soft device in another process finds what it finds in this process: each injection
// with the same classes, buffers and bytes.
#include "moat/core/text.hpp"

#include "audit/audit.hpp"
#include "audit/subject.hpp"
#include "run/device_kinds.hpp"
#include "run/options.hpp"
#include "serve/conversation.hpp"
#include "serve/listener.hpp"

#include <algorithm>
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

/// A process that serves one client of a device.
class Served {
  public:
    Served(std::string_view device, const run::Injection& injection)
        : path_(testing::TempDir() + "moat_served_test." + std::to_string(::getpid()) + '.' +
                std::to_string(++count_)) {
        auto listener = serve::Listener::create(path_);
        EXPECT_TRUE(listener) << listener.error();
        child_ = ::fork();
        if (child_ == 0) {
            serve_one(*listener, device, injection);
            ::_exit(0);
        }
        listener_.emplace(*std::move(listener));
    }

    ~Served() {
        ::kill(child_, SIGKILL);
        ::waitpid(child_, nullptr, 0);
    }

    Served(const Served&) = delete;
    Served& operator=(const Served&) = delete;

    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    static void serve_one(serve::Listener& listener, std::string_view device,
                          const run::Injection& injection) {
        constexpr auto no_stacks = [](std::uintptr_t, fault::FrameSink) {};
        const auto ignore = [](std::string_view) {};
        const run::SoftDevice soft = run::make_device({.kind = std::string(device)}, injection);
        run::Tally tally{};
        run::Findings findings("", tally, no_stacks, ignore);
        const serve::Stage stage = {.face = *soft.face,
                                    .name = std::string(device),
                                    .findings = findings,
                                    .tally = tally,
                                    .print = ignore};
        auto client = listener.accept(-1);
        if (!client || !*client)
            return;
        serve::Conversation conversation(stage, machine::vfio_user::Channel(**std::move(client)));
        (void)conversation.run(-1);
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

Outcome audited(const audit::Kind& kind, const audit::Wrong& wrong) {
    Outcome made;
    const auto subject = audit::Subject::start(kind, wrong);
    EXPECT_TRUE(subject) << subject.error();
    if (!subject)
        return made;
    audit::AuditOptions options = (*subject)->options();
    options.end_case = cases;
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

void expect_same(std::string_view device, Injection what, std::string_view misdeed,
                 std::uint64_t after) {
    const Outcome here = audited(soft_kind(device), {what, bytes});
    const Served served(device, {.name = std::string(misdeed), .bytes = bytes, .after = after});
    const Outcome there = audited(audit::vfio_user_kind(served.path()), {});
    EXPECT_EQ(there.report.tally.cases, cases);
    EXPECT_EQ(here.seen.empty(), what == Injection::none);
    std::vector<Seen> only_here;
    std::vector<Seen> only_there;
    std::ranges::set_difference(here.seen, there.seen, std::back_inserter(only_here));
    std::ranges::set_difference(there.seen, here.seen, std::back_inserter(only_there));
    for (const Seen& each : only_here)
        ADD_FAILURE() << misdeed << " found in this process only: " << text(each);
    for (const Seen& each : only_there)
        ADD_FAILURE() << misdeed << " found over the socket only: " << text(each);
}

/// Within the pages of a buffer, canaries see what messages would show.
TEST(ServedDevice, finds_writes_into_the_rest_of_shared_pages) {
    const Served quiet("nvme", {});
    EXPECT_TRUE(audited(audit::vfio_user_kind(quiet.path(), true), {}).seen.empty());
    const Served served("nvme", {.name = "overrun", .bytes = bytes, .after = 2});
    const Outcome made = audited(audit::vfio_user_kind(served.path(), true), {});
    EXPECT_TRUE(std::ranges::any_of(made.seen, [](const Seen& each) {
        return std::get<1>(each) == "wrote-outside" && std::get<5>(each) == bytes;
    }));
}

struct Fault {
    Injection what;
    const char* misdeed;
};

/// Not the late write: it may come before the driver sees the end.
constexpr std::array faults = {
    Fault{Injection::none, "none"},           Fault{Injection::overrun, "overrun"},
    Fault{Injection::underrun, "underrun"},   Fault{Injection::stale, "stale"},
    Fault{Injection::read_only, "read-only"}, Fault{Injection::short_transfer, "short-transfer"}};

class ServedAudit : public testing::TestWithParam<Fault> {};

/// Its driver identifies the controller and the namespace before the first case.
TEST_P(ServedAudit, finds_the_same_in_an_nvme_controller) {
    expect_same("nvme", GetParam().what, GetParam().misdeed, 2);
}

TEST_P(ServedAudit, finds_the_same_in_edu) {
    expect_same("edu", GetParam().what, GetParam().misdeed, 0);
}

INSTANTIATE_TEST_SUITE_P(Faults, ServedAudit, testing::ValuesIn(faults), [](const auto& each) {
    std::string name = each.param.misdeed;
    std::ranges::replace(name, '-', '_');
    return name;
});

TEST(ServedDevice, a_server_that_dies_is_an_error_with_its_reason) {
    std::optional<Served> served(std::in_place, "edu", run::Injection{});
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
