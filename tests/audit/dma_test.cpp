// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The unchanged DMA API on QEMU's IOMMU: a device leaves its buffer, the guard stops it, and the
// fault is attributed to the buffer's owner.
#include "api/engines.hpp"
#include "device_bench.hpp"

namespace moat::tests {
namespace {

using namespace moat::literals;

using Space = api::MachineSpace; // instantiated once, in moat::api

class DmaOnQemuTest : public DeviceTest {
  protected:
    void SetUp() override {
        drive({.devices = {"edu,addr=4,dma_mask=0xffffffffffffffff"}}, 0x00ff00);
    }

    /// One byte past the end of a buffer of whole pages.
    void expect_brought_home(dma::Unmapping unmapping) {
        dma::SpaceConfig config;
        config.options.unmapping = unmapping;
        auto created = Space::create(*domain, config);
        ASSERT_TRUE(created) << created.error();
        Space& space = **created;
        const auto memory = *machine->allocate(8_KiB);
        std::ranges::fill(memory.bytes(), canary);
        const dma::Memory buffer{memory.bytes(), memory.physical()};
        const auto iova = space.map(buffer, dma::Direction::from_device, "the ring");
        ASSERT_TRUE(iova) << iova.error();
        run("read", *iova + ByteCount(2 * page - 64), 65);
        ASSERT_TRUE(space.sync_for_cpu(*iova, {}, buffer.size()));
        EXPECT_EQ(std::ranges::count(memory.bytes(), canary), 2 * page - 64);
        auto records = faults();
        ASSERT_EQ(records.size(), 1U);
        fault::Diagnosis diagnosis = space.fault(records[0]);
        EXPECT_EQ(diagnosis.kind, fault::Kind::out_of_bounds_right);
        ASSERT_TRUE(diagnosis.mapping);
        EXPECT_EQ(diagnosis.mapping->label, "the ring");
        EXPECT_EQ(diagnosis.distance, (fault::Distance{1, page})) << "the unit tells the page";
        ASSERT_TRUE(space.unmap(*iova, buffer.size(), dma::Direction::from_device));
        EXPECT_TRUE(space.flush());
        run("read", *iova + ByteCount(2 * page - 64), 64); // the IOTLB has cached this page
        records = faults();
        ASSERT_EQ(records.size(), 1U) << "what is unmapped is out of reach";
        diagnosis = space.fault(records[0]);
        EXPECT_EQ(diagnosis.kind, fault::Kind::use_after_unmap);
    }
};

TEST_F(DmaOnQemuTest, names_the_buffer_with_strict_unmapping) {
    ASSERT_TRUE(driver);
    expect_brought_home(dma::Unmapping::strict);
}

TEST_F(DmaOnQemuTest, names_the_buffer_with_deferred_unmapping) {
    ASSERT_TRUE(driver);
    expect_brought_home(dma::Unmapping::deferred);
}

} // namespace
} // namespace moat::tests
