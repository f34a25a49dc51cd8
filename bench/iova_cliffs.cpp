// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// bench_iova's rows away from the hot pair: large sizes, placements, deferred releases, quarantine,
// small and nearly full apertures, two threads. Each beside the hot pair of the same run.
#include "iova_rows.hpp"

#include <array>
#include <functional>
#include <latch>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace moat::bench {

namespace {

using iova::Congruence;
using iova::Request;
using iova::When;

/// An allocation and its release, again and again.
void pairs(Allocator& allocator, const Request& request, When when, std::uint64_t count) {
    for (; count != 0; --count) {
        Request asked = request;
        asked.size = ByteCount(opaque(request.size.value()));
        const auto got = allocator.allocate(asked);
        if (!got || !allocator.release(*got, asked.size, when).has_value()) [[unlikely]]
            std::abort();
    }
}

using Run = std::function<void(std::uint64_t)>;

[[nodiscard]] Run pairs_of(Allocator& allocator, const Request& request, When when = When::now) {
    return [&allocator, request, when](std::uint64_t count) {
        pairs(allocator, request, when, count);
    };
}

/// The hot pair, in an allocator of its own.
struct HotPair {
    Allocator::Owner allocator = make(128_TiB, Guard{{}, 4_KiB});
    Run run = pairs_of(*allocator, {.size = pages(1)});
};

/// A row for each measure.
void beside_hot_pair(Suite& suite, const std::string& name, const Run& run, double goal,
                     const std::vector<Measure>& measures = {Measure::time,
                                                             Measure::instructions}) {
    static const HotPair hot;
    for (const Measure measure : measures) {
        if (suite.only_counts() && measure == Measure::time)
            continue;
        suite.compare({.name = name + (measure == Measure::time ? "" : ", instructions"),
                       .subject = {.run = run},
                       .against = "the hot pair: 1 page",
                       .other = {.run = hot.run},
                       .goal = goal,
                       .measure = measure});
    }
}

Allocator::Owner make_with(const Config& config) {
    const IovaRange range(Iova(0), 128_TiB);
    Config with_aperture = config;
    with_aperture.aperture = {&range, 1};
    with_aperture.guard = Guard{{}, 4_KiB};
    with_aperture.invalidation = {[](void*) { return Result<void>(); }, nullptr};
    auto made = Allocator::create(with_aperture);
    MOAT_CHECK(made.has_value(), "an allocator for a benchmark");
    return std::move(*made);
}

void fill(Allocator& allocator, unsigned percent) {
    std::mt19937 random(5);
    const std::uint64_t all = allocator.stats().free.value();
    while (allocator.stats().free.value() > all / 100 * (100 - percent))
        MOAT_CHECK(allocator.allocate({.size = pages(small_size(random))}).has_value(),
                   "there is room");
}

} // namespace

void special_pairs(Suite& suite) {
    auto allocator = make(128_TiB, Guard{{}, 4_KiB});
    for (const std::uint64_t count : {513, 4096, 65536})
        beside_hot_pair(suite, "pair, " + std::to_string(count) + " pages",
                        pairs_of(*allocator, {.size = pages(count)}), 3);
    const std::array<std::pair<const char*, Request>, 6> requests = {{
        {"8 pages aligned to 64K", {.size = pages(8), .placement = Congruence::aligned(16)}},
        {"8 pages below 4 GiB", {.size = pages(8), .last = Iova(0xffffffff)}},
        {"coherent 64K", {.size = 64_KiB, .placement = Congruence::natural(64_KiB)}},
        {"coherent 4M", {.size = 4_MiB, .placement = Congruence::natural(4_MiB)}},
        {"1 page below 16 MiB, aligned to 8K",
         {.size = pages(1), .placement = Congruence::aligned(13), .last = Iova(0xffffff)}},
        {"2M as its memory lies",
         {.size = 2_MiB, .placement = Congruence::with(PhysicalAddress(0x12345000), 21)}},
    }};
    for (const auto& [name, request] : requests)
        beside_hot_pair(suite, std::string("pair, ") + name, pairs_of(*allocator, request), 3);
}

