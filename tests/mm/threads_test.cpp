// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Real threads on one address space: the case of the page-walk race's report, and all operations at
// once. Run under ThreadSanitizer; the explorer runs the same code under chosen schedules.
#include "moat/mm/readers/proc.hpp"

#include "fixture.hpp"

#include <array>
#include <atomic>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace moat::mm::tests {
namespace {

/// The three BARs of the report: 64 MiB, 128 GiB, 32 MiB.
struct Bars {
    static constexpr std::array<VirtualRange, 3> ranges = {
        VirtualRange(VirtualAddress(0), ByteCount(64 * mib)),
        VirtualRange(VirtualAddress(0x0200'0000'0000), ByteCount(128 * gib)),
        VirtualRange(VirtualAddress(0x0400'0000'0000), ByteCount(32 * mib))};
    static constexpr std::array<std::uint64_t, 3> leaves = {32, 128, 16};

    [[nodiscard]] static Mapping<Sync> mapping(const World& world, std::size_t i) {
        return world.bar_mapping(i * 130 * gib / 2);
    }
};

/// Two threads that loop over numa_maps until stopped.
class Readers {
  public:
    explicit Readers(const World& world) {
        for (std::jthread& each : threads_)
            each = std::jthread([&world, this](const std::stop_token& stop) {
                while (!stop.stop_requested()) {
                    std::uint64_t bytes = 0;
                    numa_maps(world.space, [&](std::string_view line) { bytes += line.size(); });
                    read_.fetch_add(bytes + 1, std::memory_order_relaxed);
                }
            });
    }

    [[nodiscard]] std::uint64_t read() const { return read_.load(std::memory_order_relaxed); }

    /// Until both have finished another round, or many times the time of one.
    void await_progress() const {
        const std::uint64_t before = read();
        while (read() < before + 2)
            std::this_thread::yield();
    }

  private:
    std::atomic<std::uint64_t> read_{0};
    std::array<std::jthread, 2> threads_;
};

std::uint64_t count_leaves(const World& world, VirtualRange range) {
    std::uint64_t count = 0;
    EXPECT_TRUE(world.space.look_up(range, [&](const LeafView&) { ++count; }));
    return count;
}

TEST(ReportedCase, readers_take_no_leaf_away) {
    World world;
    const Readers readers(world);
    for (unsigned round = 0; round != 50; ++round) {
        for (std::size_t i = 0; i != Bars::ranges.size(); ++i) {
            ASSERT_TRUE(world.space.map(Bars::ranges[i], Bars::mapping(world, i)));
            ASSERT_TRUE(world.space.populate(Bars::ranges[i], Access::write));
        }
        readers.await_progress();
        for (std::size_t i = 0; i != Bars::ranges.size(); ++i) {
            EXPECT_EQ(count_leaves(world, Bars::ranges[i]), Bars::leaves[i]);
            ASSERT_TRUE(world.space.unmap(Bars::ranges[i]));
        }
    }
}

/// A second MMU, like an IOMMU: it maps the large BAR's leaves, and is notified when they are
/// removed.
struct Mirror final : Notifier<Sync> {
    static constexpr VirtualRange range = Bars::ranges[1];

    void invalidated(const InvalidationRequest<VirtualAddress>& request, Change change) override {
        if (change != Change::unmapped || request.start < range.start())
            return;
        for (std::uint64_t i = index(request.start); i <= index(request.last) && i < 128; ++i)
            leaves[i].store(0, std::memory_order_relaxed);
    }

    [[nodiscard]] static std::uint64_t index(VirtualAddress address) {
        return (address.value() - range.start().value()) >> pud_lg2;
    }

