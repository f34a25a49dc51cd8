// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A virtio block device of QEMU's with ATS, behind a port: its domain invalidates what it may
// cache, and QEMU 7.2 caches nothing.
#include "device_bench.hpp"

namespace moat::tests {
namespace {

using namespace moat::literals;
using audit::Verdict;

constexpr std::uint64_t ats_sector = 512;

class QemuAts : public DeviceTest {
  protected:
    void drive_disk(bool invalidates_device_tlbs = true) {
        drive({.devices = {"pcie-root-port,id=rp0,chassis=1,addr=3",
                           "virtio-blk-pci,bus=rp0,drive=disk0,serial=moat,disable-legacy=on,"
                           "iommu_platform=on,ats=on"},
               .disks = {4_MiB},
               .vtd = {.coherence = iommu::Coherence::known,
                       .invalidates_device_tlbs = invalidates_device_tlbs}},
              0x010000);
    }

    [[nodiscard]] bool is_enabled() const {
        const unsigned at =
            machine::find_extended_capability(function->config(), machine::pci::extended_ats);
        return at != 0 && (function->config().read16(at + machine::pci::ats_control) &
                           machine::pci::ats_enabled) != 0;
    }

    /// The device reads one sector to a page before and after it is unmapped.
    void expect_that_an_unmap_is_final() {
        Piece& data = piece(1);
        EXPECT_EQ(run("read", data.iova, ats_sector).verdict, Verdict::success);
        EXPECT_EQ(data.untouched_from(ats_sector), page);
        ASSERT_TRUE(domain->unmap(data.iova, data.memory.size()));
        std::ranges::fill(data.memory.bytes(), canary);
        (void)run("read", data.iova, ats_sector);
        EXPECT_EQ(data.untouched_from(0), page);
        expect_fault(fault::Access::write, data.iova, 5);
    }
};

TEST_F(QemuAts, domain_enables_and_invalidates_a_function_s_cache) {
    drive_disk();
    if (!driver)
        return;
    EXPECT_TRUE(function->info().caches_translations);
    EXPECT_TRUE(is_enabled());
    expect_that_an_unmap_is_final();
    ASSERT_TRUE(function->reset());
    EXPECT_TRUE(is_enabled()) << "after a reset of the function, too";
}

/// QEMU 7.2 passes invalidations on to vhost alone: its own devices ask the IOMMU at each access.
TEST_F(QemuAts, device_without_vhost_caches_nothing) {
    drive_disk(false);
    if (!driver)
        return;
    EXPECT_TRUE(is_enabled());
    expect_that_an_unmap_is_final();
}

TEST_F(QemuAts, function_without_the_capability_caches_nothing) {
    drive({.devices = {"virtio-blk-pci,addr=5,drive=disk0,disable-legacy=on,iommu_platform=on"},
           .disks = {4_MiB}},
          0x010000);
    if (!driver)
        return;
    EXPECT_FALSE(function->info().caches_translations);
    EXPECT_FALSE(is_enabled());
}

} // namespace
} // namespace moat::tests