namespace {

/// Deferred releases while 512 threads are idle that have deferred one each.
void beside_idle_threads(Suite& suite) {
    const std::string name = "pair, released after_invalidation, 512 idle threads";
    if (!suite.wants(name))
        return;
    constexpr unsigned idle = 512;
    const auto alone = make_with({});
    const auto crowded = make_with({});
    std::latch deferred(idle);
    std::latch done(1);
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i != idle; ++i)
        threads.emplace_back([&] {
            pairs(*crowded, {.size = pages(1)}, When::after_invalidation, 1);
            deferred.count_down();
            done.wait();
        });
    deferred.wait();
    suite.compare(
        {.name = name,
         .subject = {.run = pairs_of(*crowded, {.size = pages(1)}, When::after_invalidation)},
         .against = "no idle threads",
         .other = {.run = pairs_of(*alone, {.size = pages(1)}, When::after_invalidation)},
         .goal = 1.1});
    done.count_down();
}

} // namespace

void late_reuse(Suite& suite) {
    const auto deferring = make_with({});
    // By time only: the timer's thread confuses callgrind's counts.
    beside_hot_pair(suite, "pair, released after_invalidation",
                    pairs_of(*deferring, {.size = pages(1)}, When::after_invalidation), 4,
                    {Measure::time});
    beside_idle_threads(suite);
    const auto quarantining = make_with({.quarantine = {.bytes = 16_MiB, .entries = 256}});
    const Run quarantined = pairs_of(*quarantining, {.size = pages(1)});
    quarantined(1000);
    beside_hot_pair(suite, "pair, quarantine of 256", quarantined, 8);
}

void full_apertures(Suite& suite) {
    for (const unsigned percent : {88, 95, 99}) {
        auto allocator = make(4_GiB, Guard{{}, 4_KiB});
        fill(*allocator, percent);
        for (const std::uint64_t count : {1, 64}) {
            const std::string name = "pair, " + std::to_string(count) + " pages, 2^32 bytes " +
                                     std::to_string(percent) + " % full";
            if (!suite.wants(name))
                continue;
            static const HotPair hot;
            suite.compare({.name = name,
                           .subject = {.run = pairs_of(*allocator, {.size = pages(count)})},
                           .against = "the hot pair: 1 page",
                           .other = {.run = hot.run},
                           .goal = 5});
        }
    }
}

void small_apertures(Suite& suite) {
    const Script script(2, mixed_size);
    const auto wide = make(128_TiB, Guard{{}, 4_KiB});
    Replacer<MoatSubject> in_wide({*wide}, script);
    in_wide.at_random(500'000);
    for (unsigned bits = 32; bits <= 38; ++bits) {
        const std::string name = "mixed 1..512 pages, aperture 2^" + std::to_string(bits);
        if (!suite.wants(name))
            continue;
        const auto narrow = make(ByteCount(std::uint64_t{1} << bits), Guard{{}, 4_KiB});
        Replacer<MoatSubject> in_narrow({*narrow}, script);
        in_narrow.at_random(500'000);
        suite.compare({.name = name,
                       .subject = {.run = [&](std::uint64_t n) { in_narrow.at_random(n); }},
                       .against = "aperture 2^47",
                       .other = {.run = [&](std::uint64_t n) { in_wide.at_random(n); }},
                       .goal = 1.5});
    }
}

void two_threads(Suite& suite) {
    const auto arithmetic = [](unsigned, std::uint64_t count) {
        std::uint64_t x = 1;
        for (count *= 4; count != 0; --count)
            x = opaque(x * 3);
    };
    for (const std::uint64_t count : {1, 8, 16}) {
        const std::string name = "two threads, pairs of " + std::to_string(count) +
                                 (count == 1 ? " page" : " pages") + ": slow-down";
        if (!suite.wants(name))
            continue;
        auto allocator = make(128_TiB, Guard{{}, 4_KiB});
        suite.compare_threads({.name = name,
                               .subject =
                                   [&](unsigned, std::uint64_t n) {
                                       pairs(*allocator, {.size = pages(count)}, When::now, n);
                                   },
                               .against = "arithmetic",
                               .other = arithmetic,
                               .goal = 1.1});
    }
}

} // namespace moat::bench
