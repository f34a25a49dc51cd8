// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The audit on devices of this process: it finds each injected mistake with its class, buffer and
// bytes, and finds nothing on correct devices.
#include "moat/core/text.hpp"

#include "audit/audit.hpp"
#include "audit/subject.hpp"
#include "sanitized.hpp"

#include <algorithm>
#include <gtest/gtest.h>
#include <set>
#include <string>
#include <vector>

namespace moat::tests {
namespace {

using audit::Finding;
using audit::FindingKind;
using audit::Injection;
using audit::Placement;

constexpr std::uint64_t many = sanitized ? 5'000 : 200'000;
constexpr std::uint64_t some = sanitized ? 200 : 600;
constexpr std::uint64_t page = 4096;

const audit::Kind& kind_of(std::string_view name) {
    return *std::ranges::find_if(audit::kinds(), [&](const auto& each) {
        return each.machine == "soft" && each.name == name;
    });
}

struct Outcome {
    audit::DeviceReport report;
    std::vector<Finding> all;
};

Outcome run(std::string_view device, audit::Wrong wrong, std::uint64_t first, std::uint64_t end,
            std::uint64_t seed = 7) {
    Outcome made;
    auto subject = audit::Subject::start(kind_of(device), wrong);
    EXPECT_TRUE(subject);
    audit::AuditOptions options = (*subject)->options();
    options.seed = seed;
    options.first_case = first;
    options.end_case = end;
    options.found = [&](const Finding& each) { made.all.push_back(each); };
    auto report = audit::audit_function((*subject)->machine(), (*subject)->address(), options);
    EXPECT_TRUE(report) << report.error();
    if (report)
        made.report = std::move(*report);
    return made;
}

std::string text(const Finding& finding) {
    return std::string(name(finding.kind)) + " in case " + std::to_string(finding.about.number) +
           ", \"" + finding.operation + "\" of " + std::to_string(finding.about.length.value()) +
           ": " + finding.buffer + ", " + std::to_string(finding.bytes) + " bytes\n" +
           finding.report;
}

class SoftAudit : public testing::TestWithParam<const char*> {
  protected:
    static constexpr std::uint64_t bytes = 48;

    void inject(Injection what) { result = run(GetParam(), {what, bytes}, 0, some); }

    /// Bytes between the buffer's end and the guard: reads there are not detected.
    static std::uint64_t unseen(const Finding& finding) {
        return (page - (finding.range.last().value() + 1) % page) % page;
    }

    /// The buffer whose address is used again: NVMe's identify data, and edu's first buffer.
    static std::uint64_t stale_bytes() { return std::string_view(GetParam()) == "nvme" ? page : 1; }

    static std::uint64_t least(std::uint64_t a, std::uint64_t b) { return std::min(a, b); }

    /// Exactly these kinds were found.
    void expect_kinds(const std::set<FindingKind>& kinds) const {
        std::set<FindingKind> found;
        for (const Finding& each : result.all)
            found.insert(each.kind);
        EXPECT_EQ(found.size(), kinds.size());
        for (const Finding& each : result.report.findings)
            EXPECT_TRUE(kinds.contains(each.kind)) << text(each);
    }

