// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// bench_iova's rows that are counted, not timed: the steps of a search, and how much of a 32-bit
// aperture can be payload.
#include "iova_rows.hpp"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace moat::bench {

void search_steps(Suite& suite) {
    const std::string holes = "search for 64 pages over 100 K one-page holes";
    if (suite.wants(holes)) {
        auto allocator = make(256_TiB);
        std::vector<Iova> ranges;
        for (int i = 0; i != 200'000; ++i)
            ranges.push_back(*allocator->allocate({.size = pages(1)}));
        std::ranges::sort(ranges);
        for (std::size_t i = 0; i < ranges.size(); i += 2)
            give_back(*allocator, ranges[i], pages(1));
        allocator->rest();
        // Whatever the depot still has goes back as well.
        (void)!allocator->allocate({.size = 512_TiB}).has_value();
        std::uint64_t most = 0;
        for (int i = 0; i != 100; ++i) {
            const std::uint64_t before = allocator->stats().search_steps;
            MOAT_CHECK(allocator->allocate({.size = pages(64)}).has_value(), "there is room");
            most = std::max(most, allocator->stats().search_steps - before);
        }
        suite.report(
            {.name = holes, .value = static_cast<double>(most), .unit = "steps, most", .goal = 32});
    }
    const std::string failure = "first failure with 1 M live ranges, draining excluded";
    if (suite.wants(failure)) {
        auto allocator = make(ByteCount((std::uint64_t{3} << 20) << 12), Guard{{}, 4_KiB});
        std::uint64_t live = 0;
        while (live != 1'000'000 && allocator->allocate({.size = pages(1)}).has_value())
            ++live;
        MOAT_CHECK(live == 1'000'000, "1 M ranges fit");
        while (allocator->allocate({.size = pages(100)}).has_value())
            ++live;
        const std::uint64_t before = allocator->stats().search_steps;
        MOAT_CHECK(!allocator->allocate({.size = pages(100)}).has_value(), "full");
        suite.report({.name = failure,
                      .value = static_cast<double>(allocator->stats().search_steps - before),
                      .unit = "steps",
                      .goal = 32});
    }
}

namespace {

// How much of a 32-bit aperture is payload, 1..16 pages with a page of guard.

double share(const std::uint64_t payload) {
    return 100.0 * static_cast<double>(payload) / static_cast<double>(pages_32_bits);
}

struct Filled {
    Allocator::Owner allocator = make(4_GiB, Guard{{}, 4_KiB});
    std::vector<std::pair<Iova, std::uint64_t>> ranges = {};
    std::uint64_t payload = 0;

    bool add(std::uint64_t count) {
        const auto got = allocator->allocate({.size = pages(count)});
        if (!got)
            return false;
        ranges.emplace_back(*got, count);
        payload += count;
        return true;
    }

    void drop(std::size_t i) {
        std::swap(ranges[i], ranges.back());
        give_back(*allocator, ranges.back().first, pages(ranges.back().second));
        payload -= ranges.back().second;
        ranges.pop_back();
    }
};

} // namespace

void payload_share(Suite& suite) {
    const auto row = [&](const std::string& name, double value, double goal) {
        suite.report({.name = name,
                      .value = value,
                      .unit = "% payload",
                      .better = Better::higher,
                      .goal = goal});
    };
    std::mt19937 random(3);
    const std::string fresh = "32-bit aperture, 1..16 + 1 pages, filled until it fails";
    if (suite.wants(fresh)) {
        Filled filled;
        while (filled.add(small_size(random))) {
        }
        row(fresh, share(filled.payload), 88.5);
    }
    const std::string churn = "the same, held under churn with < 0.1 % failures";
    if (suite.wants(churn)) {
        // Held at a level, the failures counted; the highest level that keeps below 0.1 %.
        double held = 0;
        for (double level = 84; level < 90; level += 0.5) {
            Filled filled;
            std::uint64_t failures = 0;
            constexpr std::uint64_t operations = 1'000'000;
            for (std::uint64_t i = 0; i != operations; ++i) {
                const std::uint64_t count = small_size(random);
                while (share(filled.payload + count) > level)
                    filled.drop(random() % filled.ranges.size());
                failures += filled.add(count) ? 0 : 1;
            }
            if (static_cast<double>(failures) >= 0.001 * operations)
                break;
            held = level;
        }
        row(churn, held, 85);
    }
    const std::string pinned = "the same, with one page pinned in every 2 MiB";
    if (suite.wants(pinned)) {
        Filled filled;
        for (std::uint64_t at = 1_MiB .value(); at < 4_GiB .value(); at += 2_MiB .value())
            MOAT_CHECK(filled.allocator->allocate({.size = pages(1), .at = Iova(at)}).has_value(),
                       "the aperture is empty");
        while (filled.add(small_size(random))) {
        }
        row(pinned, share(filled.payload + 2048), 88);
    }
}

} // namespace moat::bench
