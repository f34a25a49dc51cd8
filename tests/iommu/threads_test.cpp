// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Devices on threads of their own while a driver maps, unmaps and uses the memory again. Run under
// ThreadSanitizer: a device that touches a buffer after its strict unmap races with the driver.
#include "soft_system.hpp"

#include <atomic>
#include <gtest/gtest.h>
#include <thread>

namespace moat::tests {

namespace {

using namespace literals;

constexpr int rounds = 4'000;

constexpr fault::Source nic = fault::Source::pci(0, 3, 0, 0);

/// Writes and reads one address over and over, whatever comes of it.
class StrayDevice {
  public:
    StrayDevice(SoftIommu::Device& device, Iova at)
        : thread_([this, &device, at] {
              Lane lane(device);
              std::array<std::byte, 64> data{};
              while (!stop_.load(std::memory_order_relaxed)) {
                  reached_ += lane.write(at, data).complete() ? 1 : 0;
                  reached_ += lane.read(at, data).complete() ? 1 : 0;
                  tries_.fetch_add(1, std::memory_order_relaxed);
              }
          }) {}

    ~StrayDevice() {
        stop_.store(true, std::memory_order_relaxed);
        thread_.join();
    }

    [[nodiscard]] std::uint64_t tries() const { return tries_.load(std::memory_order_relaxed); }

  private:
    std::atomic<bool> stop_{false};
    std::atomic<std::uint64_t> tries_{0};
    std::uint64_t reached_ = 0;
    std::thread thread_;
};

TEST(StrictUnmap, the_memory_is_the_drivers_own_again) {
    OwnTables tables;
    const Buffer buffer(4096);
    SoftDomain domain(empty_table(tables));
    SoftIommu iommu;
    auto& device = **iommu.add_device(nic);
    ASSERT_TRUE(iommu.attach(nic, domain));
    const StrayDevice stray(device, Iova(0x1fe0)); // crosses into what is never mapped
    const StrayDevice other(device, Iova(0x1100));
    for (int round = 0; round != rounds; ++round) {
        ASSERT_TRUE(domain.map(Iova(0x1000), 4096_B, buffer.physical(), read_write));
        const std::uint64_t before = other.tries();
        for (int turn = 0; turn != 100 && other.tries() == before; ++turn)
            std::this_thread::yield();
        ASSERT_TRUE(domain.unmap(Iova(0x1000), 4096_B));
        buffer.data()[0x120] = static_cast<std::byte>(round); // not atomic: it is ours
        ASSERT_EQ(buffer.data()[0x120], static_cast<std::byte>(round));
    }
}

TEST(StrictUnmap, attaching_elsewhere_is_as_strict) {
    OwnTables tables;
    const Buffer buffer(4096);
    SoftDomain domain(empty_table(tables));
    ASSERT_TRUE(domain.map(Iova(0x1000), 4096_B, buffer.physical(), read_write));
    SoftIommu iommu;
    auto& device = **iommu.add_device(nic);
    const StrayDevice stray(device, Iova(0x1100));
    for (int round = 0; round != rounds / 4; ++round) {
        ASSERT_TRUE(iommu.attach(nic, domain));
        const std::uint64_t before = stray.tries();
        for (int turn = 0; turn != 100 && stray.tries() == before; ++turn)
            std::this_thread::yield();
        ASSERT_TRUE(iommu.detach(nic));
        buffer.data()[0x120] = static_cast<std::byte>(round);
    }
}

TEST(DeferredUnmap, many_go_with_one_wait) {
    OwnTables tables;
    const Buffer buffer(16 * 4096);
    SoftDomain domain(empty_table(tables));
    SoftIommu iommu;
    auto& device = **iommu.add_device(nic);
    ASSERT_TRUE(iommu.attach(nic, domain));
    const StrayDevice stray(device, Iova(0x3100));
    for (int round = 0; round != rounds / 4; ++round) {
        ASSERT_TRUE(domain.map(Iova(0), buffer.size(), buffer.physical(), read_write));
        for (std::uint64_t page = 0; page != 16; ++page)
            ASSERT_TRUE(domain.unmap_deferred(Iova(page << 12), 4096_B));
        ASSERT_TRUE(domain.invalidate_all());
        buffer.data()[0x3120] = static_cast<std::byte>(round);
    }
}

} // namespace

} // namespace moat::tests
