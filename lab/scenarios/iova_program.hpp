// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The programs of the iova scenario: the IOVA allocator with small caches, while threads release
// each other's ranges, end, defer a release, or run short of space. Instantiated by iova.cpp with
// the shipped headers, and by mutants/iova.cpp with mutated copies of them.
#pragma once

#include "moat/iova/allocator.hpp"

#include "lab/explore/explored_sync.hpp"
#include "lab/scenarios/iova_syncs.hpp"
#include "lab/scenarios/scenario.hpp"

#include <array>
#include <new>
#include <string>
#include <string_view>

namespace moat::scenarios::iova_allocator {

inline constexpr std::uint64_t page = 4096;
/// One chunk of the free space; with less, threads cache nothing.
inline constexpr std::uint64_t pages = 512;
inline constexpr std::uint64_t first_page = 512;
/// The guard before the first mapping and after each.
inline constexpr std::uint64_t most_payload = pages - 2;

/// What the threads ask for.
struct Wanted {
    /// Above the largest size of a magazine: 1 page.
    std::uint64_t payload_pages = 1;
    unsigned modulus_lg2 = 0;

    explicit Wanted(std::string_view range) {
        if (range == "large")
            payload_pages = 2;
        else if (range == "aligned")
            modulus_lg2 = 13;
    }
};

template <class Sync>
struct World {
    using Allocator = iova::Allocator<Sync>;

    std::array<IovaRange, 1> aperture = {
        IovaRange(Iova(first_page * page), ByteCount(pages* page))};
    typename Allocator::Owner allocator;
    /// By page: 1 while it is the payload of a range.
    std::array<ExploredSync::Atomic<std::uint64_t>, pages> owned{};
    /// By page: the number of the invalidation that must begin before its reuse.
    std::array<ExploredSync::Atomic<std::uint64_t>, pages> reusable_from{};
    ExploredSync::Atomic<std::uint64_t> begun{0};
    ExploredSync::Atomic<std::uint64_t> handed_over{0};
    ExploredSync::Atomic<std::uint64_t> short_of_space{0};

    Wanted wanted;

    World(bool quarantine, const Wanted& want) : wanted(want) {
        iova::Config config = {.aperture = aperture,
                               .guard = {.after = ByteCount(page)},
                               .invalidation = {&World::invalidate, this}};
        if (quarantine)
            config.quarantine = {.bytes = ByteCount(8 * page), .entries = 1};
        auto made = Allocator::create(config);
        ExploredSync::check(made.has_value(), "there is memory for an allocator");
        allocator = std::move(*made);
    }

    static Result<void> invalidate(void* world) {
        static_cast<World*>(world)->begun.fetch_add(1, std::memory_order_seq_cst);
        return {};
    }

    /// The element of the page; an address outside of the aperture is a violation.
    ExploredSync::Atomic<std::uint64_t>& of(auto& array, Iova start) {
        const std::uint64_t index = start.value() / page - first_page;
        ExploredSync::check(index < pages, "an address outside of the aperture");
        return array[index];
    }

    [[nodiscard]] ByteCount size() const { return ByteCount(wanted.payload_pages * page); }

    /// Return: a range, or 0 without space.
    std::uint64_t take() {
        const Result<Iova> start = allocator->allocate(
            {.size = size(), .placement = iova::Congruence::aligned(wanted.modulus_lg2)});
        if (!start)
            return 0;
        ExploredSync::check(is_aligned(start->value(), wanted.modulus_lg2),
                            "a range does not lie where it was wanted");
        ExploredSync::check(of(owned, *start).exchange(1, std::memory_order_relaxed) == 0,
                            "a page has two owners");
        ExploredSync::check(begun.load(std::memory_order_relaxed) >=
                                of(reusable_from, *start).load(std::memory_order_relaxed),
                            "a page is used again before its invalidation began");
        return start->value();
    }

