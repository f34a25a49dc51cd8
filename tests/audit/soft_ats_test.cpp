// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A controller that uses stale addresses and caches translations (ATS): blocked where its domain
// invalidates the cache, and found by its writes where the domain leaves it.
#include "moat/core/text.hpp"

#include "audit/audit.hpp"
#include "machine/soft/nvme.hpp"
#include "machine/soft/soft_machine.hpp"

#include <chrono>
#include <cstdint>
#include <gtest/gtest.h>
#include <utility>
#include <vector>

namespace moat::tests {
namespace {

using audit::Finding;
using audit::FindingKind;
using machine::soft::Ats;
using machine::soft::Misdeed;

enum class Caches : std::uint8_t { invalidated, left };

class SoftAts : public testing::Test {
  protected:
    static constexpr machine::Bdf address{0, 5, 0};

    /// Audits the controller. Return: the findings, each once.
    std::vector<Finding> run(Ats ats, Misdeed misdeed, Caches caches = Caches::invalidated) {
        machine::soft::Nvme model;
        machine::soft::SoftMachine machine;
        if (caches == Caches::left)
            machine.leave_device_tlbs();
        EXPECT_TRUE(machine.add(address, model, ats));
        audit::AuditOptions options;
        options.end_case = 300;
        options.settle = std::chrono::milliseconds(1);
        options.probe = [&](const audit::Seat& seat) {
            model.misbehave({});
            auto driver = audit::probe(seat);
            model.misbehave({.misdeed = misdeed}); // once it has started
            return driver;
        };
        auto report = audit::audit_function(machine, address, options);
        EXPECT_TRUE(report) << report.error();
        if (!report)
            return {};
        EXPECT_EQ(report->tally.cases, 300U);
        EXPECT_EQ(report->caches_translations, ats == Ats::enabled);
        return std::move(report->findings);
    }

    /// Of "touched-after-completion": how many with a fault, and without one.
    struct Counts {
        std::size_t blocked = 0;
        std::size_t written = 0;
    };

    static Counts stale(const std::vector<Finding>& all) {
        Counts counts;
        for (const Finding& each : all)
            if (each.kind == FindingKind::touched_after_completion)
                ++(each.record ? counts.blocked : counts.written);
        return counts;
    }
};

TEST_F(SoftAts, good_controller_stays_inside) {
    EXPECT_TRUE(run(Ats::enabled, Misdeed::none).empty());
    EXPECT_TRUE(run(Ats::enabled, Misdeed::none, Caches::left).empty());
}

TEST_F(SoftAts, stale_access_is_blocked_where_the_cache_is_invalidated) {
    const Counts counts = stale(run(Ats::enabled, Misdeed::stale_address));
    EXPECT_GT(counts.blocked, 0U);
    EXPECT_EQ(counts.written, 0U);
}

TEST_F(SoftAts, stale_access_succeeds_where_the_cache_is_left) {
    const Counts counts = stale(run(Ats::enabled, Misdeed::stale_address, Caches::left));
    EXPECT_GT(counts.written, 0U);
}

TEST_F(SoftAts, controller_without_a_cache_is_blocked_either_way) {
    const Counts counts = stale(run(Ats::absent, Misdeed::stale_address, Caches::left));
    EXPECT_GT(counts.blocked, 0U);
    EXPECT_EQ(counts.written, 0U);
}

} // namespace
} // namespace moat::tests
