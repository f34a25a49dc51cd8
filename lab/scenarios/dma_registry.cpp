// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The DMA API's shipped registry under the explorer, with a small tree. Mappings come and go in
// leaves that are announced and empty: searches forget the leaves, and adds announce them again.
// The property: a search finds every mapping that lives while it runs.
#include "moat/dma/registry.hpp"

#include "lab/explore/explored_sync.hpp"
#include "lab/scenarios/dma_sizes.hpp"
#include "lab/scenarios/scenario.hpp"

namespace moat::scenarios {

namespace dma_registry {

namespace {

/// Locks without mutual exclusion. Each call stays an operation that the explorer reorders,
/// because it does not see the plain memory that the locks guard.
struct Unlocked : ExploredSync {
    struct MOAT_CAPABILITY("mutex") Mutex : explored::Mutex {
        void lock() MOAT_ACQUIRE() { calls.fetch_add(1, std::memory_order_seq_cst); }

        bool try_lock() MOAT_TRY_ACQUIRE(true) {
            calls.fetch_add(1, std::memory_order_seq_cst);
            return true;
        }

        void unlock() MOAT_RELEASE() { calls.fetch_add(1, std::memory_order_seq_cst); }

        ExploredSync::Atomic<std::uint64_t> calls{0};
    };
};

/// `announce` sets no bit.
struct Unannounced : ExploredSync {
    template <class T>
    struct Atomic : explored::Cell<T, T> {
        using explored::Cell<T, T>::Cell;

        T fetch_or(T, std::memory_order order) { return this->load(order); }
    };
};

/// `forget_empty` clears the bit by a load and a store.
struct ForgetByStore : ExploredSync {
    template <class T>
    struct Atomic : explored::Cell<T, T> {
        using explored::Cell<T, T>::Cell;

        T fetch_and(T mask, std::memory_order) {
            const T before = this->load(std::memory_order_acquire);
            this->store(before & mask, std::memory_order_release);
            return before;
        }
    };
};

/// `forget_empty` clears the bits of the other leaves too.
struct ForgetAll : ExploredSync {
    template <class T>
    struct Atomic : explored::Cell<T, T> {
        using explored::Cell<T, T>::Cell;

        T fetch_and(T, std::memory_order order) { return this->exchange(0, order); }
    };
};

constexpr std::uint64_t page_size = 4096;

// Four leaves of four pages each share a word of `may_hold`.
constexpr std::uint64_t pages_of_leaf = 4;
constexpr std::uint64_t lowest = 0; ///< lives for the whole run, as `highest` does
constexpr std::uint64_t highest = 3 * pages_of_leaf;
constexpr std::uint64_t first_added = pages_of_leaf;
constexpr std::uint64_t searched = 2 * pages_of_leaf - 1; ///< the last page of the adders' leaf

template <class Sync>
struct World {
    dma::Registry<Sync> registry{0};
};

template <class Sync>
void add(World<Sync>& world, std::uint64_t page) {
    const Iova start(page * page_size);
    const auto added = world.registry.add(start, [&](dma::PackedMapping& fresh) {
        fresh.set(start, ByteCount(16), dma::Direction::bidirectional, {}, {});
    });
    ExploredSync::check(added.has_value(), "the arena has room");
}

template <class Sync>
void remove(World<Sync>& world, std::uint64_t page) {
    const bool gone = world.registry.remove(Iova(page * page_size),
                                            [](const dma::PackedMapping&) { return true; });
    ExploredSync::check(gone, "remove misses a live mapping");
}

template <class Sync>
void must_find(World<Sync>& world, std::uint64_t page) {
    fault::SearchSteps steps;
    const Iova start(page * page_size);
    const auto found = world.registry.around(start, steps).at_or_below;
    ExploredSync::check(found && found->range.start() == start, "a search misses a live mapping");
}

/// One mapping below and one above live for the whole run.
template <class Sync>
void search(World<Sync>& world) {
    fault::SearchSteps steps;
    const auto found = world.registry.around(Iova(searched * page_size), steps);
    ExploredSync::check(found.at_or_below.has_value(), "a search misses the mapping below");
    ExploredSync::check(found.above.has_value(), "a search misses the mapping above");
}

/// The setup leaves the adders' leaves announced and empty, so searches may forget them.
template <class Sync>
[[nodiscard]] explore::Program program_with(const Configuration& text) {
    const unsigned adders = number(text, "adders");
    const unsigned searchers = number(text, "searchers");
    const std::uint64_t stride = text.at("leaves") == "two" ? pages_of_leaf : 1;
    return [adders, searchers, stride](explore::Setup& setup) {
        auto& world = setup.make<World<Sync>>();
        add(world, lowest);
        add(world, highest);
        for (unsigned i = 0; i != 2; ++i) {
            add(world, first_added + i * stride);
            remove(world, first_added + i * stride);
        }
        for (unsigned i = 0; i != adders; ++i)
            setup.thread("adder", [&world, page = first_added + i * stride] {
                add(world, page);
                must_find(world, page);
                remove(world, page);
            });
        for (unsigned i = 0; i != searchers; ++i)
            setup.thread("searcher", [&world] { search(world); });
        setup.at_end([&world] {
            must_find(world, lowest);
            must_find(world, highest);
        });
    };
}

[[nodiscard]] explore::Program program(const Configuration& text) {
    if (text.at("variant") == "unlocked")
        return program_with<Unlocked>(text);
    if (text.at("variant") == "unannounced")
        return program_with<Unannounced>(text);
    if (text.at("variant") == "forget-by-store")
        return program_with<ForgetByStore>(text);
    if (text.at("variant") == "forget-all")
        return program_with<ForgetAll>(text);
    return program_with<ExploredSync>(text);
}

} // namespace

} // namespace dma_registry

Scenario dma_registry_scenario() {
    return {.name = "dma-registry",
            .summary = "the shipped registry of mappings: a search finds every live mapping",
            .parameters = {{.name = "adders",
                            .preset = "1",
                            .help = "threads that add a mapping, look it up and remove it",
                            .most = 2},
                           {.name = "searchers",
                            .preset = "1",
                            .help = "threads that search and remove an empty leaf",
                            .most = 2},
                           {.name = "leaves",
                            .preset = "same",
                            .help = "adders map in the same leaf, or in two that share a word",
                            .values = {"same", "two"}},
                           {.name = "variant",
                            .preset = "shipped",
                            .help = "the shipped registry, or a mutant that breaks one rule",
                            .values = {"shipped", "unlocked", "unannounced", "forget-by-store",
                                       "forget-all"}}},
            .program = &dma_registry::program,
            .scope = [](const Configuration& text) {
                return "dma-registry " + text.at("variant") + ": " +
                       counted(number(text, "adders"), "adder") + " of a mapping each, " +
                       counted(number(text, "searchers"), "searcher") +
                       (text.at("leaves") == "two" ? ", two leaves" : ", one leaf") +
                       " between two mappings that stay";
            }};
}

} // namespace moat::scenarios
