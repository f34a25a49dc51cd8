// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Real threads: the page-walk race's case as reported, DMA maps of three BARs in a loop beside
// readers of numa_maps; and revocations beside maps.
#include "moat/mm/readers/proc.hpp"

#include "dma_map_fixture.hpp"

#include <array>
#include <atomic>
#include <gtest/gtest.h>
#include <thread>
#include <vector>

namespace moat::mm::tests {
namespace {

struct Bar {
    VirtualRange range;
    std::uint64_t iova;
    std::uint64_t leaves;
};

/// 64 MiB at IOVA 0, 128 GiB at 0x020000000000, 32 MiB at 0x040000000000.
constexpr std::array bars = {
    Bar{{VirtualAddress(0x1000'0000'0000), ByteCount(64 * mib)}, 0, 32},
    Bar{{VirtualAddress(0x2000'0000'0000), ByteCount(128 * gib)}, 0x0200'0000'0000, 128},
    Bar{{VirtualAddress(0x3000'0000'0000), ByteCount(32 * mib)}, 0x0400'0000'0000, 16}};

/// Map and unmap rounds; each maps 176 leaves and unmaps them.
constexpr unsigned rounds = 300;

struct Subject : Machine<> {
    Subject() {
        for (std::size_t i = 0; i != bars.size(); ++i)
            MOAT_CHECK(world.space.map(bars[i].range, world.bar_mapping(i * 64 * gib)).has_value(),
                       "three BARs fit");
    }

    [[nodiscard]] Result<Mapped> map(const Bar& bar) {
        return container.map_dma(Iova(bar.iova), bar.range.start(), bar.range.size(), read_write);
    }

    [[nodiscard]] Result<ByteCount> unmap(const Bar& bar) {
        return container.unmap_dma(Iova(bar.iova), bar.range.size());
    }
};

std::vector<std::jthread> start_readers(const Subject& subject, std::atomic<std::uint64_t>& read) {
    std::vector<std::jthread> readers;
    for (unsigned i = 0; i != 2; ++i)
        readers.emplace_back([&](const std::stop_token& stop) {
            while (!stop.stop_requested()) {
                numa_maps(subject.world.space, [](std::string_view) {});
                read.fetch_add(1, std::memory_order_relaxed);
            }
        });
    return readers;
}

TEST(ReportedCase, dma_maps_beside_readers_lose_no_leaf_and_meet_no_einval) {
    Subject subject;
    std::atomic<std::uint64_t> read{0};
    const auto readers = start_readers(subject, read);
    for (unsigned round = 0; round != rounds || read.load() < 10; ++round) {
        for (const Bar& bar : bars) {
            const auto mapped = subject.map(bar);
            ASSERT_TRUE(mapped) << "round " << round << ": " << to_string(mapped.error());
            ASSERT_EQ(mapped->steps, bar.leaves);
        }
        for (const Bar& bar : bars) {
            std::uint64_t leaves = 0;
            ASSERT_TRUE(subject.world.space.look_up(bar.range, [&](const LeafView&) { ++leaves; }));
            ASSERT_EQ(leaves, bar.leaves) << "round " << round << ": a reader took a leaf";
            const auto unmapped = subject.unmap(bar);
            ASSERT_TRUE(unmapped) << to_string(unmapped.error());
            ASSERT_EQ(*unmapped, bar.range.size());
        }
    }
}

TEST(ReportedCase, zaps_between_fault_and_map_never_surface) {
    Subject subject;
    std::atomic<std::uint64_t> read{0};
    const auto readers = start_readers(subject, read);
    const std::jthread zapper([&](const std::stop_token& stop) {
        while (!stop.stop_requested())
            for (const Bar& bar : bars)
                EXPECT_TRUE(subject.world.space.zap(bar.range));
    });
    for (unsigned round = 0; round != rounds / 5; ++round)
        for (const Bar& bar : bars) {
            const auto mapped = subject.map(bar);
            ASSERT_TRUE(mapped) << "round " << round << ": " << to_string(mapped.error());
            ASSERT_TRUE(subject.reach(bar.iova + bar.range.size().value() - 1));
            ASSERT_TRUE(subject.unmap(bar));
        }
}

TEST(DmaMapRevocation, nothing_is_reached_when_it_has_returned) {
    Subject subject;
    std::atomic<bool> done{false};
    std::atomic<std::uint64_t> mapped{0};
    std::jthread mapper([&] {
        while (!done.load())
            for (const Bar& bar : bars) {
                if (const auto result = subject.map(bar); result)
                    mapped.fetch_add(1);
                else
                    EXPECT_EQ(errno_name(result.error().code()), "EFAULT")
                        << to_string(result.error());
                EXPECT_TRUE(subject.unmap(bar));
            }
    });
    for (unsigned round = 0; round != rounds; ++round) {
        const std::uint64_t before = mapped.load();
        subject.world.space.revoke(subject.world.bar);
        for (const Bar& bar : bars)
            for (std::uint64_t offset = 0; offset < bar.range.size().value();
                 offset += bar.range.size().value() / 16)
                ASSERT_FALSE(subject.reach(bar.iova + offset)) << "round " << round;
        subject.world.space.restore(subject.world.bar);
        while (mapped.load() == before && !::testing::Test::HasFailure())
            std::this_thread::yield();
    }
    done = true;
}

} // namespace
} // namespace moat::mm::tests
