// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The programs of the page-table scenario: edits of neighbouring pages, which share their tables,
// beside a walker that translates. RCU frees the tables. Instantiated by page_table.cpp with the
// shipped headers, and by mutants/page_table.cpp with mutated copies of them.
#pragma once

#include "moat/page_table/edit.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/reader.hpp"

#include "lab/explore/explored_sync.hpp"
#include "lab/scenarios/arena_tables.hpp"
#include "lab/scenarios/scenario.hpp"

#include <type_traits>

namespace moat::scenarios::page_table {

using Vtd = formats::VtdSecondStage<3>;

/// Claims that a leaf has to vanish before a split or fold, which VT-d does not require.
struct BreakingVtd : Vtd {
    static constexpr FormatCapabilities capabilities = {.level_change =
                                                            LiveChange::break_before_make,
                                                        .group_change = LiveChange::in_place,
                                                        .accessed = FlagUpdate::none,
                                                        .dirty = FlagUpdate::none};
};

/// The same, with devices that expect it.
struct AwaitedBreakVtd : BreakingVtd {};

template <class Format>
inline constexpr bool may_vanish = std::is_same_v<Format, AwaitedBreakVtd>;

template <class Sync, class Format>
struct World {
    using Types = Tree<Format, Sync, ArenaTables>;

