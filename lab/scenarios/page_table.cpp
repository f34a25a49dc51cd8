// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped page-table engine under the explorer: edits of neighbouring pages, which share their
// tables, beside a walker that translates, with tables freed by RCU. Nothing here is a model: the
// headers of include/moat/page_table are instantiated with ExploredSync, and each broken variant
// is the same headers over an ExploredSync that differs in one member.
#include "moat/page_table/edit.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/reader.hpp"

#include "lab/explore/explored_sync.hpp"
#include "lab/scenarios/arena_tables.hpp"
#include "lab/scenarios/scenario.hpp"

namespace moat::scenarios {

namespace page_table {

namespace {

using Vtd = formats::VtdSecondStage<3>;

/// A removed table is freed without a grace period.
struct FreeAtOnce : ExploredSync {
    static void defer(RcuHead* head, void (*call)(RcuHead*)) { call(head); }
};

/// A walk opens no section, so that no grace period waits for it.
struct WalkUnprotected : ExploredSync {
    struct ReadSection {
        ReadSection() {} // as in RealSync: a variable of this type is not unused
    };
};

/// An entry is compared, then stored: the re-check and the store are not one step.
struct LinkUnchecked : ExploredSync {
    template <class T>
    struct AtomicRef : explored::Ref<T> {
        using explored::Ref<T>::Ref;

        bool compare_exchange_strong(T& expected, T desired, std::memory_order success,
                                     std::memory_order failure) {
            const T found = this->load(failure);
            if (found != expected) {
                expected = found;
                return false;
            }
            this->store(desired, success);
            return true;
        }
    };
};

// One rule of the engine broken.

struct NeverInvalidated : ExploredSync {};

struct FreeBeforeInvalidation : ExploredSync {};

struct SplitUnchecked : ExploredSync {};

} // namespace

} // namespace page_table

} // namespace moat::scenarios

namespace moat {

template <>
struct Rules<scenarios::page_table::NeverInvalidated> : Rules<ExploredSync> {
    static constexpr bool invalidates = false;
};

template <>
struct Rules<scenarios::page_table::FreeBeforeInvalidation> : Rules<ExploredSync> {
    static constexpr bool invalidates_before_free = false;
};

template <>
struct Rules<scenarios::page_table::SplitUnchecked> : Rules<ExploredSync> {
    static constexpr bool split_is_compared = false;
};

} // namespace moat

namespace moat::scenarios {

namespace page_table {

namespace {

/// The format says that a leaf has to vanish before it is split or folded, which VT-d spares.
struct LevelsByBreak : ExploredSync {};

struct BreakingVtd : Vtd {
    static constexpr FormatCapabilities capabilities = {.level_change =
                                                            LiveChange::break_before_make,
                                                        .group_change = LiveChange::in_place,
                                                        .accessed = FlagUpdate::none,
                                                        .dirty = FlagUpdate::none};
};

template <class Sync>
using FormatOf = std::conditional_t<std::is_same_v<Sync, LevelsByBreak>, BreakingVtd, Vtd>;

template <class Sync>
struct World {
    using Types = Tree<FormatOf<Sync>, Sync, ArenaTables>;

