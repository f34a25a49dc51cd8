// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The page-walk race in one PUD slot: a walker beside threads that fault, zap and populate.
// A model of the protocol, not the shipped engine. `moat explore pud-slot`, the tests
// and the benchmark explore it.
//
// The legal transitions while the address space is held for reading: NONE <-> LEAF (a device's
// 1 GiB leaf is faulted in and zapped), NONE -> TABLE, and TABLE stays. See docs/the-race.md.
#pragma once

#include "moat/sync/lock.hpp"

#include "lab/explore/program.hpp"

#include <array>
#include <atomic>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string_view>

namespace moat::scenarios::pud_slot {

inline constexpr std::uint64_t none = 0;
inline constexpr std::uint64_t leaf = 1;
inline constexpr std::uint64_t table = 2;

/// How the walker reads the entry again, after it split a leaf away, before it descends.
enum class Variant : std::uint8_t { old, two_load, two_load_reversed, reload, snapshot };

inline constexpr std::array<std::string_view, 5> variant_names = {
    "old", "two-load", "two-load-reversed", "reload", "snapshot"};

[[nodiscard]] constexpr std::string_view name(Variant variant) {
    return variant_names[static_cast<std::size_t>(variant)];
}

struct Configuration {
    Variant variant = Variant::snapshot;
    unsigned walkers = 1;
    unsigned faulters = 1;
    unsigned zappers = 0;
    unsigned populators = 0;
    unsigned iterations = 1; ///< of each faulter and each zapper
    unsigned attempts = 3;   ///< of each walker
};

/// The program for the explorer; its threads are named walker, faulter, zapper, populator.
[[nodiscard]] explore::Program program(const Configuration& configuration);

/// The slot, its lock, and how the walk of each walker ended.
template <class Sync>
struct World {
    typename Sync::template Atomic<std::uint64_t> slot{leaf};
    typename Sync::Mutex lock;

    [[nodiscard]] std::uint64_t load() const { return slot.load(std::memory_order_acquire); }

    void store(std::uint64_t value) { slot.store(value, std::memory_order_release); }
};

template <class Sync>
void split_leaf(World<Sync>& world) {
    const ExclusiveLock lock(world.lock);
    if (world.load() == leaf)
        world.store(none);
}

/// The walker's second look. Return: nothing when it has to start again, otherwise the entry to
/// descend from.
template <class Sync>
std::optional<std::uint64_t> look_again(World<Sync>& world, Variant variant) {
    switch (variant) {
    case Variant::old:
        if (world.load() == none)
            return {};
        return world.load();
    case Variant::two_load:
        if (world.load() == none || world.load() == leaf)
            return {};
        return world.load();
    case Variant::two_load_reversed:
        if (world.load() == leaf || world.load() == none)
            return {};
        return world.load();
    case Variant::reload:
        if (world.load() != table)
            return {};
        return world.load();
    case Variant::snapshot: {
        const std::uint64_t seen = world.load();
        if (seen != table)
            return {};
        return seen;
    }
    }
    return {};
}

template <class Sync, std::invocable<bool, std::string_view> Check>
void walk(World<Sync>& world, const Configuration& configuration, Check check) {
    for (unsigned attempt = 0; attempt != configuration.attempts; ++attempt) {
        const std::uint64_t seen = world.load();
        if (seen == none)
            return;
        if (seen == leaf)
            split_leaf(world);
        if (const auto entry = look_again(world, configuration.variant)) {
            check(*entry == table, "the walker descends into something that is not a table");
            return;
        }
    }
}

template <class Sync>
void fault(World<Sync>& world, const Configuration& configuration) {
    for (unsigned i = 0; i != configuration.iterations; ++i) {
        if (world.load() != none)
            continue;
        const ExclusiveLock lock(world.lock);
        if (world.load() == none)
            world.store(leaf);
    }
}

template <class Sync>
void zap(World<Sync>& world, const Configuration& configuration) {
    for (unsigned i = 0; i != configuration.iterations; ++i)
        split_leaf(world);
}

template <class Sync>
void populate(World<Sync>& world) {
    if (world.load() != none)
        return;
    const ExclusiveLock lock(world.lock);
    if (world.load() == none)
        world.store(table);
}

} // namespace moat::scenarios::pud_slot