    std::array<std::atomic<std::uint64_t>, 128> leaves{};
};

TEST(ReportedCase, a_device_maps_all_of_it_while_leaves_go_and_come) {
    World world;
    Mirror mirror;
    world.space.add_notifier(mirror);
    ASSERT_TRUE(world.space.map(Mirror::range, Bars::mapping(world, 1)));
    {
        const Readers readers(world);
        std::jthread zapper([&](const std::stop_token& stop) {
            std::mt19937_64 random(1);
            while (!stop.stop_requested())
                EXPECT_TRUE(
                    world.space.zap(at(Mirror::range.start().value() + random() % 128 * gib, gib)));
        });
        std::jthread faulter([&](const std::stop_token& stop) {
            while (!stop.stop_requested())
                EXPECT_TRUE(world.space.populate(Mirror::range, Access::read));
        });
        for (unsigned round = 0; round != 200; ++round)
            for (std::uint64_t i = 0; i != 128; ++i) {
                const auto map = [&](const LeafView& leaf) {
                    mirror.leaves[i].store(leaf.physical.value(), std::memory_order_relaxed);
                };
                const VirtualAddress address(Mirror::range.start().value() + i * gib);
                const auto fault = world.space.with_leaf(address, Access::write, map);
                ASSERT_TRUE(fault) << to_string(fault.error());
                ASSERT_EQ(fault->leaf.size_lg2, pud_lg2);
            }
    }
    for (std::uint64_t i = 0; i != 128; ++i)
        if (const std::uint64_t mapped = mirror.leaves[i].load()) {
            const auto leaf =
                world.space.look_up(VirtualAddress(Mirror::range.start().value() + i * gib));
            ASSERT_TRUE(leaf) << "the device reaches leaf " << i << ", which is gone";
            EXPECT_EQ(leaf->physical.value(), mapped);
        }
    world.space.remove_notifier(mirror);
}

TEST(ReportedCase, nothing_is_mapped_when_a_revocation_has_returned) {
    World world;
    for (std::size_t i = 0; i != Bars::ranges.size(); ++i)
        ASSERT_TRUE(world.space.map(Bars::ranges[i], Bars::mapping(world, i)));
    const Readers readers(world);
    std::vector<std::jthread> faulters;
    for (std::size_t i = 0; i != Bars::ranges.size(); ++i)
        faulters.emplace_back([&, i](const std::stop_token& stop) {
            while (!stop.stop_requested()) {
                const auto populated = world.space.populate(Bars::ranges[i], Access::read);
                EXPECT_TRUE(populated || populated.error().code() == ErrorCode::io);
            }
        });
    for (unsigned round = 0; round != 100; ++round) {
        world.space.revoke(world.bar);
        for (const VirtualRange& range : Bars::ranges)
            ASSERT_EQ(count_leaves(world, range), 0U);
        world.space.restore(world.bar);
        std::this_thread::yield();
    }
}

/// Every call on overlapping ranges; at the end nothing may be lost.
TEST(EverythingAtOnce, leaves_nothing_behind) {
    Sizes sizes;
    sizes.nodes = {ByteCount(16 * mib), ByteCount(16 * mib)};
    World world(sizes);
    constexpr std::uint64_t base = 1ULL << 40;
    {
        const Readers readers(world);
        std::vector<std::jthread> threads;
        for (unsigned seed = 1; seed != 4; ++seed)
            threads.emplace_back([&world, seed] {
                std::mt19937_64 random(seed);
                for (unsigned step = 0; step != 3000; ++step) {
                    const std::uint64_t start = base + random() % 1024 * 4 * page;
                    const VirtualRange range = at(start, (1 + random() % 1024) * page);
                    switch (random() % 8) {
                    case 0:
                        (void)world.space.map(range, {}).has_value();
                        break;
                    case 1:
                        (void)world.space
                            .map(range, {.kind = VmaKind::device, .region = &world.device_memory})
                            .has_value();
                        break;
                    case 2:
                        EXPECT_TRUE(world.space.unmap(range));
                        break;
                    case 3:
                        (void)world.space.protect(range, random() % 2 == 0 ? read_only : read_write)
                            .has_value();
                        break;
                    case 4:
                        EXPECT_TRUE(world.space.zap(range));
                        break;
                    case 5:
                        (void)world.space.split_leaf(VirtualAddress(start), pmd_lg2);
                        break;
                    default:
                        (void)world.space
                            .populate(range, random() % 2 == 0 ? Access::read : Access::write)
                            .has_value();
                    }
                }
            });
    }
    ASSERT_TRUE(world.space.unmap(at(base, 64 * mib)));
    EXPECT_EQ(world.memory.frames_in_use(), 0U);
    Sync::barrier();
    EXPECT_EQ(world.memory.tables_in_use(), 1U);
}

} // namespace
} // namespace moat::mm::tests
