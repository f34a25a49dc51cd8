// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A device that leaves its buffer, under a real kernel: without a guard nothing is reported, with
// one the fault is attributed to the buffer's owner. The kernel logs at most five faults in five
// seconds, so the tests of this program cause no more together, except the last (lost_guest.cpp).
#include "moat/fault/report.hpp"

#include "guest.hpp"

#include <iostream>

namespace moat::tests {
namespace {

class FaultsTest : public GuestTest {
  protected:
    void SetUp() override {
        GuestTest::SetUp();
        if (!HasFatalFailure())
            open_function(edu);
    }
};

TEST_F(FaultsTest, without_a_guard_the_neighbour_is_changed_and_nobody_told) {
    drive();
    const auto memory = memory_of(2);
    ASSERT_TRUE(domain->map(Iova(0x100000), 8_KiB, memory.physical(), read_write));
    EXPECT_EQ(run("read", Iova(0x100000 + 2048), 4080).verdict, audit::Verdict::success);
    EXPECT_EQ(changed(memory.bytes().first(page)), 2048);
    EXPECT_EQ(changed(memory.bytes().last(page)), 2032);
    const auto none = [&](const fault::Record& record) { records.push_back(record); };
    EXPECT_EQ(machine->take_faults(none), 0U);
    EXPECT_TRUE(records.empty());
    EXPECT_TRUE(domain->unmap(Iova(0x100000), 8_KiB));
}

/// VT-d's driver emits no event, so the faults of the other tests come from the log.
TEST_F(FaultsTest, the_kernels_tracepoint_is_followed_beside_its_log) {
    EXPECT_TRUE(machine->follows_tracepoint());
    EXPECT_EQ(traces(), 1);
    {
        const auto second = VfioMachine::open();
        ASSERT_TRUE(second) << second.error();
        EXPECT_EQ(traces(), 2);
    }
    EXPECT_EQ(traces(), 1);
}

TEST_F(FaultsTest, with_a_guard_the_neighbour_is_safe_and_the_owner_is_told) {
    make_space();
    drive();
    const auto first = memory_of(1);
    const auto second = memory_of(1);
    const auto ring =
        space->map({first.bytes(), first.physical()}, dma::Direction::from_device, "the ring");
    const auto neighbour = space->map({second.bytes(), second.physical()},
                                      dma::Direction::from_device, "its neighbour");
    ASSERT_TRUE(ring && neighbour);
    EXPECT_EQ(run("read", *ring + ByteCount(2048), 4080).verdict, audit::Verdict::success)
        << "the device itself sees nothing wrong";
    EXPECT_EQ(changed(first.bytes()), 2048);
    EXPECT_EQ(changed(second.bytes()), 0);
    bring_fault_home();
    ASSERT_FALSE(heard.empty()) << "the handler did not run";
    const fault::Diagnosis& diagnosis = heard[0];
    EXPECT_EQ(diagnosis.kind, fault::Kind::out_of_bounds_right);
    ASSERT_TRUE(diagnosis.mapping);
    EXPECT_EQ(diagnosis.mapping->label, "the ring");
    EXPECT_EQ(diagnosis.distance, (fault::Distance{1, page})) << "VT-d tells the page";
    EXPECT_EQ(diagnosis.record.access, fault::Access::write);
    EXPECT_EQ(diagnosis.record.source.id(), edu.requester());
    const std::string report = fault::text_report(diagnosis, {.device = "edu"});
    std::cout << report;
    EXPECT_NE(report.find("1 to 4096 bytes past"), report.npos) << report;
    EXPECT_NE(report.find("the ring"), report.npos) << report;
    EXPECT_TRUE(space->unmap(*ring, 4_KiB, dma::Direction::from_device));
    EXPECT_TRUE(space->unmap(*neighbour, 4_KiB, dma::Direction::from_device));
}

TEST_F(FaultsTest, a_bar_of_another_device_is_reached_as_far_as_it_is_mapped) {
    open_function(memory_bar);
    const auto bar = machine->bar_memory(memory_bar, 2);
    ASSERT_TRUE(bar) << bar.error();
    make_space();
    drive();
    const auto there = bar->first(2 * page);
    std::ranges::fill(bar->first(3 * page), canary);
    const auto iova = space->map(dma::Memory::own(there), dma::Direction::from_device, "the BAR");
    EXPECT_EQ(iova.has_value(), domain->capabilities().peer_to_peer);
    if (!iova) {
        EXPECT_EQ(iova.error().code(), ErrorCode::unsupported) << iova.error();
        return;
    }
    (void)run("read", *iova + ByteCount(2 * page - 64), 65);
    EXPECT_EQ(changed(there), 64);
    EXPECT_EQ(changed(bar->subspan(2 * page, page)), 0) << "one byte beyond is blocked";
    bring_fault_home();
    ASSERT_FALSE(heard.empty());
    EXPECT_EQ(heard[0].mapping.value_or(fault::Mapping{}).label, "the BAR");
    EXPECT_TRUE(space->unmap(*iova, 8_KiB, dma::Direction::from_device));
}

} // namespace
} // namespace moat::tests
