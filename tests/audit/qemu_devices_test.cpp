// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The table "Injections on QEMU's devices" of docs/design/audit.md: each row audits the cases that
// show it.
#include "qemu_audit.hpp"

#include <ostream>
#include <set>

namespace moat::tests {
namespace {

using audit::Finding;
using audit::FindingKind;
using audit::Injection;

struct Row {
    std::string_view device;
    Injection injection;
    std::string_view operation;
    FindingKind kind;
    std::uint64_t first; ///< of the cases
    std::uint64_t end;
    bool succeeds = true; ///< the device reports success
};

void PrintTo(const Row& row, std::ostream* out) {
    *out << row.device << ", " << name(row.injection);
}

class InjectedErrors : public QemuAudit, public ::testing::WithParamInterface<Row> {};

TEST_P(InjectedErrors, are_found) {
    const Row& row = GetParam();
    const auto report = run(row.device, row.injection, row.end, row.first);
    if (!report)
        return;
    const auto found = std::ranges::find_if(report->findings, [&](const Finding& each) {
        return each.kind == row.kind && each.operation == row.operation;
    });
    ASSERT_NE(found, report->findings.end());
    EXPECT_EQ(found->buffer, "data");
    EXPECT_EQ(found->answer.verdict == audit::Verdict::success, row.succeeds);
}

// A round of xhci has 43 cases, and the second places buffers at the guard behind them.
constexpr std::array rows = {
    Row{"xhci", Injection::overrun, "read", FindingKind::wrote_outside, 43, 44},
    Row{"xhci", Injection::overrun, "read", FindingKind::success_though_blocked, 43, 44},
    Row{"xhci", Injection::underrun, "read", FindingKind::wrote_outside, 0, 1},
    Row{"xhci", Injection::late, "read", FindingKind::touched_after_completion, 0, 1},
    Row{"xhci", Injection::stale, "read", FindingKind::touched_after_completion, 0, 2},
    Row{"xhci", Injection::read_only, "write", FindingKind::wrote_outside, 12, 13},
    Row{"xhci", Injection::short_transfer, "read", FindingKind::left_unwritten, 1, 2},
    Row{"xhci", Injection::short_buffer, "read", FindingKind::wrote_outside, 43, 44},
    Row{"xhci", Injection::no_invalidate, "read", FindingKind::touched_after_completion, 0, 2},
    // A round has 25 cases.
    Row{"virtio-scsi", Injection::overrun, "read", FindingKind::wrote_outside, 25, 26, false},
    Row{"virtio-scsi", Injection::underrun, "read", FindingKind::wrote_outside, 0, 1, false},
    Row{"virtio-scsi", Injection::late, "read", FindingKind::touched_after_completion, 0, 1, false},
    Row{"virtio-scsi", Injection::stale, "read", FindingKind::touched_after_completion, 0, 2,
        false},
    Row{"virtio-scsi", Injection::read_only, "write", FindingKind::wrote_outside, 12, 13, false},
    Row{"virtio-scsi", Injection::short_transfer, "read", FindingKind::left_unwritten, 1, 2},
    Row{"virtio-scsi", Injection::short_buffer, "read", FindingKind::wrote_outside, 25, 26, false},
    Row{"virtio-scsi", Injection::no_invalidate, "read", FindingKind::touched_after_completion, 0,
        2},
    Row{"pvscsi", Injection::overrun, "read", FindingKind::wrote_outside, 37, 38},
    Row{"pvscsi", Injection::overrun, "read", FindingKind::success_though_blocked, 37, 38},
    Row{"pvscsi", Injection::underrun, "read", FindingKind::wrote_outside, 0, 1},
    Row{"pvscsi", Injection::late, "read", FindingKind::touched_after_completion, 0, 1},
    Row{"pvscsi", Injection::stale, "read", FindingKind::touched_after_completion, 0, 2},
    Row{"pvscsi", Injection::read_only, "write", FindingKind::wrote_outside, 12, 13},
    Row{"pvscsi", Injection::short_transfer, "read", FindingKind::left_unwritten, 1, 2},
    Row{"pvscsi", Injection::short_buffer, "read", FindingKind::wrote_outside, 37, 38},
    Row{"pvscsi", Injection::no_invalidate, "read", FindingKind::touched_after_completion, 0, 2},
    // A round has 25 cases, and the controller reports what was blocked.
    Row{"sdhci", Injection::overrun, "read", FindingKind::wrote_outside, 25, 26, false},
    Row{"sdhci", Injection::underrun, "read", FindingKind::wrote_outside, 0, 1, false},
    Row{"sdhci", Injection::late, "read", FindingKind::touched_after_completion, 0, 1, false},
    Row{"sdhci", Injection::stale, "read", FindingKind::touched_after_completion, 0, 2, false},
    Row{"sdhci", Injection::read_only, "write", FindingKind::wrote_outside, 12, 13, false},
    Row{"sdhci", Injection::short_transfer, "read", FindingKind::left_unwritten, 1, 2},
    Row{"sdhci", Injection::short_buffer, "read", FindingKind::wrote_outside, 25, 26, false},
    Row{"sdhci", Injection::no_invalidate, "read", FindingKind::touched_after_completion, 0, 2},
    Row{"virtio-blk-packed", Injection::overrun, "read", FindingKind::wrote_outside, 0, 1},
    Row{"virtio-blk-packed", Injection::stale, "read", FindingKind::touched_after_completion, 0, 2},
    Row{"virtio-blk-packed", Injection::short_transfer, "read", FindingKind::left_unwritten, 1, 2},
    Row{"virtio-scsi-packed", Injection::short_transfer, "read", FindingKind::left_unwritten, 1, 2},
    Row{"virtio-scsi-packed", Injection::no_invalidate, "read",
        FindingKind::touched_after_completion, 0, 2},
    // A round has 16 cases, 8 of each operation.
    Row{"virtio-net", Injection::overrun, "receive", FindingKind::wrote_outside, 8, 9},
    Row{"virtio-net", Injection::overrun, "transmit", FindingKind::read_outside, 16, 17},
    Row{"virtio-net", Injection::underrun, "receive", FindingKind::wrote_outside, 25, 26},
    Row{"virtio-net", Injection::late, "receive", FindingKind::touched_after_completion, 8, 9},
    Row{"virtio-net", Injection::stale, "receive", FindingKind::touched_after_completion, 8, 10},
    Row{"virtio-net", Injection::read_only, "transmit", FindingKind::wrote_outside, 0, 1},
    Row{"virtio-net", Injection::short_transfer, "receive", FindingKind::left_unwritten, 12, 13},
    Row{"virtio-net", Injection::short_buffer, "receive", FindingKind::wrote_outside, 8, 9},
    Row{"virtio-net", Injection::no_invalidate, "receive", FindingKind::touched_after_completion, 8,
        10},
    Row{"virtio-net", Injection::wrong_data, "receive", FindingKind::wrong_data, 0, 16},
    Row{"virtio-net-packed", Injection::overrun, "receive", FindingKind::wrote_outside, 8, 9},
    Row{"virtio-net-packed", Injection::overrun, "transmit", FindingKind::read_outside, 16, 17},
    Row{"virtio-net-packed", Injection::underrun, "receive", FindingKind::wrote_outside, 25, 26},
    Row{"virtio-net-packed", Injection::late, "receive", FindingKind::touched_after_completion, 8,
        9},
    Row{"virtio-net-packed", Injection::stale, "receive", FindingKind::touched_after_completion, 8,
        10},
    Row{"virtio-net-packed", Injection::read_only, "transmit", FindingKind::wrote_outside, 0, 1},
    Row{"virtio-net-packed", Injection::short_transfer, "receive", FindingKind::left_unwritten, 12,
        13},
    Row{"virtio-net-packed", Injection::short_buffer, "receive", FindingKind::wrote_outside, 8, 9},
    Row{"virtio-net-packed", Injection::no_invalidate, "receive",
        FindingKind::touched_after_completion, 8, 10},
    Row{"virtio-net-packed", Injection::wrong_data, "receive", FindingKind::wrong_data, 0, 16},
    // A round has 19 cases.
    Row{"hda", Injection::overrun, "capture", FindingKind::wrote_outside, 19, 20},
    Row{"hda", Injection::overrun, "capture", FindingKind::success_though_blocked, 19, 20},
    Row{"hda", Injection::overrun, "playback", FindingKind::read_outside, 28, 29},
    Row{"hda", Injection::underrun, "capture", FindingKind::wrote_outside, 0, 1},
    Row{"hda", Injection::late, "capture", FindingKind::touched_after_completion, 0, 1},
    Row{"hda", Injection::late, "playback", FindingKind::touched_after_completion, 9, 10},
    Row{"hda", Injection::stale, "capture", FindingKind::touched_after_completion, 0, 2},
    Row{"hda", Injection::read_only, "playback", FindingKind::wrote_outside, 9, 10},
    Row{"hda", Injection::short_transfer, "capture", FindingKind::left_unwritten, 1, 2},
    Row{"hda", Injection::short_buffer, "capture", FindingKind::wrote_outside, 19, 20},
    Row{"hda", Injection::no_invalidate, "capture", FindingKind::touched_after_completion, 0, 2},
};

INSTANTIATE_TEST_SUITE_P(Qemu, InjectedErrors, ::testing::ValuesIn(rows));

/// Of a round's first 36 cases, the last 12 read by a list.
class BypassingDevices : public QemuAudit {};

TEST_F(BypassingDevices, take_canaries_for_addresses) {
    const auto report = run("pvscsi", Injection::none, 36);
    if (!report)
        return;
    EXPECT_EQ(report->tally.cases, 36U);
    ASSERT_EQ(report->findings.size(), 1U);
    EXPECT_EQ(report->findings[0].kind, FindingKind::bypasses_iommu);
    EXPECT_EQ(report->findings[0].operation, "read by a list");
    EXPECT_EQ(report->findings[0].buffer, "scatter list");
    EXPECT_EQ(report->findings[0].times, 12U);
    EXPECT_TRUE(report->findings[0].answer.verdict == audit::Verdict::success);
}

class GoodDevices : public QemuAudit, public ::testing::WithParamInterface<std::string_view> {};

TEST_P(GoodDevices, stay_inside) {
    expect_nothing(GetParam(), 2000);
}

INSTANTIATE_TEST_SUITE_P(Qemu, GoodDevices,
                         ::testing::Values("xhci", "virtio-scsi", "sdhci", "virtio-scsi-packed",
                                           "virtio-blk-packed", "virtio-blk-ats", "virtio-net",
                                           "virtio-net-packed"));

class SlowDevices : public QemuAudit {};

/// Each boundary of a length, at both ends of its pages.
TEST_F(SlowDevices, stay_inside) {
    expect_nothing("hda");
}

} // namespace
} // namespace moat::tests