    void give(std::uint64_t start, iova::When when = iova::When::now) {
        if (start == 0)
            return;
        of(owned, Iova(start)).store(0, std::memory_order_relaxed);
        if (when == iova::When::after_invalidation)
            of(reusable_from, Iova(start))
                .store(begun.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        const auto released = allocator->release(Iova(start), size(), when);
        ExploredSync::check(released.has_value(), "what was allocated can be released");
    }

    void flush() {
        ExploredSync::check(allocator->flush().has_value(), "an invalidation succeeds");
    }

    /// Threads have ended and returned their caches, so the whole space is free in one piece.
    void all_is_there() {
        flush();
        const auto whole = allocator->allocate({.size = ByteCount(most_payload * page)});
        ExploredSync::check(whole.has_value(), "some of the space is lost");
    }
};

/// One thread allocates, the other releases; both continue.
template <class Sync>
void remote(explore::Setup& setup, World<Sync>& world) {
    setup.thread("allocates", [&world] {
        world.handed_over.store(world.take(), std::memory_order_release);
        world.give(world.take());
    });
    setup.thread("releases", [&world] {
        world.give(world.handed_over.exchange(0, std::memory_order_acquire));
        world.give(world.take());
    });
    setup.at_end([&world] {
        world.give(world.handed_over.load(std::memory_order_relaxed));
        world.allocator->rest();
        world.all_is_there();
    });
}

/// Threads cache their released ranges, and end.
template <class Sync>
void exit(explore::Setup& setup, World<Sync>& world) {
    for (const char* name : {"first", "second"})
        setup.thread(name, [&world] { world.give(world.take()); });
    setup.at_end([&world] { world.all_is_there(); });
}

/// A released range waits for an invalidation; the iova-flush scenario has more of them.
template <class Sync>
void deferred(explore::Setup& setup, World<Sync>& world) {
    setup.thread("defers", [&world] {
        world.give(world.take(), iova::When::after_invalidation);
        world.give(world.take());
    });
    setup.thread("flushes", [&world] {
        world.flush();
        world.give(world.take());
    });
    setup.at_end([&world] { world.all_is_there(); });
}

/// One thread requests all of the space while another's magazine holds a part of it.
template <class Sync>
void drain(explore::Setup& setup, World<Sync>& world) {
    setup.thread("keeps", [&world] {
        world.give(world.take());
        const bool was_short = world.short_of_space.load(std::memory_order_acquire) != 0;
        world.give(world.take());
        if (was_short)
            ExploredSync::check(world.allocator->stats().largest_hole >=
                                    ByteCount(most_payload * page),
                                "a magazine stays open though space is short");
    });
    setup.thread("wants", [&world] {
        const ByteCount all(most_payload * page);
        const auto whole = world.allocator->allocate({.size = all});
        if (!whole) {
            world.short_of_space.store(1, std::memory_order_release);
            return;
        }
        const auto released = world.allocator->release(*whole, all);
        ExploredSync::check(released.has_value(), "what was allocated can be released");
    });
    setup.at_end([&world] { world.all_is_there(); });
}

/// Ranges of one size in the special cache, of which only some lie where the next request allows.
template <class Sync>
void mixed(explore::Setup& setup, World<Sync>& world) {
    setup.thread("mixes", [&world] {
        const auto anywhere = world.allocator->allocate(
            {.size = world.size(), .last = Iova((first_page + pages) * page)});
        world.give(world.take());
        if (anywhere)
            ExploredSync::check(world.allocator->release(*anywhere, world.size()).has_value(),
                                "what was allocated can be released");
        world.give(world.take());
    });
    setup.thread("ends", [&world] { world.give(world.take()); });
    setup.at_end([&world] { world.all_is_there(); });
}

template <class Sync>
[[nodiscard]] explore::Program program_with(const Configuration& text) {
    const std::string chosen = text.at("case");
    const Wanted wanted(text.at("range"));
    return [chosen, wanted](explore::Setup& setup) {
        auto& world = setup.make<World<Sync>>(chosen == "quarantine", wanted);
        if (chosen == "remote")
            remote(setup, world);
        else if (chosen == "exit" || chosen == "quarantine")
            exit(setup, world);
        else if (chosen == "deferred")
            deferred(setup, world);
        else if (chosen == "mixed")
            mixed(setup, world);
        else
            drain(setup, world);
    };
}

} // namespace moat::scenarios::iova_allocator
