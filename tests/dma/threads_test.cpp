// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Threads that map and unmap each other's mappings, beside a device that uses them: no reports, and
// no race for ThreadSanitizer.
#include "space_system.hpp"

#include <array>
#include <atomic>
#include <gtest/gtest.h>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace moat::tests {

namespace {

using namespace dma;

/// Buffers that drivers lend to the device. The thread that takes a buffer out of its slot owns it.
class Places {
  public:
    static constexpr std::size_t count = 16;
    static constexpr std::size_t stride = 8192;

    struct Place {
        std::mutex mutex;
        std::optional<Iova> iova; ///< the address, if mapped
    };

    /// Sizes on both sides of a page, since level exact treats them differently.
    [[nodiscard]] Memory memory(std::size_t place) {
        return Memory::own(
            all_.bytes().subspan(place * stride + 64, place % 2 == 0 ? 100 + place : 4097 + place));
    }

    [[nodiscard]] static Direction direction(std::size_t place) {
        return static_cast<Direction>(place % 3);
    }

    [[nodiscard]] Place& operator[](std::size_t place) { return places_[place]; }

  private:
    Buffer all_{count * stride};
    std::array<Place, count> places_;
};

class Threads : public testing::TestWithParam<Level> {
  protected:
    static constexpr std::size_t turns = 3000;

    /// Maps unmapped buffers and unmaps mapped ones, whoever mapped them.
    void drive(std::size_t first) {
        for (std::size_t turn = 0, place = first; turn != turns; ++turn, place += 5) {
            const std::size_t chosen = place % Places::count;
            Places::Place& here = places[chosen];
            const std::lock_guard lock(here.mutex);
            const Memory memory = places.memory(chosen);
            if (!here.iova) {
                const auto iova = system.space->map(memory, Places::direction(chosen), "shared");
                wrong += !iova;
                if (iova)
                    here.iova = *iova;
            } else {
                wrong += !system.space->unmap(*here.iova, memory.size(), Places::direction(chosen));
                here.iova.reset();
            }
        }
    }

    /// Commands in flight hold their buffer, like a driver's queue.
    void use() {
        Lane lane(system.device);
        std::vector<std::byte> scratch(Places::stride);
        for (std::size_t place = 0; !done.load(std::memory_order_relaxed); ++place) {
            const std::size_t chosen = place % Places::count;
            Places::Place& here = places[chosen];
            const std::lock_guard lock(here.mutex);
            if (!here.iova)
                continue;
            const std::span piece(scratch.data(), places.memory(chosen).bytes.size());
            wrong += Places::direction(chosen) == Direction::to_device
                         ? !lane.read(*here.iova, piece).complete()
                         : !lane.write(*here.iova, piece).complete();
            ++accesses;
        }
    }

    System system{{.level = GetParam(), .quarantine = ByteCount(1 << 20)}};
    Places places;
    std::atomic<bool> done{false};
    std::atomic<std::size_t> wrong{0};
    std::atomic<std::size_t> accesses{0};
};

TEST_P(Threads, map_and_unmap_each_others_buffers_beside_a_device) {
    {
        std::jthread device([this] { use(); });
        {
            std::jthread one([this] { drive(0); });
            std::jthread two([this] { drive(1); });
            std::jthread three([this] { drive(2); });
        }
        done = true;
    }
    for (std::size_t place = 0; place != Places::count; ++place)
        if (const auto iova = places[place].iova)
            wrong +=
                !system.space->unmap(*iova, places.memory(place).size(), Places::direction(place));
    EXPECT_EQ(wrong, 0U);
    EXPECT_TRUE(system.heard.errors.empty());
    EXPECT_TRUE(system.heard.faults.empty());
    EXPECT_EQ(system.space->stats().live_ranges, 0U);
}

INSTANTIATE_TEST_SUITE_P(Levels, Threads, testing::Values(Level::track, Level::exact),
                         [](const auto& each) {
                             return std::string(each.param == Level::track ? "track" : "exact");
                         });

/// The mapping that a thread syncs may end meanwhile, and its buffer serve another mapping.
TEST(Threads, sync_a_buffer_that_another_thread_unmaps_and_maps_again) {
    OwnTables tables;
    SoftDomain domain(empty_table(tables));
    const auto space =
        *SoftSpace::create(domain, {.options = {.level = Level::exact}, .pages = own_pages()});
    Buffer buffer(4096);
    std::atomic<std::uint64_t> at{0};
    std::atomic<std::size_t> synced{0};
    const std::jthread other([&](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            const Iova iova(at.load(std::memory_order_relaxed));
            synced += space->sync_for_cpu(iova, ByteCount(0), ByteCount(100)).has_value();
            synced += space->sync_for_device(iova, ByteCount(50), ByteCount(50)).has_value();
            synced.notify_one();
        }
    });
    for (std::size_t turn = 0; turn != 20'000; ++turn) {
        const Memory memory = Memory::own(buffer.bytes().first(turn % 2 == 0 ? 100 : 4000));
        const auto iova = space->map(memory, Direction::bidirectional, "shared");
        ASSERT_TRUE(iova);
        const std::size_t before = synced;
        at.store(iova->value(), std::memory_order_relaxed);
        // Now and then the mapping lives until the other thread has synced it.
        if (turn % 1000 == 0)
            synced.wait(before);
        ASSERT_TRUE(space->unmap(*iova, memory.size(), Direction::bidirectional));
    }
}

TEST(Threads, spaces_come_and_go_beside_a_device_that_asks_for_their_bounds) {
    OwnTables tables;
    SoftDomain domain(empty_table(tables));
    SoftIommu iommu;
    SoftIommu::Device& device = **iommu.add_device(nic);
    ASSERT_TRUE(iommu.attach(nic, domain));
    Buffer buffer(4096);
    std::atomic<std::uint64_t> at{0};
    const std::jthread strays([&](const std::stop_token& stop) {
        Lane lane(device);
        const std::vector<std::byte> bytes(128);
        while (!stop.stop_requested())
            (void)lane.write(Iova(at.load(std::memory_order_relaxed)), bytes);
    });
    for (int turn = 0; turn != 200; ++turn) {
        const auto space =
            *SoftSpace::create(domain, {.options = {.level = Level::exact}, .pages = own_pages()});
        const Memory memory = Memory::own(buffer.bytes().first(100));
        const Iova iova = *space->map(memory, Direction::from_device, "short");
        at.store(iova.value(), std::memory_order_relaxed);
        EXPECT_TRUE(space->unmap(iova, memory.size(), Direction::from_device));
    }
}

} // namespace

} // namespace moat::tests
