// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Data sheets equal what was injected: how far a device accesses memory, and how late.
#include "moat/core/text.hpp"

#include "audit/sheet.hpp"
#include "audit/subject.hpp"

#include <algorithm>
#include <gtest/gtest.h>
#include <string>
#include <tuple>

namespace moat::tests {
namespace {

using namespace std::chrono_literals;
using audit::Cell;
using audit::Injection;
using audit::Measure;
using audit::Sheet;

/// Nothing if QEMU is not installed.
std::optional<Sheet> sheet_of(std::string_view machine, std::string_view device,
                              const audit::Wrong& wrong = {}, bool records_faults = true) {
    const auto kind = std::ranges::find_if(audit::kinds(), [&](const audit::Kind& each) {
        return each.machine == machine && each.name == device;
    });
    const auto subject = audit::Subject::start(*kind, wrong);
    if (!subject && subject.error().code() == ErrorCode::not_found)
        return std::nullopt;
    EXPECT_TRUE(subject) << subject.error();
    audit::AuditOptions options = (*subject)->options();
    options.records_faults = options.records_faults && records_faults;
    auto sheet = audit::measure((*subject)->machine(), (*subject)->address(), options);
    EXPECT_TRUE(sheet) << sheet.error();
    return sheet ? std::optional(std::move(*sheet)) : std::nullopt;
}

Cell cell_of(const Sheet& sheet, std::string_view operation, std::string_view buffer,
             Measure what) {
    for (const audit::Row& row : sheet.rows)
        if (row.operation == operation && row.buffer == buffer)
            for (const Cell& each : row.cells)
                if (each.what == what)
                    return each;
    ADD_FAILURE() << operation << " has no cell " << name(what) << " of " << buffer;
    return {};
}

void expect_exactly(const Cell& cell, std::uint64_t value) {
    EXPECT_EQ(cell.value, value) << name(cell.what);
    EXPECT_EQ(cell.resolution, 0U) << name(cell.what);
    EXPECT_EQ(cell.cannot_see, "") << name(cell.what);
}

constexpr std::array reaches = {Measure::read_before, Measure::read_after, Measure::write_before,
                                Measure::write_after, Measure::rest_of_page};

class SheetOfSoft : public testing::TestWithParam<std::tuple<const char*, std::uint64_t>> {
  protected:
    [[nodiscard]] static Sheet measured(Injection what) {
        const auto& [device, bytes] = GetParam();
        return *sheet_of("soft", device, {.what = what, .bytes = bytes});
    }

