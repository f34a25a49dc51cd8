// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// More faults than the kernel logs. Last in the program, because the log drops everything within
// the next five seconds too.
#include "guest.hpp"

#include <iostream>

namespace moat::tests {
namespace {

class LostFaultsTest : public GuestTest {
  protected:
    void SetUp() override {
        GuestTest::SetUp();
        if (!HasFatalFailure())
            open_function(edu);
    }
};

TEST_F(LostFaultsTest, what_the_log_leaves_out_is_counted) {
    make_space();
    drive();
    const auto memory = memory_of(1);
    const auto ring =
        space->map({memory.bytes(), memory.physical()}, dma::Direction::from_device, "the ring");
    ASSERT_TRUE(ring);
    constexpr unsigned faults = 12;
    for (unsigned i = 0; i != faults; ++i)
        (void)run("read", *ring + ByteCount(page - 1), 2);
    std::uint64_t lost = 0;
    const auto all_are_told = [&] {
        lost += take_faults();
        return records.size() + lost >= faults;
    };
    (void)machine->wait_until(all_are_told, std::chrono::seconds(2));
    std::cout << records.size() + lost << " faults, " << records.size() << " addresses seen\n";
    EXPECT_GE(records.size() + lost, faults);
    EXPECT_LE(records.size() + lost, 2 * faults) << "an access is tried twice at most";
    EXPECT_GT(lost, 0U) << "the kernel limits the rate";
    EXPECT_EQ(changed(memory.bytes()), 1);
    EXPECT_TRUE(space->unmap(*ring, 4_KiB, dma::Direction::from_device));
}

} // namespace
} // namespace moat::tests