    Outcome result;
};

TEST_P(SoftAudit, finds_nothing_in_a_device_that_behaves) {
    const Outcome quiet = run(GetParam(), {}, 0, many / 2);
    EXPECT_EQ(quiet.report.tally.cases, many / 2);
    EXPECT_EQ(quiet.report.tally.refused, 0U) << "the device's largest transfer is known";
    for (const Finding& each : quiet.all)
        ADD_FAILURE() << text(each);
}

TEST_P(SoftAudit, finds_an_overrun) {
    inject(Injection::overrun);
    expect_kinds({FindingKind::wrote_outside, FindingKind::read_outside,
                  FindingKind::success_though_blocked});
    for (const Finding& each : result.all) {
        EXPECT_EQ(each.buffer, "data") << text(each);
        if (each.kind == FindingKind::success_though_blocked)
            continue;
        EXPECT_EQ(each.side, fault::Side::right) << text(each);
        EXPECT_EQ(each.known, audit::Known::exactly) << text(each);
        const std::uint64_t seen =
            each.kind == FindingKind::wrote_outside ? bytes : bytes - unseen(each);
        EXPECT_EQ(each.bytes, seen) << text(each);
    }
}

TEST_P(SoftAudit, finds_an_underrun) {
    inject(Injection::underrun);
    expect_kinds({FindingKind::wrote_outside, FindingKind::read_outside,
                  FindingKind::success_though_blocked});
    for (const Finding& each : result.all) {
        EXPECT_EQ(each.buffer, "data") << text(each);
        if (each.kind == FindingKind::success_though_blocked)
            continue;
        EXPECT_EQ(each.side, fault::Side::left) << text(each);
        EXPECT_EQ(each.bytes, bytes) << text(each);
    }
}

TEST_P(SoftAudit, finds_a_late_write) {
    inject(Injection::late);
    expect_kinds({FindingKind::touched_after_completion});
    for (const Finding& each : result.all) {
        EXPECT_EQ(each.buffer, "data") << text(each);
        EXPECT_EQ(each.range.size(), each.about.length) << text(each);
        // The device writes its first segment, which ends with the page.
        const std::uint64_t in_page = page - each.range.start().value() % page;
        const std::uint64_t first =
            std::string_view(GetParam()) == "nvme" && !each.operation.ends_with("SGL")
                ? least(in_page, each.about.length.value())
                : each.about.length.value();
        EXPECT_EQ(each.bytes, least(bytes, first)) << text(each);
    }
}

TEST_P(SoftAudit, finds_a_stale_address) {
    inject(Injection::stale);
    const bool is_nvme = std::string_view(GetParam()) == "nvme";
    EXPECT_FALSE(result.all.empty());
    bool found = false;
    for (const Finding& each : result.all) {
        found = found || each.kind == FindingKind::touched_after_completion;
        // It uses again the last address that it read before it was restricted.
        if (each.kind == FindingKind::touched_after_completion) {
            EXPECT_EQ(each.buffer, is_nvme ? "identify" : "data") << text(each);
        }
        EXPECT_EQ(each.bytes, least(each.about.length.value(), stale_bytes())) << text(each);
    }
    EXPECT_TRUE(found);
}

TEST_P(SoftAudit, finds_a_write_to_a_read_only_buffer) {
    inject(Injection::read_only);
    expect_kinds({FindingKind::wrote_outside, FindingKind::success_though_blocked});
    for (const Finding& each : result.all) {
        if (each.kind != FindingKind::wrote_outside)
            continue;
        EXPECT_EQ(each.buffer, "data") << text(each);
        EXPECT_EQ(each.side, fault::Side::inside) << text(each);
        EXPECT_TRUE(each.operation.starts_with("write")) << text(each);
        EXPECT_LE(each.bytes, bytes) << text(each);
        EXPECT_EQ(each.bytes, least(bytes, least(each.about.length.value(),
                                                 std::string_view(GetParam()) == "nvme" &&
                                                         !each.operation.ends_with("SGL")
                                                     ? page - each.range.start().value() % page
                                                     : ~std::uint64_t{0})))
            << text(each);
    }
}

TEST_P(SoftAudit, finds_a_short_transfer) {
    inject(Injection::short_transfer);
    expect_kinds({FindingKind::left_unwritten});
    for (const Finding& each : result.all) {
        EXPECT_EQ(each.buffer, "data") << text(each);
        if (each.operation != "health log") {
            EXPECT_EQ(each.bytes, least(bytes, each.about.length.value())) << text(each);
        }
    }
}

TEST_P(SoftAudit, finds_data_that_was_mixed_up) {
    inject(Injection::wrong_data);
    expect_kinds({FindingKind::wrong_data});
    bool both_ends = false;
    for (const Finding& each : result.all) {
        EXPECT_EQ(each.buffer, "data") << text(each);
        EXPECT_TRUE(each.operation.starts_with("read")) << text(each);
        ASSERT_TRUE(each.contents) << text(each);
        EXPECT_LE(each.first_case, each.contents->expected.case_number) << text(each);
        EXPECT_EQ(each.range.size(), each.about.length) << text(each);
        const std::uint64_t length = each.about.length.value();
        const std::uint64_t swapped = least(bytes, length / 2);
        EXPECT_LE(each.bytes, 2 * swapped + 32) << "each end of an end is a word: " << text(each);
        both_ends = both_ends || each.bytes == 2 * bytes;
        if (each.contents->offset != 0 || !each.contents->origin || length < 2 * bytes)
            continue;
        EXPECT_EQ(each.contents->origin->at, each.contents->expected.at + length - swapped)
            << text(each);
    }
    EXPECT_TRUE(both_ends);
}

TEST_P(SoftAudit, finds_a_short_buffer) {
    inject(Injection::short_buffer);
    for (const FindingKind kind : {FindingKind::wrote_outside, FindingKind::read_outside})
        EXPECT_NE(std::ranges::find(result.all, kind, &Finding::kind), result.all.end())
            << name(kind);
    for (const Finding& each : result.all) {
        EXPECT_EQ(each.buffer, "data") << text(each);
        if (each.kind == FindingKind::wrong_data)
            continue; // a store of too many bytes overwrote other blocks
        EXPECT_EQ(each.side, each.kind == FindingKind::success_though_blocked ? fault::Side::inside
                                                                              : fault::Side::right)
            << text(each);
        if (each.kind == FindingKind::success_though_blocked)
            continue;
        const bool in_blocks =
            each.operation.starts_with("read") || each.operation.starts_with("write");
        const std::uint64_t told =
            std::string_view(GetParam()) == "nvme" && in_blocks ? 512 : bytes;
        const std::uint64_t seen =
            each.kind == FindingKind::wrote_outside ? told : told - unseen(each);
        EXPECT_EQ(each.bytes, seen) << text(each);
    }
}

TEST_P(SoftAudit, finds_a_missing_invalidation) {
    // Edu's first cases let the device read; from the tenth on it writes.
    const bool is_edu = std::string_view(GetParam()) == "edu";
    result = run(GetParam(), {Injection::no_invalidate, bytes}, is_edu ? 9 : 0, 18);
    bool without_fault = false;
    for (const Finding& each : result.all) {
        const std::uint64_t length = each.about.length.value();
        if (each.kind == FindingKind::touched_after_completion) {
            without_fault = without_fault || !each.record;
            EXPECT_EQ(each.bytes, least(length, stale_bytes())) << text(each);
        } else {
            // The data went elsewhere.
            EXPECT_EQ(each.kind, FindingKind::left_unwritten) << text(each);
            EXPECT_EQ(each.buffer, "data") << text(each);
            EXPECT_EQ(each.bytes, each.operation == "health log" ? least(length, 512) : length)
                << text(each);
        }
    }
    EXPECT_TRUE(without_fault);
}

TEST_P(SoftAudit, what_is_found_is_found_again_alone) {
    for (const Injection what : {Injection::overrun, Injection::underrun, Injection::late,
                                 Injection::stale, Injection::read_only, Injection::short_transfer,
                                 Injection::short_buffer, Injection::wrong_data}) {
        const audit::Wrong wrong{what, bytes};
        const Outcome whole = run(GetParam(), wrong, 0, some);
        EXPECT_FALSE(whole.report.findings.empty()) << name(what);
        for (const Finding& each : whole.report.findings) {
            const Outcome alone = run(GetParam(), wrong, each.first_case, each.about.number + 1);
            const auto same = [&](const Finding& other) {
                return other.kind == each.kind && other.operation == each.operation &&
                       other.about.number == each.about.number && other.bytes == each.bytes &&
                       other.buffer == each.buffer && other.side == each.side;
            };
            EXPECT_TRUE(std::ranges::any_of(alone.all, same)) << name(what) << ", " << text(each);
        }
    }
}

TEST_P(SoftAudit, same_seed_same_run) {
    const auto whole = [&](std::uint64_t seed) {
        const Outcome made = run(GetParam(), {Injection::overrun, bytes}, 0, some, seed);
        std::string all;
        for (const Finding& each : made.all)
            all += text(each);
        return all + std::to_string(made.report.tally.bytes);
    };
    EXPECT_EQ(whole(3), whole(3));
    EXPECT_NE(whole(3), whole(4));
}

INSTANTIATE_TEST_SUITE_P(Devices, SoftAudit, testing::Values("nvme", "edu"),
                         [](const auto& each) { return std::string(each.param); });

TEST(Plan, has_every_boundary_at_each_placement_first) {
    const std::vector<audit::Operation> operations = {
        {.name = "read",
         .direction = audit::Direction::from_device,
         .granule = ByteCount(512),
         .longest = ByteCount(4 * page)},
        {.name = "flush", .direction = audit::Direction::to_device}};
    const audit::Plan plan(operations, audit::Placements::both, 1);
    std::set<std::pair<std::uint64_t, Placement>> lengths;
    for (std::uint64_t number = 0; number != plan.systematic(); ++number) {
        const audit::Case made = plan.at(number);
        if (made.operation == 0)
            lengths.emplace(made.length.value(), made.placement);
    }
    for (const std::uint64_t length : {512UL, 1024UL, 3584UL, 4096UL, 4608UL, 7680UL, 8192UL,
                                       8704UL, 11776UL, 12288UL, 12800UL, 16384UL})
        for (const Placement placement : {Placement::left, Placement::right})
            EXPECT_TRUE(lengths.contains({length, placement})) << length;
    for (std::uint64_t number = 0; number != 10'000; ++number) {
        const audit::Case made = plan.at(number);
        ASSERT_LE(made.length, operations[made.operation].longest) << number;
        ASSERT_EQ(made.length.value() % operations[made.operation].granule.value(), 0U) << number;
    }
}

} // namespace
} // namespace moat::tests
