// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The registry against a sorted map, and the length of its searches.
#include "moat/dma/registry.hpp"
#include "moat/sync/real.hpp"

#include <array>
#include <atomic>
#include <cstdlib>
#include <gtest/gtest.h>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace moat::dma {

namespace {

using Subject = Registry<RealSync>;

Result<void> add(Subject& registry, std::uint64_t start, std::uint64_t size) {
    return registry.add(Iova(start), [&](PackedMapping& fresh) {
        fresh.set(Iova(start), ByteCount(size), Direction::bidirectional, {}, {});
    });
}

bool accept(const PackedMapping&) {
    return true;
}

/// Adds a mapping and retires it.
bool note_past(Subject& registry, std::uint64_t start, std::uint64_t size) {
    return add(registry, start, size) && registry.retire(Iova(start), {}, accept);
}

TEST(Registry, neighbours_are_those_of_a_sorted_map) {
    const char* const given = std::getenv("MOAT_SEED");
    const unsigned seed = given != nullptr ? std::stoul(given) : 7;
    SCOPED_TRACE("MOAT_SEED=" + std::to_string(seed));
    std::mt19937_64 random(seed);
    Subject registry(16);
    std::map<std::uint64_t, std::uint64_t> model;
    for (int step = 0; step != 30'000; ++step) {
        const std::uint64_t spread = random() % 64 == 0 ? 57 : 26;
        const std::uint64_t address = random() >> (64 - spread) & ~std::uint64_t{0xfff};
        if (random() % 2 == 0) {
            const auto above = model.lower_bound(address);
            if (above != model.end() && above->first == address)
                continue;
            ASSERT_TRUE(add(registry, address + step % 4096, 16));
            model[address] = address + step % 4096;
        } else if (!model.empty()) {
            auto gone = model.lower_bound(address);
            gone = gone == model.end() ? model.begin() : gone;
            ASSERT_TRUE(registry.remove(Iova(gone->second), accept));
            model.erase(gone);
        }
        const std::uint64_t asked = random() >> (64 - spread);
        fault::SearchSteps steps;
        const auto found = registry.around(Iova(asked), steps);
        std::optional<std::uint64_t> below;
        std::optional<std::uint64_t> above;
        for (auto at = model.lower_bound(asked & ~std::uint64_t{0xfff}); at != model.end(); ++at)
            if (at->second > asked) {
                above = at->second;
                break;
            }
        for (auto at = model.upper_bound(asked); at != model.begin();)
            if ((--at)->second <= asked) {
                below = at->second;
                break;
            }
        ASSERT_EQ(found.at_or_below ? std::optional(found.at_or_below->range.start().value())
                                    : std::nullopt,
                  below)
            << std::hex << asked;
        ASSERT_EQ(found.above ? std::optional(found.above->range.start().value()) : std::nullopt,
                  above)
            << std::hex << asked;
    }
}

TEST(Registry, what_does_not_begin_there_is_not_found) {
    Subject registry(16);
    ASSERT_TRUE(add(registry, 0x1010, 64));
    for (const std::uint64_t address : {0x1000ULL, 0x1011ULL, 0x2010ULL, ~0ULL})
        EXPECT_FALSE(registry.remove(Iova(address), accept));
    EXPECT_TRUE(registry.remove(Iova(0x1010), accept));
    EXPECT_FALSE(registry.remove(Iova(0x1010), accept));
}

TEST(Registry, a_search_is_short_whatever_lives) {
    Subject registry(1'000'000);
    std::mt19937_64 random(3);
    std::vector<std::uint64_t> live;
    for (std::uint64_t i = 0; i != 100'000; ++i) {
        live.push_back((i << 13) + (i / 2000 << 38));
        ASSERT_TRUE(add(registry, live.back(), 4096));
    }
    std::uint64_t longest = 0;
    for (int turn = 0; turn != 20'000; ++turn) {
        fault::SearchSteps steps;
        (void)registry.around(Iova(random() >> 7), steps);
        (void)registry.around(Iova(live[random() % live.size()] + 4096), steps);
        longest = std::max(longest, steps.count);
    }
    EXPECT_LE(longest, 4 * 64U);
}

TEST(Registry, each_living_mapping_is_visited_from_address_0_to_the_last) {
    Subject registry(16);
    const std::vector<std::uint64_t> starts = {0, 0x1000, 0x200010, (1ULL << 57) - 0x1000};
    for (const std::uint64_t start : starts)
        ASSERT_TRUE(add(registry, start, 16));
    std::vector<std::uint64_t> visited;
    registry.for_each(
        [&](const auto& each) { visited.push_back(each.mapping.range.start().value()); });
    EXPECT_EQ(visited, starts);
}

TEST(Registry, remembers_the_newest_past_mappings_however_late_it_is_asked) {
    Subject registry(4);
    const auto range = [](std::uint64_t i) { return IovaRange(Iova(i << 12), ByteCount(16)); };
    for (std::uint64_t i = 0; i != 100; ++i) {
        ASSERT_TRUE(note_past(registry, i << 12, 16));
        if (i % 7 != 0)
            continue;
        for (std::uint64_t back = 0; back <= i; ++back) {
            const auto latest = registry.latest_at(range(i - back));
            ASSERT_EQ(latest.has_value(), back < 4) << i << " " << back;
            if (latest) {
                EXPECT_EQ(latest->unmaps_since, back);
            }
        }
    }
}

TEST(Registry, past_mappings_are_noted_while_others_ask) {
    Subject registry(8);
    std::vector<std::jthread> threads;
    for (std::uint64_t thread = 0; thread != 2; ++thread)
        threads.emplace_back([&registry, thread] {
            for (std::uint64_t i = 0; i != 20'000; ++i)
                ASSERT_TRUE(note_past(registry, thread << 12, 16));
        });
    for (int turn = 0; turn != 2'000; ++turn)
        if (const auto latest = registry.latest_at({Iova(0), ByteCount(0x2000)})) {
            EXPECT_LT(latest->unmaps_since, 8U);
        }
    threads.clear();
    EXPECT_TRUE(registry.latest_at({Iova(0), ByteCount(0x2000)}));
}

TEST(Registry, keeps_every_field_of_a_mapping) {
    Subject registry(4, {.sampled_of = 1000});
    const std::array<std::uintptr_t, 3> frames = {1, 2, 3};
    const fault::Event mapped = {.time_ns = 7, .stack = frames};
    for (const auto direction :
         {Direction::to_device, Direction::from_device, Direction::bidirectional}) {
        const IovaRange range(Iova(0x7fff'ffff'f123), ByteCount(std::uint64_t{1} << 40));
        const PackedGuards guards(ByteCount(1), ByteCount(~std::uint64_t{0}));
        ASSERT_TRUE(registry.add(range.start(), [&](PackedMapping& fresh) {
            fresh.set_part(range.start(), range.size(), guards, direction, "label", mapped);
        }));
        const auto found = registry.find_at(range.start());
        ASSERT_TRUE(found);
        EXPECT_EQ(found->mapping.range, range);
        EXPECT_EQ(found->mapping.guard_before, ByteCount(4096));
        EXPECT_EQ(found->mapping.guard_after, ByteCount(0xffff'ffffULL << 12));
        EXPECT_EQ(found->mapping.allows, allows_of(direction));
        EXPECT_EQ(found->mapping.label, "label");
        EXPECT_EQ(found->mapping.mapped.time_ns, 7U);
        EXPECT_EQ(found->mapping.mapped.stack.data(), frames.data());
        EXPECT_EQ(found->mapping.mapped.stack.size(), frames.size());
        EXPECT_EQ(found->mapping.sampled_of, 1000U);
        EXPECT_EQ(found->direction, direction);
        EXPECT_TRUE(found->is_part);
        EXPECT_FALSE(registry.remove(range.start(), [&](const PackedMapping& each) {
            return each.is(range.start(), range.size(), direction); // a part is no whole mapping
        }));
        (void)registry.with(range.start(), [](PackedMapping& each) { each.deny_all(); });
        EXPECT_EQ(registry.find_at(range.start())->mapping.allows, fault::Allows::nothing);
        EXPECT_EQ(registry.find_at(range.start())->direction, direction);
        ASSERT_TRUE(registry.remove(range.start(), accept));
    }
}

TEST(Registry, the_last_of_two_threads_that_unmap_a_page_in_turn_is_the_latest) {
    Subject registry(64);
    std::atomic<unsigned> turn{0};
    constexpr unsigned turns = 2'000;
    std::vector<std::jthread> threads;
    for (unsigned thread = 0; thread != 2; ++thread)
        threads.emplace_back([&, thread] {
            for (;;) {
                const unsigned now = turn.load(std::memory_order_acquire);
                if (now >= turns)
                    return;
                if (now % 2 != thread) {
                    std::this_thread::yield();
                    continue;
                }
                EXPECT_TRUE(note_past(registry, 0x1000, 16 + now));
                if (now % 97 == 0) {
                    EXPECT_EQ(
                        registry.latest_at({Iova(0x1000), ByteCount(1)})->mapping.range.size(),
                        ByteCount(16 + now));
                }
                turn.store(now + 1, std::memory_order_release);
            }
        });
    threads.clear();
    EXPECT_EQ(registry.latest_at({Iova(0x1000), ByteCount(1)})->mapping.range.size(),
              ByteCount(16 + turns - 1));
}

TEST(Registry, a_history_that_outran_a_query_has_nothing_older_than_what_it_lost) {
    Subject registry(8);
    std::jthread([&] { ASSERT_TRUE(note_past(registry, 0x1000, 16)); }).join();
    for (std::uint64_t i = 0; i != 1'000; ++i) // the first of these was unmapped later at 0x1000
        ASSERT_TRUE(note_past(registry, i == 0 ? 0x1000 : 0x2000 + (i << 12), 16));
    EXPECT_FALSE(registry.latest_at({Iova(0x1000), ByteCount(16)}));
    EXPECT_TRUE(registry.latest_at({Iova(0x2000 + (999 << 12)), ByteCount(16)}));
}

TEST(Registry, threads_add_and_remove_while_others_search) {
    Subject registry(64);
    std::vector<std::jthread> threads;
    for (std::uint64_t thread = 0; thread != 3; ++thread)
        threads.emplace_back([&registry, thread] {
            for (std::uint64_t turn = 0; turn != 3'000; ++turn) {
                const std::uint64_t page = (turn % 700) * 3 + thread;
                EXPECT_TRUE(add(registry, page << 12, 100));
                fault::SearchSteps steps;
                const auto found = registry.around(Iova((page << 12) + 200), steps);
                EXPECT_TRUE(found.at_or_below &&
                            found.at_or_below->range.start() == Iova(page << 12));
                EXPECT_TRUE(registry.remove(Iova(page << 12), accept));
            }
        });
}

} // namespace

} // namespace moat::dma
