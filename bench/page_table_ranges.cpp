// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a range of many leaves costs: map and unmap of runs, across tables, of a gigabyte, and of a
// table that is made and removed.
#include "page_table_rows.hpp"

#include <string>

namespace moat::bench {

namespace {

/// Aligned to no leaf but a page's.
constexpr std::uint64_t odd_memory = 0x100001000;

/// map + unmap of `pages` at `at`, whose tables stay.
Side map_unmap_run(Fixture<X86>& fixture, std::uint64_t at, std::uint64_t pages) {
    return {.run = [&fixture, at, size = pages * page](std::uint64_t count) {
        for (; count != 0; --count) {
            fixture.map(at, size, odd_memory);
            fixture.unmap(at, size);
        }
    }};
}

Side fill_clear(std::vector<std::uint64_t>& entries, unsigned pages) {
    return {.run = [&entries, pages](std::uint64_t count) {
        for (; count != 0; --count)
            if (!by_hand::fill_by_4(entries.data(), pages, odd_memory | writable_page) ||
                !by_hand::clear_by_4(entries.data(), pages))
                std::abort();
    }};
}

/// Unmaps a gigabyte after the other, tables included; an operation is an entry.
Side unmap_gigabytes(Fixture<X86>& fixture) {
    constexpr std::uint64_t entries = gigabyte / page;
    constexpr std::uint64_t most = 2;
    return {.run =
                [&fixture](std::uint64_t count) {
                    auto edit = fixture.table.edit(fixture.ignore);
                    for (std::uint64_t at = 0; count >= entries; count -= entries, at += gigabyte)
                        if (!edit.unmap(VirtualAddress(at), ByteCount(gigabyte)))
                            std::abort();
                    edit.finish();
                },
            .prepare =
                [&fixture] {
                    fixture.unmap(0, most * gigabyte);
                    fixture.map(0, most * gigabyte, odd_memory);
                },
            .most = most * entries};
}

} // namespace

void map_unmap_runs(Suite& suite) {
    Fixture<X86> fixture;
    fixture.build(0, 512 * page);
    std::vector<std::uint64_t> entries(512);
    for (const unsigned pages : {16U, 64U, 256U, 512U})
        suite.compare({.name = "map + unmap " + std::to_string(pages) + " x 4K, built tables",
                       .subject = map_unmap_run(fixture, 0, pages),
                       .against = "as many checked stores there and back, unrolled by 4",
                       .other = fill_clear(entries, pages),
                       .goal = 3});
}

/// A range costs what a page costs and two stores a leaf.
void beside_one_page(Suite& suite) {
    Fixture<X86> fixture;
    fixture.build(0, 1024 * page);
    std::vector<std::uint64_t> entries(512);
    const auto row = [&](const std::string& name, std::uint64_t at, unsigned pages) {
        suite.compare({.name = "map + unmap " + name,
                       .subject = map_unmap_run(fixture, at, pages),
                       .against = "a page, and as many checked stores as leaves there and back",
                       .other = {.run =
                                     [page_pair = map_unmap_run(fixture, 0, 1),
                                      stores = fill_clear(entries, pages)](std::uint64_t count) {
                                         for (; count != 0; --count) {
                                             page_pair.run(1);
                                             stores.run(1);
                                         }
                                     }},
                       .goal = 1.5});
    };
    row("64K of 4K leaves", 0, 16);
    row("1M of 4K leaves", 0, 256);
    row("2M of 4K leaves, a page off", page, 512);
}

void across_tables(Suite& suite) {
    Fixture<X86> fixture;
    fixture.build(0, 1024 * page);
    suite.compare({.name = "map + unmap 256 x 4K across two tables",
                   .subject = map_unmap_run(fixture, (512 - 128) * page, 256),
                   .against = "within one table",
                   .other = map_unmap_run(fixture, 0, 256),
                   .goal = 1.15});
}

void whole_gigabytes(Suite& suite) {
    Fixture<X86> fixture;
    suite.compare({.name = "unmap 1G of 4K leaves, instructions an entry",
                   .subject = unmap_gigabytes(fixture),
                   .goal = 8,
                   .measure = Measure::instructions,
                   .counted = gigabyte / page});
    Fixture<X86> ragged;
    suite.compare({.name = "map + unmap 1G a page off, instructions",
                   .subject = {.run =
                                   [&](std::uint64_t count) {
                                       for (; count != 0; --count) {
                                           ragged.map(page, gigabyte, 0x100000000 + page);
                                           ragged.unmap(page, gigabyte);
                                       }
                                   }},
                   .goal = 20000,
                   .measure = Measure::instructions,
                   .counted = 10});
}

void made_and_removed(Suite& suite) {
    Fixture<X86> fixture;
    fixture.build(0, page);
    std::vector<std::uint64_t> entries(512);
    const auto strict = [](const InvalidationRequest<VirtualAddress>&) {
        return GracePeriod<RealSync>();
    };
    suite.compare(
        {.name = "map + unmap 512 x 4K, a table made and removed",
         .subject = {.run =
                         [&](std::uint64_t count) {
                             for (; count != 0; --count) {
                                 fixture.map(0, 512 * page, odd_memory);
                                 auto edit = fixture.table.edit(strict);
                                 if (!edit.unmap(VirtualAddress(0), ByteCount(512 * page)))
                                     std::abort();
                                 edit.finish();
                             }
                         }},
         .against = "512 checked stores there and back, a table zeroed, a grace period",
         .other = {.run =
                       [&](std::uint64_t count) {
                           for (; count != 0; --count) {
                               std::ranges::fill(entries, 0);
                               keep(entries[0]);
                               if (!by_hand::fill_by_4(entries.data(), 512,
                                                       odd_memory | writable_page) ||
                                   !by_hand::clear_by_4(entries.data(), 512))
                                   std::abort();
                               RealSync::synchronize();
                           }
                       }},
         .goal = 2});
}

} // namespace moat::bench
