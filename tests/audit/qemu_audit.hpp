// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The audit of a device of QEMU's, by its name.
#pragma once

#include "moat/core/text.hpp"

#include "audit/audit.hpp"
#include "audit/subject.hpp"
#include "machine/qemu/qemu_machine.hpp"

#include <algorithm>
#include <gtest/gtest.h>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace moat::tests {

class QemuAudit : public ::testing::Test {
  protected:
    /// A machine with one device, or nothing if QEMU is not installed.
    [[nodiscard]] std::unique_ptr<audit::Subject> start(std::string_view device,
                                                        audit::Injection what) {
        const auto kind = std::ranges::find_if(audit::kinds(), [&](const auto& each) {
            return each.machine == "qemu" && each.name == device;
        });
        std::string words;
        audit::Kind chosen = *kind;
        chosen.iommu = iommu;
        auto subject = audit::Subject::start(chosen, {.what = what}, &words);
        if (!subject && subject.error().code() == ErrorCode::not_found) {
            skipped = true;
            return nullptr;
        }
        EXPECT_TRUE(subject) << subject.error() << '\n' << words;
        return subject ? std::move(*subject) : nullptr;
    }

    /// The audit of a device, or nothing if QEMU is not installed.
    [[nodiscard]] std::optional<audit::DeviceReport>
    run(std::string_view device, audit::Injection what = audit::Injection::none,
        std::optional<std::uint64_t> end = {}, std::uint64_t first = 0) {
        const auto subject = start(device, what);
        if (!subject)
            return std::nullopt;
        auto report = run_on(*subject, end, first);
        EXPECT_TRUE(report) << report.error();
        return report ? std::optional(std::move(*report)) : std::nullopt;
    }

    [[nodiscard]] Result<audit::DeviceReport> run_on(audit::Subject& subject,
                                                     std::optional<std::uint64_t> end = {},
                                                     std::uint64_t first = 0) const {
        audit::AuditOptions options = subject.options();
        options.first_case = first;
        options.end_case = end;
        if (ends_when_found) {
            options.goes_on = [](const audit::Tally& tally) { return tally.findings == 0; };
        }
        return audit::audit_function(subject.machine(), subject.address(), options);
    }

    static bool has(const audit::DeviceReport& report, audit::FindingKind kind,
                    std::string_view operation) {
        return std::ranges::any_of(report.findings, [&](const audit::Finding& each) {
            return each.kind == kind && each.operation == operation;
        });
    }

    void expect_nothing(std::string_view device, std::optional<std::uint64_t> cases = {}) {
        SCOPED_TRACE(device);
        ends_when_found = true; // each operation of a device that hangs takes seconds
        const auto report = run(device, audit::Injection::none, cases);
        if (!report)
            return;
        EXPECT_GT(report->tally.cases, 0U);
        EXPECT_EQ(report->tally.refused, 0U);
        for (const audit::Finding& each : report->findings)
            ADD_FAILURE() << name(each.kind) << " in " << each.operation << ", case "
                          << each.about.number << ":\n"
                          << each.report;
    }

    void TearDown() override {
        if (skipped)
            GTEST_SKIP() << "SKIPPED: " << machine::qemu::board_of(iommu).program
                         << " is not installed";
    }

    machine::qemu::IommuModel iommu = machine::qemu::IommuModel::intel;
    bool skipped = false;
    bool ends_when_found = false;
};

} // namespace moat::tests
