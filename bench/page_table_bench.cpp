// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the page-table engine costs beside hand-written loops over the same bits, in the same run.
// The hand-written sides know one format, check what a careful author would, and do nothing else.
#include "moat/page_table/formats/amd_v1.hpp"
#include "moat/page_table/formats/arm_stage1.hpp"
#include "moat/page_table/formats/arm_stage2.hpp"
#include "moat/page_table/formats/riscv.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"

#include "page_table_rows.hpp"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using namespace moat;
using namespace moat::bench;
using namespace moat::literals;

/// Sixteen runs of 256 entries fit the first-level cache beside what else is needed.
constexpr std::uint64_t runs = 16;
constexpr std::uint64_t run_bytes = 256 * page;

template <class Format>
bench::Side map_256(Fixture<Format>& fixture) {
    return {.run =
                [&fixture](std::uint64_t count) {
                    for (std::uint64_t i = 0; i != count; ++i)
                        fixture.map(i * run_bytes, run_bytes, 0x100001000);
                },
            .prepare = [&fixture] { fixture.unmap(0, runs * run_bytes); },
            .most = runs};
}

bench::Side fill_256(std::vector<std::uint64_t>& entries, auto fill) {
    return {.run =
                [&entries, fill](std::uint64_t count) {
                    for (std::uint64_t i = 0; i != count; ++i)
                        if (!fill(&entries[i * 256], 256U, 0x100001000 | writable_page))
                            std::abort();
                },
            .prepare = [&entries] { std::fill(entries.begin(), entries.end(), 0); },
            .most = runs};
}

void map_runs(bench::Suite& suite) {
    Fixture<X86> fixture;
    fixture.build(0, runs * run_bytes);
    std::vector<std::uint64_t> entries(runs * 256);
    suite.compare({.name = "map 256 x 4K, built tables",
                   .subject = map_256(fixture),
                   .against = "256 checked relaxed stores",
                   .other = fill_256(entries, by_hand::fill),
                   .goal = 1.25});
    suite.compare({.name = "map 256 x 4K, built tables (2)",
                   .subject = map_256(fixture),
                   .against = "the same, unrolled by 4",
                   .other = fill_256(entries, by_hand::fill_by_4),
                   .goal = 2.5});
}

/// map + unmap of one leaf of `Size` at each multiple of it within [0, Within).
template <std::uint64_t Size, std::uint64_t Within, class Format>
bench::Side map_unmap(Fixture<Format>& fixture) {
    return {.run = [&fixture, at = std::uint64_t{0}](std::uint64_t count) mutable {
        for (; count != 0; --count) {
            fixture.map(at, Size, 0x100000000 + at);
            fixture.unmap(at, Size);
            at = (at + Size) % Within;
        }
    }};
}

void map_unmap_one(bench::Suite& suite) {
    Fixture<X86> fixture;
    fixture.build(0, gigabyte);
    suite.compare({.name = "map + unmap 4K, sequential in 1G",
                   .subject = map_unmap<page, gigabyte>(fixture),
                   .against = "a 4-level walk and checked store, twice",
                   .other = {.run =
                                 [root = root_of(fixture),
                                  at = std::uint64_t{0}](std::uint64_t count) mutable {
                                     for (; count != 0; --count) {
                                         if (!by_hand::map_one(
                                                 root, at, (0x100000000 + at) | writable_page) ||
                                             !by_hand::unmap_one(root, at))
                                             std::abort();
                                         at = (at + page) % gigabyte;
                                     }
                                 }},
                   .goal = 2.5});
    Fixture<X86> large;
    large.build(0, page); // the upper tables
    large.unmap(0, page);
    Fixture<X86> huge;
    huge.map(0, gigabyte, 0);
    huge.unmap(0, gigabyte);
    suite.compare({.name = "map + unmap 1G, instructions",
                   .subject = map_unmap<gigabyte, 64 * gigabyte>(huge),
                   .against = "map + unmap 4K",
                   .other = map_unmap<page, gigabyte>(fixture),
                   .goal = 1.0,
                   .measure = bench::Measure::instructions});
}

/// A thousand random addresses among 512 pages.
std::vector<std::uint64_t> hot_addresses() {
    std::vector<std::uint64_t> addresses(1024);
    std::uint64_t random = 1;
    for (std::uint64_t& each : addresses) {
        random = random * 6364136223846793005 + 1442695040888963407;
        each = (random >> 33) % (512 * page);
    }
    return addresses;
}