    ArenaTables memory;
    PageTable<Types> table = *PageTable<Types>::create(memory);
};

constexpr std::uint64_t page_bytes = 4096;

/// The pages of thread i: neighbours in one last-level table.
[[nodiscard]] Iova iova_of(unsigned i) {
    return Iova(page_bytes * (i + 1));
}

[[nodiscard]] PhysicalAddress physical_of(unsigned i) {
    return PhysicalAddress(0x4000'0000 + page_bytes * i);
}

template <class Sync>
void map(World<Sync>& world, unsigned i) {
    auto nothing = [](const InvalidationRequest<Iova>&) {};
    auto edit = world.table.edit(nothing);
    const auto mapped = edit.map(iova_of(i), ByteCount(page_bytes), physical_of(i), read_write);
    ExploredSync::check(mapped.has_value(), "a free page can be mapped");
    edit.finish();
}

template <class Sync>
void unmap(World<Sync>& world, unsigned i) {
    auto nothing = [](const InvalidationRequest<Iova>&) {};
    auto edit = world.table.edit(nothing);
    const auto unmapped = edit.unmap(iova_of(i), ByteCount(page_bytes));
    ExploredSync::check(unmapped.has_value(), "a mapped page can be unmapped");
    edit.finish();
}

/// A page under a last-level table of its own, and a thread that unmaps all that this table covers:
/// the table goes, while walkers may be in it.
constexpr Iova far_page(0x200000);
constexpr ByteCount far_bytes(0x200000);

template <class Sync>
void unmap_table(World<Sync>& world) {
    auto note = [&world](const InvalidationRequest<Iova>&) { world.memory.invalidated(); };
    auto edit = world.table.edit(note);
    const auto unmapped = edit.unmap(far_page, far_bytes);
    ExploredSync::check(unmapped.has_value(), "all that a table covers can be unmapped");
    edit.finish();
}

template <class Sync>
void translate_far(World<Sync>& world) {
    const auto found = world.table.reader().translate(far_page);
    if (found)
        ExploredSync::check(found->physical() == physical_of(0), "a page translates to its own");
}

// 2 MiB that change between one leaf and a table of leaves, while a walker is in them.

constexpr Iova large_start(0x400000);
constexpr ByteCount large_bytes(0x200000);
constexpr PhysicalAddress large_physical(0x8000'0000);

[[nodiscard]] constexpr Iova large_page(unsigned i) {
    return Iova(large_start.value() + page_bytes * i);
}

template <class Sync>
void map_large(World<Sync>& world, MapOptions options) {
    auto nothing = [](const InvalidationRequest<Iova>&) {};
    auto edit = world.table.edit(nothing);
    const auto mapped = edit.map(large_start, large_bytes, large_physical, read_write, options);
    ExploredSync::check(mapped.has_value(), "free pages can be mapped");
    edit.finish();
}

/// Unmaps page i of the leaf; the rest goes on translating.
template <class Sync>
void split(World<Sync>& world, unsigned i) {
    auto nothing = [](const InvalidationRequest<Iova>&) {};
    auto edit = world.table.edit(nothing);
    const auto unmapped = edit.unmap(large_page(i), ByteCount(page_bytes),
                                     {.partial = PartialLeaf::split, .breaking = Break::allowed});
    ExploredSync::check(unmapped.has_value(), "a part of a leaf can be unmapped");
    edit.finish();
}

template <class Sync>
void fold(World<Sync>& world) {
    auto note = [&world](const InvalidationRequest<Iova>&) { world.memory.invalidated(); };
    auto edit = world.table.edit(note);
    const auto folded = edit.fold(large_start, large_bytes, Break::allowed);
    ExploredSync::check(folded.has_value(), "leaves that are alike can be folded");
    edit.finish();
}

/// A page that nobody unmaps is there at any time.
template <class Sync>
void translate_large(World<Sync>& world) {
    constexpr unsigned untouched = 300;
    const auto found = world.table.reader().translate(large_page(untouched));
    ExploredSync::check(found.has_value(), "a page vanishes while its leaf is split or folded");
    ExploredSync::check(found->physical() ==
                            PhysicalAddress(large_physical.value() + page_bytes * untouched),
                        "a page translates to its own");
}

/// A walk beside all that sees a page as it was mapped, or not at all.
template <class Sync>
void translate(World<Sync>& world, unsigned i) {
    const auto found = world.table.reader().translate(iova_of(i));
    if (found)
        ExploredSync::check(found->physical() == physical_of(i), "a page translates to its own");
}

template <class Sync>
[[nodiscard]] explore::Program program_with(const Configuration& text) {
    const unsigned mappers = number(text, "mappers");
    const unsigned unmappers = number(text, "unmappers");
    const unsigned walkers = number(text, "walkers");
    const unsigned freers = number(text, "freers");
    const unsigned splitters = number(text, "splitters");
    const unsigned folders = number(text, "folders");
    return [mappers, unmappers, walkers, freers, splitters, folders](explore::Setup& setup) {
        auto& world = setup.make<World<Sync>>();
        if (splitters != 0 || folders != 0)
            map_large(world, {.largest_leaf_lg2 = folders != 0 ? 12U : 21U});
        if (freers != 0) {
            auto nothing = [](const InvalidationRequest<Iova>&) {};
            auto edit = world.table.edit(nothing);
            const auto mapped =
                edit.map(far_page, ByteCount(page_bytes), physical_of(0), read_write);
            ExploredSync::check(mapped.has_value(), "a free page can be mapped");
            edit.finish();
            setup.thread("freer", [&world] { unmap_table(world); });
            setup.thread("far walker", [&world] { translate_far(world); });
        }
        for (unsigned i = 0; i != unmappers; ++i)
            map(world, mappers + i);
        world.memory.all_are_linked();
        for (unsigned i = 0; i != splitters; ++i)
            setup.thread("splitter", [&world, i] { split(world, i); });
        for (unsigned i = 0; i != folders; ++i)
            setup.thread("folder", [&world] { fold(world); });
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

[[nodiscard]] explore::Program program(const Configuration& text) {
    const std::string& variant = text.at("variant");
    if (variant == "free-at-once")
        return program_with<FreeAtOnce>(text);
    if (variant == "walk-unprotected")
        return program_with<WalkUnprotected>(text);
    if (variant == "link-unchecked")
        return program_with<LinkUnchecked>(text);
    if (variant == "never-invalidated")
        return program_with<NeverInvalidated>(text);
    if (variant == "free-before-invalidation")
        return program_with<FreeBeforeInvalidation>(text);
    if (variant == "split-unchecked")
        return program_with<SplitUnchecked>(text);
    if (variant == "levels-by-break")
        return program_with<LevelsByBreak>(text);
    return program_with<ExploredSync>(text);
}

} // namespace

} // namespace page_table

Scenario page_table_scenario() {
    return {.name = "page-table",
            .summary = "the shipped page-table engine: map, unmap, split, fold and walk",
            .parameters =
                {{.name = "mappers", .preset = "1", .help = "threads that map a page", .most = 4},
                 {.name = "unmappers", .preset = "1", .help = "that unmap one", .most = 4},
                 {.name = "walkers", .preset = "1", .help = "that translate", .most = 4},
                 {.name = "freers",
                  .preset = "0",
                  .help = "that unmap a whole table, beside a walker in it",
                  .most = 1},
                 {.name = "splitters",
                  .preset = "0",
                  .help = "that unmap a page of one large leaf",
                  .most = 2},
                 {.name = "folders",
                  .preset = "0",
                  .help = "that fold a table into a leaf; without splitters",
                  .most = 1},
                 {.name = "variant",
                  .preset = "shipped",
                  .help = "the engine as it is, or with one rule broken",
                  .values = {"shipped", "free-at-once", "walk-unprotected", "link-unchecked",
                             "never-invalidated", "free-before-invalidation", "split-unchecked",
                             "levels-by-break"}}},
            .program = &page_table::program,
            .scope = [](const Configuration& text) {
                return "page-table, VT-d second stage of 3 levels: " +
                       counted(number(text, "mappers"), "mapper") + ", " +
                       counted(number(text, "unmappers"), "unmapper") + ", " +
                       counted(number(text, "walkers"), "walker") + ", a page each, " +
                       counted(number(text, "freers"), "table freer") + ", " +
                       counted(number(text, "splitters"), "splitter") + ", " +
                       counted(number(text, "folders"), "folder") + ", variant " +
                       text.at("variant");
            }};
}

} // namespace moat::scenarios
