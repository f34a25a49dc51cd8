// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The table "Injections on QEMU's devices" of docs/design/audit.md: each row audits the cases that
// show it, behind each of QEMU's IOMMUs, with what that IOMMU lets an audit see.
#include "qemu_audit.hpp"

#include <array>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <ostream>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

namespace moat::tests {
namespace {

using audit::Finding;
using audit::FindingKind;
using audit::Injection;
using audit::Known;
using machine::qemu::IommuModel;

/// Where a row runs, unless every one does: some take seconds.
enum class Runs : std::uint8_t { behind_each, behind_vtd, in_full };

struct Row {
    std::string_view device = {};
    Injection injection;
    std::string_view operation = {};
    FindingKind kind = FindingKind::hang;
    std::uint64_t first; ///< of the cases
    std::uint64_t end;
    bool succeeds = true; ///< the device reports success, although it was blocked
    Runs runs = Runs::behind_each;
};

constexpr std::array rows = {
    // A round has 63 cases; the second places buffers at the guard behind them.
    Row{"nvme", Injection::overrun, "read", FindingKind::wrote_outside, 75, 76},
    Row{"nvme", Injection::overrun, "read", FindingKind::success_though_blocked, 75, 76},
    Row{"nvme", Injection::overrun, "write", FindingKind::read_outside, 88, 89},
    Row{"nvme", Injection::underrun, "read", FindingKind::wrote_outside, 11, 12},
    Row{"nvme", Injection::late, "read", FindingKind::touched_after_completion, 11, 12},
    Row{"nvme", Injection::stale, "read", FindingKind::touched_after_completion, 11, 13},
    Row{"nvme", Injection::read_only, "write", FindingKind::wrote_outside, 24, 25},
    Row{"nvme", Injection::short_transfer, "read", FindingKind::left_unwritten, 12, 13},
    Row{"nvme", Injection::short_buffer, "read", FindingKind::wrote_outside, 75, 76},
    Row{"nvme", Injection::no_invalidate, "read", FindingKind::touched_after_completion, 11, 13},
    Row{"nvme", Injection::wrong_data, "read", FindingKind::wrong_data, 24, 85},
    // 28 cases.
    Row{"virtio-blk", Injection::overrun, "read", FindingKind::wrote_outside, 28, 29},
    Row{"virtio-blk", Injection::overrun, "read", FindingKind::success_though_blocked, 28, 29},
    Row{"virtio-blk", Injection::overrun, "write", FindingKind::read_outside, 41, 42},
    Row{"virtio-blk", Injection::underrun, "read", FindingKind::wrote_outside, 0, 1},
    Row{"virtio-blk", Injection::late, "read", FindingKind::touched_after_completion, 0, 1},
    Row{"virtio-blk", Injection::stale, "read", FindingKind::touched_after_completion, 0, 2},
    Row{"virtio-blk", Injection::read_only, "write", FindingKind::wrote_outside, 13, 14},
    Row{"virtio-blk", Injection::short_transfer, "read", FindingKind::left_unwritten, 1, 2},
    Row{"virtio-blk", Injection::short_buffer, "read", FindingKind::wrote_outside, 28, 29},
    Row{"virtio-blk", Injection::no_invalidate, "read", FindingKind::touched_after_completion, 0,
        2},
    Row{"virtio-blk", Injection::wrong_data, "read", FindingKind::wrong_data, 13, 38},
    // 32 cases.
    Row{"ahci", Injection::overrun, "read", FindingKind::wrote_outside, 32, 33},
    Row{"ahci", Injection::overrun, "read", FindingKind::success_though_blocked, 32, 33},
    Row{"ahci", Injection::overrun, "write", FindingKind::read_outside, 47, 48},
    Row{"ahci", Injection::underrun, "read", FindingKind::wrote_outside, 0, 1},
    Row{"ahci", Injection::late, "read", FindingKind::touched_after_completion, 0, 1},
    Row{"ahci", Injection::stale, "read", FindingKind::touched_after_completion, 0, 2},
    Row{"ahci", Injection::read_only, "write", FindingKind::wrote_outside, 15, 16},
    Row{"ahci", Injection::short_transfer, "read", FindingKind::left_unwritten, 1, 2},
    Row{"ahci", Injection::short_buffer, "read", FindingKind::wrote_outside, 32, 33},
    Row{"ahci", Injection::no_invalidate, "read", FindingKind::touched_after_completion, 0, 2},
    Row{"ahci", Injection::wrong_data, "read", FindingKind::wrong_data, 15, 42},
    // A round has 16 cases, 8 of each operation.
    Row{"e1000e", Injection::overrun, "receive", FindingKind::wrote_outside, 16, 17},
    Row{"e1000e", Injection::underrun, "receive", FindingKind::wrote_outside, 0, 1},
    Row{"e1000e", Injection::underrun, "transmit", FindingKind::read_outside, 8, 9},
    Row{"e1000e", Injection::late, "receive", FindingKind::touched_after_completion, 0, 1},
    Row{"e1000e", Injection::stale, "receive", FindingKind::touched_after_completion, 0, 2},
    Row{"e1000e", Injection::read_only, "transmit", FindingKind::wrote_outside, 8, 9},
    Row{"e1000e", Injection::short_transfer, "receive", FindingKind::left_unwritten, 4, 5},
    Row{"e1000e", Injection::short_buffer, "receive", FindingKind::wrote_outside, 16, 17},
    Row{"e1000e", Injection::no_invalidate, "receive", FindingKind::touched_after_completion, 0, 2},
    // A round has 18 cases, which take 100 ms each.
    Row{"edu", Injection::overrun, "write", FindingKind::read_outside, 18, 19},
    Row{"edu", Injection::overrun, "read", FindingKind::wrote_outside, 27, 28},
    Row{"edu", Injection::late, "read", FindingKind::touched_after_completion, 12, 13},
    Row{"edu", Injection::short_transfer, "read", FindingKind::left_unwritten, 13, 14},
    Row{"edu", Injection::no_invalidate, "read", FindingKind::touched_after_completion, 9, 11},
    // A round has 43 cases.
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
    Row{"virtio-scsi", Injection::overrun, "read", FindingKind::wrote_outside, 25, 26, false,
        Runs::behind_vtd},
    Row{"virtio-scsi", Injection::underrun, "read", FindingKind::wrote_outside, 0, 1, false,
        Runs::in_full},
    Row{"virtio-scsi", Injection::late, "read", FindingKind::touched_after_completion, 0, 1, false,
        Runs::in_full},
    Row{"virtio-scsi", Injection::stale, "read", FindingKind::touched_after_completion, 0, 2, false,
        Runs::in_full},
    Row{"virtio-scsi", Injection::read_only, "write", FindingKind::wrote_outside, 12, 13, false,
        Runs::in_full},
    Row{"virtio-scsi", Injection::short_transfer, "read", FindingKind::left_unwritten, 1, 2},
    Row{"virtio-scsi", Injection::short_buffer, "read", FindingKind::wrote_outside, 25, 26, false,
        Runs::in_full},
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
    Row{"virtio-scsi-packed", Injection::short_transfer, "read", FindingKind::left_unwritten, 1, 2},
    Row{"virtio-scsi-packed", Injection::no_invalidate, "read",
        FindingKind::touched_after_completion, 0, 2},
    // A round has 16 cases, 8 of each operation.
    Row{"virtio-net", Injection::overrun, "receive", FindingKind::wrote_outside, 24, 25},
    Row{"virtio-net", Injection::overrun, "transmit", FindingKind::read_outside, 16, 17},
    Row{"virtio-net", Injection::underrun, "receive", FindingKind::wrote_outside, 8, 10},
    Row{"virtio-net", Injection::late, "receive", FindingKind::touched_after_completion, 8, 9},
    Row{"virtio-net", Injection::stale, "receive", FindingKind::touched_after_completion, 8, 10},
    Row{"virtio-net", Injection::read_only, "transmit", FindingKind::wrote_outside, 0, 1},
    Row{"virtio-net", Injection::short_transfer, "receive", FindingKind::left_unwritten, 12, 13},
    Row{"virtio-net", Injection::short_buffer, "receive", FindingKind::wrote_outside, 24, 25},
    Row{"virtio-net", Injection::no_invalidate, "receive", FindingKind::touched_after_completion, 8,
        10},
    Row{"virtio-net", Injection::wrong_data, "receive", FindingKind::wrong_data, 0, 16},
    // A round has 30 cases, 15 of each operation.
    Row{"vmxnet3", Injection::overrun, "receive", FindingKind::wrote_outside, 45, 46},
    Row{"vmxnet3", Injection::overrun, "receive", FindingKind::success_though_blocked, 45, 46},
    Row{"vmxnet3", Injection::underrun, "receive", FindingKind::wrote_outside, 15, 17},
    Row{"vmxnet3", Injection::underrun, "transmit", FindingKind::read_outside, 0, 2},
    Row{"vmxnet3", Injection::late, "receive", FindingKind::touched_after_completion, 18, 19},
    Row{"vmxnet3", Injection::stale, "receive", FindingKind::touched_after_completion, 15, 17},
    Row{"vmxnet3", Injection::read_only, "transmit", FindingKind::wrote_outside, 0, 1},
    Row{"vmxnet3", Injection::short_transfer, "receive", FindingKind::left_unwritten, 19, 20},
    Row{"vmxnet3", Injection::short_buffer, "receive", FindingKind::wrote_outside, 45, 46},
    Row{"vmxnet3", Injection::no_invalidate, "receive", FindingKind::touched_after_completion, 15,
        17},
    Row{"vmxnet3", Injection::wrong_data, "receive", FindingKind::wrong_data, 0, 16},
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

/// What shows an injected error. `contents`: the data itself, whatever the IOMMU records.
enum class Evidence : std::uint8_t { nothing, record, canaries, contents };

/// What is seen behind an IOMMU.
struct Sight {
    IommuModel iommu;
    Evidence blocked;         ///< of an access that is blocked
    Evidence guard;           ///< of a write to a guard
    Evidence unmapped;        ///< of a write to a buffer that is unmapped
    Evidence stale;           ///< of one by a translation that was not invalidated
    Known known;              ///< the size of an access, from its record
    std::uint64_t most_bytes; ///< of one record
};

constexpr std::uint64_t no_limit = ~std::uint64_t{0};

constexpr std::array sights = {
    Sight{IommuModel::intel, Evidence::record, Evidence::record, Evidence::record,
          Evidence::canaries, Known::at_least, 0},
    Sight{IommuModel::amd, Evidence::nothing, Evidence::canaries, Evidence::nothing,
          Evidence::canaries, Known::exactly, no_limit},
    Sight{IommuModel::smmuv3, Evidence::record, Evidence::record, Evidence::record,
          Evidence::canaries, Known::exactly, no_limit},
    Sight{IommuModel::virtio, Evidence::record, Evidence::record, Evidence::record,
          Evidence::record, Known::exactly, 504},
    Sight{IommuModel::none, Evidence::nothing, Evidence::canaries, Evidence::canaries,
          Evidence::canaries, Known::exactly, no_limit},
};

Evidence evidence_of(const Row& row, const Sight& sight) {
    switch (row.injection) {
    case Injection::overrun:
    case Injection::underrun:
    case Injection::short_buffer:
        return row.kind == FindingKind::wrote_outside ? sight.guard : sight.blocked;
    case Injection::stale:
        return sight.unmapped;
    case Injection::no_invalidate:
        return sight.stale;
    case Injection::short_transfer:
    case Injection::wrong_data:
        return Evidence::contents;
    default:
        return sight.blocked;
    }
}

struct Device {
    std::string_view name;
    std::string_view rows;         ///< the device whose rows these are
    std::uint64_t past;            ///< bytes past a buffer; 0: as many as time allows
    std::uint64_t past_if_blocked; ///< the same
};

constexpr std::array devices = {
    Device{"nvme", "nvme", 512, 512},
    Device{"virtio-blk", "virtio-blk", 512, 512},
    Device{"virtio-blk-packed", "virtio-blk", 512, 512},
    Device{"virtio-blk-ats", "virtio-blk", 512, 512},
    Device{"ahci", "ahci", 512, 512},
    Device{"e1000", "e1000e", 64, 64},
    Device{"e1000e", "e1000e", 64, 64},
    Device{"xhci", "xhci", 512, 512},
    Device{"virtio-scsi", "virtio-scsi", 512, 4}, // the first blocked word ends a transfer
    Device{"virtio-scsi-packed", "virtio-scsi-packed", 512, 4},
    Device{"pvscsi", "pvscsi", 512, 512},
    Device{"sdhci", "sdhci", 512, 4},
    Device{"virtio-net", "virtio-net", 64, 64},
    Device{"virtio-net-packed", "virtio-net", 64, 64},
    Device{"vmxnet3", "vmxnet3", 64, 64},
    Device{"hda", "hda", 0, 0},
    Device{"edu", "edu", 64, 64},
};

/// What is left out, and why. Empty and none: all of them.
struct LeftOut {
    std::string_view device;
    Injection injection;
    std::optional<IommuModel> iommu;
    std::string_view why;
};

constexpr std::array left_out = {
    LeftOut{"virtio-blk-direct",
            Injection::none,
            {},
            "it bypasses each IOMMU (QemuAudit has its tests)"},
    LeftOut{"virtio-blk-ats", Injection::none, IommuModel::amd,
            "QEMU 7.2's unit takes functions behind a port for functions of bus 0"},
    LeftOut{"", Injection::late, IommuModel::none, "an unmap has no effect"},
    LeftOut{"", Injection::late, IommuModel::virtio,
            "it unmaps by a request, which comes after the doorbell"},
    LeftOut{"", Injection::no_invalidate, IommuModel::virtio,
            "each unmap invalidates: this is `stale`"},
};

bool is_left_out(std::string_view device, Injection injection, IommuModel iommu) {
    return std::ranges::any_of(left_out, [&](const LeftOut& each) {
        return (each.device.empty() || each.device == device) &&
               (each.injection == Injection::none || each.injection == injection) &&
               each.iommu.value_or(iommu) == iommu;
    });
}

/// Set by `./dev test --full`.
bool runs_everything() {
    return std::getenv("MOAT_EVERY_INJECTION") != nullptr; // NOLINT(concurrency-mt-unsafe)
}

/// A device of QEMU's behind one of QEMU's IOMMUs.
struct Behind {
    const Device* device;
    const Sight* sight;
};

void PrintTo(const Behind& tested, std::ostream* out) {
    *out << tested.device->name << " behind " << name(tested.sight->iommu);
}

class InjectedErrors : public QemuAudit, public ::testing::WithParamInterface<Behind> {
  protected:
    void SetUp() override { iommu = GetParam().sight->iommu; }

    [[nodiscard]] static bool runs(const Row& row) {
        const auto& [device, sight] = GetParam();
        return row.device == device->rows &&
               !is_left_out(device->name, row.injection, sight->iommu) &&
               (row.runs == Runs::behind_each || runs_everything() ||
                (row.runs == Runs::behind_vtd && sight->iommu == IommuModel::intel));
    }

    /// All rows share a machine; those of one injection and the same cases, an audit.
    [[nodiscard]] const audit::DeviceReport* report_of(const Row& row) {
        const auto key = std::tuple(row.injection, row.first, row.end);
        if (key == audited_)
            return &report_;
        if (!subject_)
            subject_ = start(GetParam().device->name, Injection::none);
        if (!subject_)
            return nullptr;
        subject_->inject({.what = row.injection});
        auto report = run_on(*subject_, row.end, row.first);
        EXPECT_TRUE(report) << report.error();
        if (!report)
            return nullptr;
        report_ = std::move(*report);
        audited_ = key;
        return &report_;
    }

    static void expect(const Row& row, const audit::DeviceReport& report) {
        const Evidence evidence = evidence_of(row, *GetParam().sight);
        const auto found = std::ranges::find_if(report.findings, [&](const Finding& each) {
            return each.kind == row.kind && each.operation == row.operation &&
                   each.buffer == "data";
        });
        ASSERT_EQ(found == report.findings.end(), evidence == Evidence::nothing);
        if (evidence == Evidence::nothing)
            return;
        const bool was_blocked = evidence == Evidence::record;
        EXPECT_EQ(found->record.has_value(),
                  was_blocked && row.kind != FindingKind::success_though_blocked);
        EXPECT_EQ(found->answer.verdict == audit::Verdict::success, row.succeeds || !was_blocked);
        if (row.kind == FindingKind::wrote_outside || row.kind == FindingKind::read_outside) {
            expect_size(row, *found);
        } else if (!was_blocked) {
            EXPECT_GT(found->bytes, 0U);
        }
    }

    static void expect_size(const Row& row, const Finding& found) {
        const auto& [device, sight] = GetParam();
        EXPECT_EQ(found.known, found.record ? sight->known : Known::exactly);
        const std::uint64_t past = found.record ? device->past_if_blocked : device->past;
        if (row.injection == Injection::read_only || past == 0 || found.known == Known::at_least)
            return;
        EXPECT_LE(found.bytes, past);
        EXPECT_GE(found.bytes, std::min(past, sight->most_bytes));
    }

  private:
    std::unique_ptr<audit::Subject> subject_;
    std::tuple<Injection, std::uint64_t, std::uint64_t> audited_;
    audit::DeviceReport report_;
};

TEST_P(InjectedErrors, are_found_as_far_as_the_iommu_shows) {
    constexpr Row none{.injection = Injection::none, .first = 0, .end = 4};
    const auto* const good = report_of(none);
    if (good == nullptr)
        return;
    EXPECT_EQ(good->tally.cases, 4U);
    EXPECT_TRUE(good->findings.empty()) << good->findings.front().report;
    for (const Row& row : rows) {
        if (!runs(row))
            continue;
        std::ostringstream where;
        where << name(row.injection) << ", " << row.operation << ": " << name(row.kind);
        SCOPED_TRACE(where.str());
        const auto* const report = report_of(row);
        if (report == nullptr)
            return;
        expect(row, *report);
    }
}

/// Each device behind each IOMMU; what differs in its queues or its port alone, behind VT-d unless
/// everything runs.
std::vector<Behind> tested_pairs() {
    std::vector<Behind> pairs;
    for (const Sight& sight : sights)
        for (const Device& device : devices) {
            const bool is_variant = device.name.find("-packed") != std::string_view::npos ||
                                    device.name.ends_with("-ats");
            if (!is_left_out(device.name, Injection::none, sight.iommu) &&
                (!is_variant || sight.iommu == IommuModel::intel || runs_everything()))
                pairs.push_back({&device, &sight});
        }
    return pairs;
}

INSTANTIATE_TEST_SUITE_P(Qemu, InjectedErrors, ::testing::ValuesIn(tested_pairs()),
                         [](const auto& tested) {
                             std::string text(tested.param.device->name);
                             text += "_behind_" + std::string(name(tested.param.sight->iommu));
                             std::ranges::replace(text, '-', '_');
                             return text;
                         });

TEST(InjectionTable, has_each_device_of_qemu_and_each_iommu) {
    for (const audit::Kind& kind : audit::kinds()) {
        if (kind.machine != "qemu" || is_left_out(kind.name, Injection::none, IommuModel::intel))
            continue;
        const auto found = std::ranges::find(devices, kind.name, &Device::name);
        ASSERT_NE(found, devices.end()) << kind.name;
        EXPECT_NE(std::ranges::find(rows, found->rows, &Row::device), rows.end()) << kind.name;
    }
    EXPECT_EQ(sights.size(), machine::qemu::iommu_names.size());
    for (std::size_t each = 0; each != sights.size(); ++each)
        EXPECT_EQ(sights[each].iommu, static_cast<IommuModel>(each));
}

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
                                           "virtio-net-packed", "e1000", "vmxnet3"));

class SlowDevices : public QemuAudit {};

/// Each boundary of a length, at both ends of its pages.
TEST_F(SlowDevices, stay_inside) {
    expect_nothing("hda");
}

} // namespace
} // namespace moat::tests