    ArenaTables memory;
    PageTable<Types> table = *PageTable<Types>::create(memory);
};

constexpr std::uint64_t page_bytes = 4096;

/// The pages of thread i: neighbours in one last-level table.
[[nodiscard]] inline Iova iova_of(unsigned i) {
    return Iova(page_bytes * (i + 1));
}

[[nodiscard]] inline PhysicalAddress physical_of(unsigned i) {
    return PhysicalAddress(0x4000'0000 + page_bytes * i);
}

template <class Sync, class Format>
void map(World<Sync, Format>& world, unsigned i) {
    auto nothing = [](const InvalidationRequest<Iova>&) {};
    auto edit = world.table.edit(nothing);
    const auto mapped = edit.map(iova_of(i), ByteCount(page_bytes), physical_of(i), read_write);
    ExploredSync::check(mapped.has_value(), "a free page can be mapped");
    edit.finish();
}

template <class Sync, class Format>
void unmap(World<Sync, Format>& world, unsigned i) {
    auto nothing = [](const InvalidationRequest<Iova>&) {};
    auto edit = world.table.edit(nothing);
    const auto unmapped = edit.unmap(iova_of(i), ByteCount(page_bytes));
    ExploredSync::check(unmapped.has_value(), "a mapped page can be unmapped");
    edit.finish();
}

/// A page under a last-level table of its own. A thread unmaps the whole span of this table, and so
/// frees the table while walkers may be in it.
constexpr Iova far_page(0x200000);
constexpr ByteCount far_bytes(0x200000);

/// An edit whose invalidation is noted, and waits for the walkers if `waits`.
template <class Sync, class Format, class Change>
void edit_noted(World<Sync, Format>& world, bool waits, const Change& change) {
    auto note = [&world](const InvalidationRequest<Iova>&) { world.memory.invalidated(); };
    auto note_and_wait = [&world](const InvalidationRequest<Iova>&) {
        world.memory.invalidated();
        return GracePeriod<Sync>();
    };
    auto edit = waits ? world.table.edit(note_and_wait) : world.table.edit(note);
    change(edit);
    edit.finish();
}

template <class Sync, class Format>
void unmap_table(World<Sync, Format>& world, bool waits) {
    edit_noted(world, waits, [](auto& edit) {
        const auto unmapped = edit.unmap(far_page, far_bytes);
        ExploredSync::check(unmapped.has_value(), "all that a table covers can be unmapped");
    });
}

/// Pages that end where the far table begins; only the second is mapped.
constexpr Iova pages_before(far_page.value() - 2 * page_bytes);

template <class Sync, class Format>
void unmap_before(World<Sync, Format>& world) {
    auto nothing = [](const InvalidationRequest<Iova>&) {};
    auto edit = world.table.edit(nothing);
    const auto unmapped = edit.unmap(pages_before, ByteCount(2 * page_bytes));
    ExploredSync::check(unmapped && unmapped->leaves == 1, "a range with a hole can be unmapped");
    edit.finish();
}

template <class Sync, class Format>
void translate_far(World<Sync, Format>& world) {
    const auto found = world.table.reader().translate(far_page);
    if (found)
        ExploredSync::check(found->physical() == physical_of(0), "a page translates to its own");
}

// 2 MiB that change between one leaf and a table of leaves, while a walker translates them.

constexpr Iova large_start(0x400000);
constexpr ByteCount large_bytes(0x200000);
constexpr PhysicalAddress large_physical(0x8000'0000);

[[nodiscard]] constexpr Iova large_page(unsigned i) {
    return Iova(large_start.value() + page_bytes * i);
}

template <class Sync, class Format>
void map_large(World<Sync, Format>& world, MapOptions options) {
    auto nothing = [](const InvalidationRequest<Iova>&) {};
    auto edit = world.table.edit(nothing);
    const auto mapped = edit.map(large_start, large_bytes, large_physical, read_write, options);
    ExploredSync::check(mapped.has_value(), "free pages can be mapped");
    edit.finish();
}

/// Unmaps page i of the leaf; the rest stays mapped.
template <class Sync, class Format>
void split(World<Sync, Format>& world, unsigned i) {
    auto nothing = [](const InvalidationRequest<Iova>&) {};
    auto edit = world.table.edit(nothing);
    const auto unmapped = edit.unmap(large_page(i), ByteCount(page_bytes),
                                     {.partial = PartialLeaf::split, .breaking = Break::allowed});
    ExploredSync::check(unmapped.has_value(), "a part of a leaf can be unmapped");
    edit.finish();
}

template <class Sync, class Format>
void fold(World<Sync, Format>& world, bool waits) {
    edit_noted(world, waits, [](auto& edit) {
        const auto folded = edit.fold(large_start, large_bytes, Break::allowed);
        ExploredSync::check(folded.has_value(), "leaves that are alike can be folded");
    });
}

/// A page that no thread unmaps is always mapped.
template <class Sync, class Format>
void translate_large(World<Sync, Format>& world) {
    constexpr unsigned untouched = 300;
    const auto found = world.table.reader().translate(large_page(untouched));
    if (!found && may_vanish<Format>)
        return;
    ExploredSync::check(found.has_value(), "a page vanishes while its leaf is split or folded");
    ExploredSync::check(found->physical() ==
                            PhysicalAddress(large_physical.value() + page_bytes * untouched),
                        "a page translates to its own");
}

/// A concurrent walk sees a page either mapped or unmapped.
template <class Sync, class Format>
void translate(World<Sync, Format>& world, unsigned i) {
    const auto found = world.table.reader().translate(iova_of(i));
    if (found)
        ExploredSync::check(found->physical() == physical_of(i), "a page translates to its own");
}

template <class Sync, class Format = Vtd>
[[nodiscard]] explore::Program program_with(const Configuration& text) {
    const unsigned mappers = number(text, "mappers");
    const unsigned unmappers = number(text, "unmappers");
    const unsigned walkers = number(text, "walkers");
    const unsigned freers = number(text, "freers");
    const unsigned splitters = number(text, "splitters");
    const unsigned folders = number(text, "folders");
    const unsigned neighbours = number(text, "neighbours");
    const bool waits = number(text, "waits") != 0;
    return [mappers, unmappers, walkers, freers, splitters, folders, neighbours,
            waits](explore::Setup& setup) {
        auto& world = setup.make<World<Sync, Format>>();
        if (splitters != 0 || folders != 0)
            map_large(world, {.largest_leaf_lg2 = folders != 0 ? 12U : 21U});
        if (freers != 0) {
            auto nothing = [](const InvalidationRequest<Iova>&) {};
            auto edit = world.table.edit(nothing);
            for (const Iova page : {far_page, Iova(far_page.value() - page_bytes)}) {
                const auto mapped =
                    edit.map(page, ByteCount(page_bytes), physical_of(0), read_write);
                ExploredSync::check(mapped.has_value(), "a free page can be mapped");
            }
            edit.finish();
            setup.thread("freer", [&world, waits] { unmap_table(world, waits); });
            if (neighbours == 0)
                setup.thread("far walker", [&world] { translate_far(world); });
            else
                setup.thread("neighbour", [&world] { unmap_before(world); });
        }
        for (unsigned i = 0; i != unmappers; ++i)
            map(world, mappers + i);
        world.memory.all_are_linked();
        for (unsigned i = 0; i != splitters; ++i)
            setup.thread("splitter", [&world, i] { split(world, i); });
        for (unsigned i = 0; i != folders; ++i)
            setup.thread("folder", [&world, waits] { fold(world, waits); });
        if (splitters + folders == 1)
            setup.thread("large walker", [&world] { translate_large(world); });
        for (unsigned i = 0; i != mappers; ++i)
            setup.thread("mapper", [&world, i] { map(world, i); });
        for (unsigned i = 0; i != unmappers; ++i)
            setup.thread("unmapper", [&world, i, mappers] { unmap(world, mappers + i); });
        for (unsigned i = 0; i != walkers; ++i)
            setup.thread("walker", [&world, i] { translate(world, i); });
        setup.at_end([&world, mappers, unmappers, freers, splitters, folders] {
            ExploredSync::check(world.memory.released() >= freers + folders,
                                "a table that went is freed");
            for (unsigned i = 0; i != splitters; ++i)
                ExploredSync::check(!world.table.reader().translate(large_page(i)).has_value(),
                                    "an unmapped part of a leaf is there again");
            for (unsigned i = 0; i != mappers + unmappers; ++i) {
                const bool is_there = world.table.reader().translate(iova_of(i)).has_value();
                ExploredSync::check(is_there == (i < mappers),
                                    "what was mapped is there, and what was unmapped is not");
            }
        });
    };
}

} // namespace moat::scenarios::page_table