template <class Format>
bench::Side translate_hot(Fixture<Format>& fixture, const std::vector<std::uint64_t>& addresses) {
    return {.run = [&](std::uint64_t count) {
        const auto reader = fixture.table.reader();
        for (std::uint64_t i = 0; i != count; ++i) {
            const auto found = reader.translate(typename Format::Input(addresses[i % 1024]));
            keep(found ? found->physical().value() : ~std::uint64_t{0});
        }
    }};
}

void translate(bench::Suite& suite) {
    Fixture<X86> fixture;
    fixture.map(0, 512 * page, 0x100001000);
    const std::vector<std::uint64_t> addresses = hot_addresses();
    suite.compare({.name = "translate, tables hot",
                   .subject = translate_hot(fixture, addresses),
                   .against = "a 4-level walk by hand",
                   .other = {.run =
                                 [&](std::uint64_t count) {
                                     std::uint64_t* const root = root_of(fixture);
                                     for (std::uint64_t i = 0; i != count; ++i)
                                         keep(by_hand::translate(root, addresses[i % 1024]));
                                 }},
                   .goal = 1.7});
}

/// What a format costs beside x86-64, level for level.
template <class Format>
void format_beside_x86(bench::Suite& suite, const std::string& name, double goal = 1.5) {
    const std::vector<std::uint64_t> addresses = hot_addresses();
    Fixture<Format> format;
    Fixture<X86> x86;
    format.build(0, gigabyte);
    x86.build(0, gigabyte);
    const auto row = [&](const std::string& what, bench::Side subject, bench::Side other) {
        suite.compare({.name = name + ": " + what,
                       .subject = std::move(subject),
                       .against = "x86-64",
                       .other = std::move(other),
                       .goal = goal});
    };
    row("map + unmap 4K", map_unmap<page, gigabyte>(format), map_unmap<page, gigabyte>(x86));
    row("map 256 x 4K", map_256(format), map_256(x86));
    format.unmap(0, runs * run_bytes);
    x86.unmap(0, runs * run_bytes);
    format.map(0, 512 * page, 0x100001000);
    x86.map(0, 512 * page, 0x100001000);
    row("translate, tables hot", translate_hot(format, addresses), translate_hot(x86, addresses));
}

struct OneField {
    std::uint64_t sum = 0;

    void leaf(VirtualAddress, const auto& found) { sum += found.word(); }
};

struct AllFields {
    std::uint64_t sum = 0;

    void leaf(VirtualAddress at, const auto& found) {
        sum += at.value() ^ found.physical().value() ^ found.size().value() ^
               static_cast<std::uint64_t>(found.attributes());
    }
};

/// The nested loop that an author without the engine writes, with the same decoding.
std::uint64_t nested_loop(std::uint64_t* root, std::uint64_t start, std::uint64_t end) {
    using by_hand::load;
    std::uint64_t sum = 0;
    const auto below = [](std::uint64_t entry) {
        return reinterpret_cast<std::uint64_t*>(entry & 0xffffffffff000);
    };
    const auto decode = [&sum](std::uint64_t entry, std::uint64_t at, unsigned shift) {
        const std::uint64_t size = std::uint64_t{1} << shift;
        const std::uint64_t physical = entry & 0xffffffffff000 & ~(size - 1);
        std::uint64_t attributes = 1;
        attributes |= (entry & 0x2) != 0 ? 1U << 1 : 0;
        attributes |= (entry >> 63) == 0 ? 1U << 2 : 0;
        attributes |= (entry & 0x4) != 0 ? 1U << 3 : 0;
        attributes |= (entry & 0x10) != 0 ? 1U << 5 : 0;
        attributes |= (entry & 0x100) != 0 ? 1U << 4 : 0;
        attributes |= (entry & 0x200) != 0 ? 1U << 6 : 0;
        attributes |= (entry & 0x20) != 0 ? 1U << 8 : 0;
        attributes |= (entry & 0x40) != 0 ? 1U << 9 : 0;
        sum += at ^ physical ^ size ^ attributes;
    };
    for (std::uint64_t at = start; at < end;) {
        const std::uint64_t e3 = load(root[(at >> 39) & 511]);
        if ((e3 & 1) == 0) {
            at = (at | ((std::uint64_t{1} << 39) - 1)) + 1;
            continue;
        }
        const std::uint64_t e2 = load(below(e3)[(at >> 30) & 511]);
        if ((e2 & 0x81) != 1) {
            if ((e2 & 1) != 0)
                decode(e2, at, 30);
            at = (at | ((std::uint64_t{1} << 30) - 1)) + 1;
            continue;
        }
        const std::uint64_t e1 = load(below(e2)[(at >> 21) & 511]);
        if ((e1 & 0x81) != 1) {
            if ((e1 & 1) != 0)
                decode(e1, at, 21);
            at = (at | ((std::uint64_t{1} << 21) - 1)) + 1;
            continue;
        }
        const std::uint64_t* leaves = below(e1);
        for (unsigned i = (at >> 12) & 511; i != 512 && at < end; ++i, at += page)
            if (const std::uint64_t entry = load(leaves[i]); (entry & 1) != 0)
                decode(entry, at, 12);
    }
    return sum;
}

