// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// bench_iova's rows of one thread that allocates and releases at once, or one after another, and
// what the guard costs there. Against mimalloc, or against the allocator without a guard.
#include "iova_rows.hpp"

#include <memory>
#include <string>
#include <vector>

namespace moat::bench {

namespace {

// One range allocated and released, again and again, beside `live` others.

void pair_loop(Allocator& allocator, std::uint64_t count, ByteCount size) {
    for (; count != 0; --count) {
        const ByteCount asked(opaque(size.value()));
        const auto got = allocator.allocate({.size = asked});
        if (!got) [[unlikely]]
            std::abort();
        give_back(allocator, Iova(opaque(got->value())), asked);
    }
}

/// As many ranges of one page, and as many blocks of memory, as are to stay.
struct Live {
    Live(Allocator& from, std::size_t count) : allocator(from) {
        for (std::size_t i = 0; i != count; ++i) {
            ranges.push_back(*allocator.allocate({.size = pages(1)}));
            blocks.push_back(mi_malloc(64));
        }
    }

    ~Live() {
        for (const Iova each : ranges)
            give_back(allocator, each, pages(1));
        std::ranges::for_each(blocks, mi_free);
    }

    Allocator& allocator;
    std::vector<Iova> ranges;
    std::vector<void*> blocks;
};

struct HotCase {
    std::uint64_t pages;
    ByteCount guard;
    std::size_t live;

    [[nodiscard]] std::string name() const {
        return std::to_string(pages) + (pages == 1 ? " page" : " pages") + ", guard " +
               (guard == 0_B     ? "0"
                : guard == 4_KiB ? "4K"
                                 : "1M") +
               ", " +
               (live == 0      ? "none"
                : live == 1000 ? "1 K"
                               : "100 K") +
               " live";
    }
};

struct Stage {
    Stage(ByteCount width, std::size_t live)
        : allocator(make(256_TiB, Guard{{}, width})), staying(*allocator, live) {}

    /// Each sample has another range and another block. A processor that compares the low bits
    /// of addresses first is slower where those of a record and of a field happen to be the
    /// same, which would else last for a whole row.
    void move_on(std::uint64_t count) {
        if (moved.size() == 64)
            settle();
        moved.emplace_back(*allocator->allocate({.size = pages(count)}), pages(count));
        blocks.push_back(mi_malloc(64));
    }

    void settle() {
        for (const auto& [at, size] : moved)
            give_back(*allocator, at, size);
        std::ranges::for_each(blocks, mi_free);
        moved.clear();
        blocks.clear();
    }

    ~Stage() { settle(); }

    Stage(const Stage&) = delete;
    Stage& operator=(const Stage&) = delete;

    Allocator::Owner allocator;
    Live staying;
    std::vector<std::pair<Iova, ByteCount>> moved = {};
    std::vector<void*> blocks = {};
};

struct Case {
    Stage& stage;
    std::uint64_t pages;
    std::vector<double> samples = {};
};

void spread(Suite& suite, std::vector<Case>& cases) {
    const std::string name = "pair, slowest of all these cases";
    if (!suite.wants(name))
        return;
    // In turn, so that a machine which is slower for a while is so for all.
    for (int round = 0; round != Suite::repetitions; ++round)
        for (Case& each : cases) {
            each.stage.move_on(each.pages);
            each.samples.push_back(nanoseconds(
                [&](std::uint64_t n) { pair_loop(*each.stage.allocator, n, pages(each.pages)); },
                50'000));
        }
    std::vector<double> medians;
    for (Case& each : cases) {
        const auto middle = each.samples.begin() + Suite::repetitions / 2;
        std::ranges::nth_element(each.samples, middle);
        medians.push_back(*middle);
    }
    suite.report({.name = name,
                  .value = std::ranges::max(medians),
                  .unit = "ns",
                  .against = "the fastest of them",
                  .against_value = std::ranges::min(medians),
                  .goal = 1.3});
}

} // namespace

void hot_pairs(Suite& suite) {
    std::vector<std::unique_ptr<Stage>> stages;
    std::vector<Case> cases;
    for (const ByteCount guard : {0_B, 4_KiB, 1_MiB})
        for (const std::size_t live : {0, 1000, 100'000}) {
            Stage& stage = *stages.emplace_back(std::make_unique<Stage>(guard, live));
            for (const std::uint64_t count : {1, 8, 32}) {
                cases.push_back({stage, count});
                const auto move_on = [&] { stage.move_on(count); };
                const Side ours{
                    .run = [&](std::uint64_t n) { pair_loop(*stage.allocator, n, pages(count)); },
                    .prepare = move_on};
                const Side theirs{.run = mimalloc_pair_loop, .prepare = move_on};
                suite.compare({.name = "pair, " + HotCase{count, guard, live}.name(),
                               .subject = ours,
                               .against = "mi_malloc(64) + mi_free",
                               .other = theirs,
                               .goal = 1.0});
            }
        }
    spread(suite, cases);
}

void larger_pair(Suite& suite) {
    auto allocator = make(256_TiB, Guard{{}, 4_KiB});
    const Live staying(*allocator, 100'000);
    suite.compare(
        {.name = "pair, 128 pages, guard 4K, 100 K live",
         .subject = {.run = [&](std::uint64_t n) { pair_loop(*allocator, n, pages(128)); }},
         .against = "mi_malloc(64) + mi_free",
         .other = {.run = mimalloc_pair_loop},
         .goal = 1.5});
}

void ring(Suite& suite) {
    auto allocator = make(256_TiB, Guard{{}, 4_KiB});
    MoatSubject subject{*allocator};
    MimallocSubject memory;
    const Script script(1, small_size);
    Replacer ours(subject, script);
    Replacer theirs(memory, script);
    // Both start aged: 16 lives of each range, ended in random order.
    ours.at_random(16 * Script::slots);
    theirs.at_random(16 * Script::slots);
    suite.compare({.name = "ring of 4096, 1..16 pages, guard 4K",
                   .subject = {.run = [&](std::uint64_t n) { ours.in_order(n); }},
                   .against = "mi_malloc(64) + mi_free, in the same order",
                   .other = {.run = [&](std::uint64_t n) { theirs.in_order(n); }},
                   .goal = 1.0});
}

void cost_of_the_guard(Suite& suite) {
    auto with = make(256_TiB, Guard{{}, 4_KiB});
    auto without = make(256_TiB, Guard{});
    for (const std::uint64_t count : {1, 8, 32, 128})
        suite.compare(
            {.name = "cost of the guard, pair of " + std::to_string(count) + " pages",
             .subject = {.run = [&](std::uint64_t n) { pair_loop(*with, n, pages(count)); }},
             .against = "guard 0",
             .other = {.run = [&](std::uint64_t n) { pair_loop(*without, n, pages(count)); }},
             .goal = 1.02,
             .measure = Measure::instructions});
    MoatSubject guarded{*with};
    MoatSubject bare{*without};
    const Script script(4, small_size);
    Replacer guarded_ring(guarded, script);
    Replacer bare_ring(bare, script);
    guarded_ring.in_order(100'000);
    bare_ring.in_order(100'000);
    suite.compare({.name = "cost of the guard, ring of 4096",
                   .subject = {.run = [&](std::uint64_t n) { guarded_ring.in_order(n); }},
                   .against = "guard 0",
                   .other = {.run = [&](std::uint64_t n) { bare_ring.in_order(n); }},
                   .goal = 1.02,
                   .measure = Measure::instructions,
                   .counted = 100'000});
}

} // namespace moat::bench
