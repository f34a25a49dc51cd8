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

TEST_F(QemuAudit, the_same_devices_stay_inside_without_an_iommu) {
    iommu = machine::qemu::IommuModel::none;
    for (const std::string_view device : {"nvme", "virtio-blk", "virtio-blk-direct", "e1000e"})
        expect_nothing(device);
}

TEST_F(QemuAudit, virtio_without_the_platform_s_addresses_bypasses_the_iommu) {
    const auto report = run("virtio-blk-direct");
    if (!report)
        return;
    EXPECT_TRUE(has(*report, FindingKind::bypasses_iommu, "read"));
    for (const Finding& each : report->findings)
        EXPECT_EQ(each.kind, FindingKind::bypasses_iommu) << each.report;
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

TEST_F(QemuAudit, disk_asked_for_other_blocks_returns_wrong_data) {
    const auto report = run("ahci", Injection::wrong_data);
    if (!report)
        return;
    EXPECT_TRUE(has(*report, FindingKind::wrong_data, "read"));
    for (const Finding& each : report->findings) {
        EXPECT_EQ(each.kind, FindingKind::wrong_data) << each.report;
        if (each.contents && each.contents->origin) {
            EXPECT_EQ(each.contents->origin->at, each.contents->expected.at + 512) << each.report;
        }
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