void walk(bench::Suite& suite) {
    Fixture<X86> fixture;
    fixture.map(0, gigabyte, 0x100001000);
    const auto walk_with = [&]<class Visitor>() {
        return bench::Side{.run = [&](std::uint64_t count) {
            for (; count != 0; --count) {
                Visitor visitor;
                const auto reader = fixture.table.reader();
                keep(reader.walk(VirtualAddress(0), 1_GiB, visitor));
                keep(visitor.sum);
            }
        }};
    };
    Buffer entries(gigabyte / page * 8);
    const auto scan = [&](std::uint64_t count) {
        const auto* const words = reinterpret_cast<const std::uint64_t*>(entries.span().data());
        for (; count != 0; --count) {
            std::uint64_t sum = 0;
            for (std::uint64_t i = 0; i != gigabyte / page; ++i)
                sum += by_hand::load(words[i]);
            keep(sum);
        }
    };
    suite.compare({.name = "walk 1G of 4K leaves, one field",
                   .subject = walk_with.template operator()<OneField>(),
                   .against = "a relaxed-atomic scan",
                   .other = {.run = scan},
                   .goal = 1.5});
    suite.compare({.name = "walk 1G of 4K leaves, all fields",
                   .subject = walk_with.template operator()<AllFields>(),
                   .against = "a nested loop with the same decoding",
                   .other = {.run =
                                 [&](std::uint64_t count) {
                                     for (; count != 0; --count)
                                         keep(nested_loop(root_of(fixture), 0, gigabyte));
                                 }},
                   .goal = 1.15});
}

void two_threads(bench::Suite& suite) {
    Fixture<X86> fixture;
    fixture.build(0, 2 * gigabyte);
    suite.compare_threads({.name = "two threads on disjoint ranges, slow-down",
                           .subject =
                               [&](unsigned thread, std::uint64_t count) {
                                   std::uint64_t at = 0;
                                   for (; count != 0; --count) {
                                       fixture.map(thread * gigabyte + at, page, at);
                                       fixture.unmap(thread * gigabyte + at, page);
                                       at = (at + page) % gigabyte;
                                   }
                               },
                           .against = "a loop of pure arithmetic",
                           .other =
                               [](unsigned thread, std::uint64_t count) {
                                   std::uint64_t value = thread;
                                   for (; count != 0; --count) {
                                       value = value * 6364136223846793005 + 1442695040888963407;
                                       keep(value);
                                   }
                               },
                           .goal = 1.3});
}

} // namespace

int main(int argc, char** argv) {
    bench::Suite suite("page_table", argc, argv);
    map_runs(suite);
    map_unmap_one(suite);
    translate(suite);
    walk(suite);
    bench::map_unmap_runs(suite);
    bench::beside_one_page(suite);
    bench::across_tables(suite);
    bench::whole_gigabytes(suite);
    bench::made_and_removed(suite);
    two_threads(suite);
    format_beside_x86<formats::VtdSecondStage<4>>(suite, "VT-d");
    format_beside_x86<formats::AmdV1<>>(suite, "AMD v1, may grow", 1.4);
    format_beside_x86<formats::AmdV1<FlagUpdate::none, 4>>(suite, "AMD v1, 4 levels", 1.4);
    format_beside_x86<formats::ArmStage1<>>(suite, "Arm stage 1");
    format_beside_x86<formats::ArmStage2<formats::ArmConfig{.input_bits = 48}>>(suite,
                                                                                "Arm stage 2");
    format_beside_x86<formats::RiscV<formats::RiscvConfig{.levels = 4}>>(suite, "RISC-V Sv48");
    format_beside_x86<formats::RiscV<formats::RiscvConfig{.levels = 4, .svnapot = true}>>(
        suite, "RISC-V Sv48 + Svnapot");
    return suite.finish();
}
