// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The audit on QEMU's devices behind QEMU's VT-d: both independent of moat.
#include "qemu_audit.hpp"

#include <csignal>
#include <numeric>

namespace moat::tests {
namespace {

using audit::Finding;
using audit::FindingKind;
using audit::Injection;

TEST_F(QemuAudit, devices_that_stay_inside) {
    for (const std::string_view device : {"nvme", "virtio-blk", "ahci", "e1000e"})
        expect_nothing(device);
    expect_nothing("edu", 4); // 100 ms each
}

TEST_F(QemuAudit, the_same_devices_stay_inside_behind_an_smmu) {
    iommu = machine::qemu::IommuModel::smmuv3;
    for (const std::string_view device : {"nvme", "virtio-blk", "ahci", "e1000e"})
        expect_nothing(device);
    expect_nothing("edu", 4);
}

/// It records words; VT-d's pages would make these "at least".
TEST_F(QemuAudit, an_smmu_gives_the_size_of_an_overrun) {
    iommu = machine::qemu::IommuModel::smmuv3;
    const auto expect_size = [&](std::string_view device, Injection what, FindingKind kind,
                                 std::uint64_t bytes) {
        SCOPED_TRACE(device);
        const auto report = run(device, what);
        if (!report)
            return;
        const auto found = std::ranges::find_if(report->findings, [&](const Finding& each) {
            return each.kind == kind && each.buffer == "data" && each.record;
        });
        ASSERT_NE(found, report->findings.end());
        EXPECT_EQ(found->bytes, bytes);
        EXPECT_EQ(found->known, audit::Known::exactly);
    };
    expect_size("nvme", Injection::overrun, FindingKind::read_outside, 512);
    expect_size("e1000e", Injection::underrun, FindingKind::read_outside, 64);
    expect_size("e1000e", Injection::underrun, FindingKind::wrote_outside, 64);
}

TEST_F(QemuAudit, missing_invalidation_of_an_smmu_is_seen_by_canaries_alone) {
    iommu = machine::qemu::IommuModel::smmuv3;
    const auto report = run("nvme", Injection::no_invalidate);
    if (!report)
        return;
    EXPECT_TRUE(std::ranges::any_of(report->findings, [](const Finding& each) {
        return each.kind == FindingKind::touched_after_completion && !each.record &&
               each.bytes != 0;
    }));
}

TEST_F(QemuAudit, without_an_iommu_canaries_alone_show_writes) {
    iommu = machine::qemu::IommuModel::none;
    for (const std::string_view device : {"nvme", "virtio-blk", "virtio-blk-direct", "e1000e"})
        expect_nothing(device);
    const auto overrun = run("nvme", Injection::overrun);
    if (!overrun)
        return;
    EXPECT_TRUE(std::ranges::any_of(overrun->findings, [](const Finding& each) {
        return each.kind == FindingKind::wrote_outside && each.operation == "read" &&
               each.buffer == "data" && each.bytes == 512 && each.side == fault::Side::right;
    }));
    for (const Finding& each : overrun->findings) {
        EXPECT_FALSE(each.record);
        EXPECT_NE(each.kind, FindingKind::read_outside);
    }
    const auto underrun = run("e1000e", Injection::underrun);
    ASSERT_TRUE(underrun);
    EXPECT_TRUE(has(*underrun, FindingKind::wrote_outside, "receive"));
    const auto stale = run("nvme", Injection::stale, 64);
    ASSERT_TRUE(stale);
    EXPECT_TRUE(has(*stale, FindingKind::touched_after_completion, "read"));
}

TEST_F(QemuAudit, virtio_without_the_platform_s_addresses_bypasses_the_iommu) {
    const auto report = run("virtio-blk-direct");
    if (!report)
        return;
    EXPECT_TRUE(has(*report, FindingKind::bypasses_iommu, "read"));
    for (const Finding& each : report->findings)
        EXPECT_EQ(each.kind, FindingKind::bypasses_iommu) << each.report;
}

TEST_F(QemuAudit, disks_report_success_though_blocked) {
    for (const std::string_view device : {"nvme", "ahci", "virtio-blk"}) {
        SCOPED_TRACE(device);
        const auto report = run(device, Injection::overrun);
        if (!report)
            return;
        EXPECT_TRUE(has(*report, FindingKind::wrote_outside, "read"));
        EXPECT_TRUE(has(*report, FindingKind::read_outside, "write"));
        EXPECT_TRUE(has(*report, FindingKind::success_though_blocked, "read"));
        EXPECT_TRUE(has(*report, FindingKind::success_though_blocked, "write"));
        for (const Finding& each : report->findings) {
            if (each.kind == FindingKind::wrote_outside || each.kind == FindingKind::read_outside) {
                EXPECT_EQ(each.buffer, "data");
                EXPECT_EQ(each.side, fault::Side::right);
            }
        }
    }
}

TEST_F(QemuAudit, what_is_found_is_found_again_alone) {
    const auto again = [&](std::string_view device, Injection what, FindingKind kind) {
        SCOPED_TRACE(device);
        const auto whole = run(device, what);
        if (!whole)
            return;
        const auto found = std::ranges::find(whole->findings, kind, &Finding::kind);
        ASSERT_NE(found, whole->findings.end());
        const auto alone = run(device, what, found->about.number + 1, found->first_case);
        ASSERT_TRUE(alone);
        EXPECT_TRUE(std::ranges::any_of(alone->findings, [&](const Finding& each) {
            return each.kind == kind && each.operation == found->operation &&
                   each.buffer == found->buffer && each.bytes == found->bytes;
        }));
    };
    again("virtio-blk-direct", Injection::none, FindingKind::bypasses_iommu);
    again("ahci", Injection::overrun, FindingKind::success_though_blocked);
    again("nvme", Injection::read_only, FindingKind::wrote_outside);
}

TEST_F(QemuAudit, wrong_drivers_of_nvme_are_found) {
    const auto finds = [&](Injection what, FindingKind kind) {
        SCOPED_TRACE(name(what));
        if (const auto report = run("nvme", what, 64)) { // one round
            EXPECT_TRUE(has(*report, kind, "read"));
        }
    };
    finds(Injection::underrun, FindingKind::wrote_outside);
    finds(Injection::short_buffer, FindingKind::wrote_outside);
    finds(Injection::short_transfer, FindingKind::left_unwritten);
    finds(Injection::stale, FindingKind::touched_after_completion);
    finds(Injection::late, FindingKind::touched_after_completion);
    if (const auto report = run("nvme", Injection::read_only)) {
        EXPECT_TRUE(has(*report, FindingKind::wrote_outside, "write"));
    }
}

TEST_F(QemuAudit, disks_asked_for_other_blocks_return_wrong_data) {
    for (const std::string_view device : {"nvme", "ahci", "virtio-blk"}) {
        SCOPED_TRACE(device);
        const auto report = run(device, Injection::wrong_data);
        if (!report)
            return;
        EXPECT_TRUE(has(*report, FindingKind::wrong_data, "read"));
        for (const Finding& each : report->findings) {
            EXPECT_EQ(each.kind, FindingKind::wrong_data) << each.report;
            if (each.contents && each.contents->origin) {
                EXPECT_EQ(each.contents->origin->at, each.contents->expected.at + 512)
                    << each.report;
            }
        }
    }
}

/// A leaf that is gone from the tables but still in the IOTLB: no fault reports its use.
TEST_F(QemuAudit, missing_invalidation_is_seen_by_canaries_alone) {
    const auto report = run("nvme", Injection::no_invalidate);
    if (!report)
        return;
    EXPECT_TRUE(std::ranges::any_of(report->findings, [](const Finding& each) {
        return each.kind == FindingKind::touched_after_completion && !each.record &&
               each.bytes != 0;
    }));
}

TEST_F(QemuAudit, wrong_drivers_of_edu_and_e1000e_are_found) {
    // A round has 18 cases. The second places buffers at the guard behind them; the tenth reads.
    if (const auto report = run("edu", Injection::overrun, 19, 18)) {
        EXPECT_TRUE(has(*report, FindingKind::read_outside, "write"));
    }
    if (const auto report = run("edu", Injection::overrun, 28, 27)) {
        EXPECT_TRUE(has(*report, FindingKind::wrote_outside, "read"));
    }
    if (const auto report = run("e1000e", Injection::underrun)) {
        EXPECT_TRUE(has(*report, FindingKind::wrote_outside, "receive"));
        EXPECT_TRUE(has(*report, FindingKind::read_outside, "transmit"));
    }
}

/// A device that crashes its machine is a finding, and the audit ends.
TEST_F(QemuAudit, machine_that_dies_is_a_finding) {
    machine::qemu::QemuOptions qemu_options;
    qemu_options.devices = {"nvme,drive=disk0,serial=moat,addr=5"};
    qemu_options.disks = {ByteCount(1 << 20)};
    auto machine = machine::qemu::QemuMachine::start(qemu_options);
    if (!machine && machine.error().code() == ErrorCode::not_found) {
        skipped = true;
        return;
    }
    ASSERT_TRUE(machine) << machine.error();
    audit::AuditOptions options;
    options.goes_on = [&](const audit::Tally& tally) {
        if (tally.cases == 16)
            ::kill((*machine)->qtest().process(), SIGKILL);
        return true;
    };
    const auto report =
        audit::audit_function(**machine, (*machine)->functions().front().address, options);
    ASSERT_TRUE(report) << report.error();
    EXPECT_TRUE(report->ended_early);
    EXPECT_EQ(report->end_case, 17U);
    ASSERT_EQ(report->findings.size(), 1U);
    EXPECT_EQ(report->findings[0].kind, FindingKind::hang);
    EXPECT_EQ(report->findings[0].about.number, 16U);
}

/// A device that stops answering is killed by its process number soon, and is a finding too.
TEST_F(QemuAudit, machine_that_hangs_is_ended_and_a_finding) {
    machine::qemu::QemuOptions qemu_options;
    qemu_options.devices = {"nvme,drive=disk0,serial=moat,addr=5"};
    qemu_options.disks = {ByteCount(1 << 20)};
    qemu_options.patience = std::chrono::seconds(2); // other tests may run meanwhile
    auto machine = machine::qemu::QemuMachine::start(qemu_options);
    if (!machine && machine.error().code() == ErrorCode::not_found) {
        skipped = true;
        return;
    }
    ASSERT_TRUE(machine) << machine.error();
    const pid_t process = (*machine)->qtest().process();
    audit::AuditOptions options;
    options.goes_on = [&](const audit::Tally& tally) {
        if (tally.cases == 16)
            ::kill(process, SIGSTOP);
        return true;
    };
    const auto report =
        audit::audit_function(**machine, (*machine)->functions().front().address, options);
    ASSERT_TRUE(report) << report.error();
    EXPECT_TRUE(report->ended_early);
    ASSERT_EQ(report->findings.size(), 1U);
    EXPECT_EQ(report->findings[0].kind, FindingKind::hang);
    EXPECT_EQ(report->findings[0].about.number, 16U);
    EXPECT_NE(report->findings[0].report.find("QEMU did not answer in time; moat killed it"),
              std::string::npos)
        << report->findings[0].report;
    EXPECT_EQ(::kill(process, 0), -1) << "it was waited for, so its number is nobody's";
}

TEST_F(QemuAudit, operations_take_at_most_four_round_trips) {
    const auto report = run("nvme", Injection::none, 600);
    if (!report)
        return;
    const auto& trips = report->tally.round_trips;
    const std::uint64_t all = std::accumulate(trips.begin(), trips.end(), std::uint64_t{0});
    // One more access, but no read: the doorbell, whose effect appears in memory.
    EXPECT_LE(all + report->tally.cases, 4 * report->tally.cases)
        << "place " << trips[0] << ", run " << trips[1] << ", unmap " << trips[2] << ", faults "
        << trips[3];
}

} // namespace
} // namespace moat::tests