    static std::uint64_t bytes() { return std::get<1>(GetParam()); }
};

TEST_P(SheetOfSoft, shows_how_far_a_device_overruns) {
    const Sheet sheet = measured(Injection::overrun);
    expect_exactly(cell_of(sheet, "read", "data", Measure::write_after), bytes());
    expect_exactly(cell_of(sheet, "read", "data", Measure::write_before), 0);
    expect_exactly(cell_of(sheet, "read", "data", Measure::read_after), 0);
    expect_exactly(cell_of(sheet, "write", "data", Measure::read_after), bytes());
    expect_exactly(cell_of(sheet, "write", "data", Measure::read_before), 0);
    expect_exactly(cell_of(sheet, "write", "data", Measure::write_after), 0);
}

TEST_P(SheetOfSoft, shows_how_far_a_device_underruns) {
    const Sheet sheet = measured(Injection::underrun);
    expect_exactly(cell_of(sheet, "read", "data", Measure::write_before), bytes());
    expect_exactly(cell_of(sheet, "read", "data", Measure::write_after), 0);
    expect_exactly(cell_of(sheet, "write", "data", Measure::read_before), bytes());
    expect_exactly(cell_of(sheet, "write", "data", Measure::read_after), 0);
}

INSTANTIATE_TEST_SUITE_P(Bytes, SheetOfSoft,
                         testing::Combine(testing::Values("nvme", "edu"),
                                          testing::Values(1, 48, 5000, 28 << 10)),
                         [](const auto& each) {
                             return std::string(std::get<0>(each.param)) + "_" +
                                    std::to_string(std::get<1>(each.param));
                         });

/// The deletion itself takes a part of the time.
void expect_late_after_deletion(const Cell& cell, std::uint64_t microseconds) {
    constexpr std::uint64_t deletion = 10;
    ASSERT_TRUE(cell.value) << cell.cannot_see;
    EXPECT_LE(*cell.value, microseconds);
    EXPECT_GE(*cell.value + cell.resolution + deletion, microseconds);
    EXPECT_LE(cell.resolution, 2U);
}

class SheetOfLate : public testing::TestWithParam<std::tuple<const char*, int>> {};

TEST_P(SheetOfLate, shows_how_late_a_device_writes) {
    const auto& [device, microseconds] = GetParam();
    const Sheet sheet =
        *sheet_of("soft", device,
                  {.what = Injection::late, .delay = std::chrono::microseconds(microseconds)});
    for (const std::string_view operation : {"read", "write"}) {
        const Cell late = cell_of(sheet, operation, "data", Measure::late);
        ASSERT_TRUE(late.value) << late.cannot_see;
        // The injected time begins before the completion, which costs a step.
        EXPECT_LE(*late.value, static_cast<std::uint64_t>(microseconds)) << operation;
        EXPECT_GE(*late.value + late.resolution + 1, static_cast<std::uint64_t>(microseconds))
            << operation;
        EXPECT_LE(late.resolution, 2U) << operation;
        for (const Measure stopped :
             {Measure::late_after_stop, Measure::late_after_master, Measure::late_after_reset})
            EXPECT_EQ(cell_of(sheet, operation, "data", stopped).value, 0U) << name(stopped);
        const Cell deleted = cell_of(sheet, operation, "data", Measure::late_after_deletion);
        if (std::string_view(device) == "nvme")
            expect_late_after_deletion(deleted, static_cast<std::uint64_t>(microseconds));
        else
            EXPECT_EQ(deleted.cannot_see, "the driver deletes no queue");
    }
}

INSTANTIATE_TEST_SUITE_P(Times, SheetOfLate,
                         testing::Combine(testing::Values("nvme", "edu"),
                                          testing::Values(3, 50, 777, 4000)),
                         [](const auto& each) {
                             return std::string(std::get<0>(each.param)) + "_" +
                                    std::to_string(std::get<1>(each.param));
                         });

TEST(Sheet, of_a_device_that_behaves_is_zero) {
    for (const std::string_view device : {"nvme", "edu"}) {
        const Sheet sheet = *sheet_of("soft", device);
        EXPECT_FALSE(sheet.rows.empty());
        for (const audit::Row& row : sheet.rows) {
            SCOPED_TRACE(row.operation + ", " + row.buffer);
            for (const Measure what : reaches)
                EXPECT_EQ(cell_of(sheet, row.operation, row.buffer, what).value, 0U) << name(what);
            if (row.buffer == "data") {
                EXPECT_EQ(cell_of(sheet, row.operation, "data", Measure::late).value, 0U);
                EXPECT_LE(cell_of(sheet, row.operation, "data", Measure::late).resolution, 1U);
            }
        }
    }
}

TEST(Sheet, tells_what_a_device_reports_if_it_is_blocked) {
    const Sheet nvme = *sheet_of("soft", "nvme");
    EXPECT_EQ(cell_of(nvme, "read", "data", Measure::says_if_blocked).word, "failure");
    EXPECT_EQ(cell_of(nvme, "read", "data", Measure::recovery).word, "next-works");
    EXPECT_EQ(cell_of(nvme, "read", "data", Measure::order).word, "data-first");
    EXPECT_EQ(cell_of(nvme, "read", "data", Measure::granularity).value, 1U);
    EXPECT_NE(cell_of(nvme, "write", "data", Measure::granularity).cannot_see, "");
    const Sheet edu = *sheet_of("soft", "edu");
    EXPECT_EQ(cell_of(edu, "write", "data", Measure::says_if_blocked).word, "success");
}

/// docs/design/audit.md has these as a table.
TEST(Sheet, of_qemu_s_nvme_has_its_known_cells) {
    const auto sheet = sheet_of("qemu", "nvme");
    if (!sheet)
        GTEST_SKIP() << "SKIPPED: qemu-system-x86_64 is not installed";
    for (const audit::Row& row : sheet->rows) {
        SCOPED_TRACE(row.operation + ", " + row.buffer);
        for (const Measure what : reaches)
            EXPECT_EQ(cell_of(*sheet, row.operation, row.buffer, what).value, 0U) << name(what);
    }
    EXPECT_EQ(cell_of(*sheet, "read", "data", Measure::read_after).resolution, 0U);
    EXPECT_EQ(cell_of(*sheet, "any", "completion queue", Measure::read_after).resolution, 3840U)
        << "it begins at a page, and ends far from one";
    for (const std::string_view operation : {"read", "write"}) {
        SCOPED_TRACE(operation);
        EXPECT_EQ(cell_of(*sheet, operation, "data", Measure::says_if_blocked).word, "success");
        EXPECT_EQ(cell_of(*sheet, operation, "data", Measure::recovery).word, "next-works");
        for (const Measure late : {Measure::late, Measure::late_after_deletion,
                                   Measure::late_after_stop, Measure::late_after_master})
            EXPECT_EQ(cell_of(*sheet, operation, "data", late).value, 0U) << name(late);
    }
    EXPECT_EQ(cell_of(*sheet, "read", "data", Measure::order).word, "data-first");
}

/// Canaries show writes; reads, late accesses and what is blocked are unknown, and not 0.
TEST(Sheet, behind_an_iommu_without_records_says_what_it_cannot_see) {
    const Sheet sheet =
        *sheet_of("soft", "nvme", {.what = Injection::overrun, .bytes = 1024}, false);
    EXPECT_EQ(cell_of(sheet, "read", "data", Measure::write_after).value, 1024U);
    EXPECT_EQ(cell_of(sheet, "read", "data", Measure::order).word, "data-first");
    constexpr std::array by_canaries = {Measure::write_before, Measure::write_after,
                                        Measure::rest_of_page, Measure::granularity,
                                        Measure::order};
    for (const audit::Row& row : sheet.rows)
        for (const Cell& each : row.cells) {
            SCOPED_TRACE(row.operation + ", " + row.buffer + ", " + std::string(name(each.what)));
            const bool is_seen = each.value.has_value() || !each.word.empty();
            EXPECT_TRUE(!is_seen || std::ranges::find(by_canaries, each.what) != by_canaries.end());
            EXPECT_TRUE(is_seen || !each.cannot_see.empty());
        }
    EXPECT_EQ(cell_of(sheet, "write", "data", Measure::read_after).cannot_see,
              "the IOMMU does not record what it blocks");
}

TEST(Sheet, of_qemu_s_nvme_shows_a_driver_that_passes_more) {
    const auto sheet = sheet_of("qemu", "nvme", {.what = Injection::overrun, .bytes = 1024});
    if (!sheet)
        GTEST_SKIP() << "SKIPPED: qemu-system-x86_64 is not installed";
    expect_exactly(cell_of(*sheet, "read", "data", Measure::write_after), 1024);
    const Cell read = cell_of(*sheet, "write", "data", Measure::read_after);
    EXPECT_LE(*read.value, 1024U);
    EXPECT_GE(*read.value + read.resolution, 1024U);
    EXPECT_LE(read.resolution, 3U) << "the alignment of data";
}

} // namespace
} // namespace moat::tests
