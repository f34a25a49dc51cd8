// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Devices on threads of their own while a driver maps, unmaps and reuses the memory.
// ThreadSanitizer runs it too: a device that accesses a buffer after its strict unmap races with
// the driver.
#include "sanitized.hpp"
#include "soft_system.hpp"

#include <atomic>
#include <gtest/gtest.h>
#include <thread>

namespace moat::tests {

namespace {

using namespace literals;

constexpr int rounds = sanitized ? 200 : 500;

constexpr fault::Source sender = fault::Source::pci(0, 3, 0, 0);

/// Counts its waits for accesses, each of which costs a driver a grace period.
struct CountedGenerations : iommu::Generations<RealSync> {
    std::uint64_t waits = 0;

    void invalidate(const InvalidationRequest<Iova>& request) {
        forget(request);
        wait_for_accesses();
    }

    void invalidate_all() {
        forget_all();
        wait_for_accesses();
    }

    void wait_for_accesses() {
        ++waits;
        Generations::wait_for_accesses();
    }
};

using CountedDomain = iommu::SoftDomain<SoftTree, CountedGenerations>;
using CountedIommu = iommu::SoftIommu<CountedDomain>;

/// Even while a device may reach the buffer, odd from the end of an unmap to the next map.
using Turn = std::atomic<std::uint64_t>;

/// Writes and reads one address repeatedly, and ignores the results.
class StrayDevice {
  public:
    StrayDevice(CountedIommu::Device& device, Iova at, const Turn& turn)
        : turn_(turn), thread_([this, &device, at] {
              iommu::Lane<CountedIommu::Device> lane(device);
              std::array<std::byte, 64> data{};
              while (!stop_.load(std::memory_order_relaxed)) {
                  attempt([&] { return lane.write(at, data).complete(); });
                  attempt([&] { return lane.read(at, data).complete(); });
                  tries_.fetch_add(1, std::memory_order_relaxed);
              }
          }) {}

    ~StrayDevice() { stop(); }

    /// Lets the device try once more, unless other threads keep it from running.
    void let_try() const {
        const std::uint64_t before = tries_.load(std::memory_order_relaxed);
        for (int i = 0; i != 100 && tries_.load(std::memory_order_relaxed) == before; ++i)
            std::this_thread::yield();
    }

    /// Ends the device; its counts are read afterwards.
    void stop() {
        stop_.store(true, std::memory_order_relaxed);
        if (thread_.joinable())
            thread_.join();
    }

    std::uint64_t reached = 0;          ///< complete accesses
    std::uint64_t refused = 0;          ///< incomplete ones
    std::uint64_t reached_unmapped = 0; ///< complete ones that began and ended after an unmap

  private:
    void attempt(const auto& access) {
        const std::uint64_t before = turn_.load(std::memory_order_acquire);
        const bool complete = access();
        const bool unmapped = before % 2 != 0 && turn_.load(std::memory_order_acquire) == before;
        ++(complete ? reached : refused);
        reached_unmapped += complete && unmapped ? 1 : 0;
    }

    const Turn& turn_;
    std::atomic<bool> stop_{false};
    std::atomic<std::uint64_t> tries_{0};
    std::thread thread_;
};

class Unmap : public testing::Test {
  protected:
    void expect_strict(StrayDevice& stray) {
        stray.stop();
        EXPECT_EQ(stray.reached_unmapped, 0U);
        EXPECT_GT(stray.refused, 0U);
    }

    void begin_turn() { turn.fetch_add(1, std::memory_order_acq_rel); }

    OwnTables tables;
    const Buffer buffer{16 * 4096};
    CountedDomain domain{*CountedDomain::Table::create(tables.pool())};
    CountedIommu iommu;
    CountedIommu::Device& device = **iommu.add_device(sender);
    Turn turn{1};
};

TEST_F(Unmap, the_memory_is_the_drivers_own_again) {
    ASSERT_TRUE(iommu.attach(sender, domain));
    StrayDevice crossing(device, Iova(0x1fe0), turn); // into memory that is never mapped
    StrayDevice stray(device, Iova(0x1100), turn);
    for (int round = 0; round != rounds; ++round) {
        begin_turn();
        ASSERT_TRUE(domain.map(Iova(0x1000), 4096_B, buffer.physical(), read_write));
        stray.let_try();
        ASSERT_TRUE(domain.unmap(Iova(0x1000), 4096_B));
        begin_turn();
        buffer.data()[0x120] = static_cast<std::byte>(round); // not atomic: the test owns it
        ASSERT_EQ(buffer.data()[0x120], static_cast<std::byte>(round));
    }
    expect_strict(stray);
    EXPECT_GT(stray.reached, 0U);
    expect_strict(crossing);
    EXPECT_EQ(crossing.reached, 0U);
}

TEST_F(Unmap, attaching_elsewhere_is_as_strict) {
    ASSERT_TRUE(domain.map(Iova(0x1000), 4096_B, buffer.physical(), read_write));
    StrayDevice stray(device, Iova(0x1100), turn);
    for (int round = 0; round != rounds; ++round) {
        begin_turn();
        ASSERT_TRUE(iommu.attach(sender, domain));
        stray.let_try();
        ASSERT_TRUE(iommu.detach(sender));
        begin_turn();
        buffer.data()[0x120] = static_cast<std::byte>(round);
    }
    expect_strict(stray);
    EXPECT_GT(stray.reached, 0U);
}

TEST_F(Unmap, many_deferred_ones_go_with_one_wait) {
    ASSERT_TRUE(iommu.attach(sender, domain));
    StrayDevice stray(device, Iova(0x3100), turn);
    for (int round = 0; round != rounds; ++round) {
        begin_turn();
        ASSERT_TRUE(domain.map(Iova(0), buffer.size(), buffer.physical(), read_write));
        stray.let_try();
        for (std::uint64_t page = 0; page != 16; ++page)
            ASSERT_TRUE(domain.unmap_deferred(Iova(page << 12), 4096_B));
        ASSERT_TRUE(domain.invalidate_all());
        begin_turn();
        buffer.data()[0x3120] = static_cast<std::byte>(round);
    }
    EXPECT_EQ(domain.invalidator().waits, std::uint64_t{rounds});
    expect_strict(stray);
    EXPECT_GT(stray.reached, 0U);
}

} // namespace

} // namespace moat::tests
