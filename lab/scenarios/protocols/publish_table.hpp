// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A thread fills and links a lower table while others walk, unlinks it, and frees it after a grace
// period. Each variant but `right` has one mistake. A small model.
#pragma once

#include "lab/explore/explored_sync.hpp"

#include <array>
#include <string_view>

namespace moat::scenarios::publish_table {

enum class Variant : std::uint8_t {
    right,
    link_relaxed,       ///< the store that links the table is no release
    walk_relaxed,       ///< the load that finds the table is no acquire
    link_unchecked,     ///< a thread links a table without reading the entry again under the lock
    free_at_once,       ///< the table is freed without a grace period
    walk_unprotected,   ///< the walker opens no read section
    free_before_unlink, ///< the grace period comes before the unlink
};

inline constexpr std::array<std::string_view, 7> variant_names = {
    "right",        "link-relaxed",     "walk-relaxed",      "link-unchecked",
    "free-at-once", "walk-unprotected", "free-before-unlink"};

struct Table {
    ExploredSync::Plain<std::uint64_t> leaf{0};
};

struct World {
    Variant variant = Variant::right;
    ExploredSync::Atomic<Table*> root;
    ExploredSync::Mutex lock;
    ExploredSync::Atomic<std::uint64_t> linked;
};

inline constexpr std::uint64_t mapped = 0x1000;

inline void populate(World& world) {
    Table* const table = ExploredSync::make<Table>();
    table->leaf.write(mapped);
    const auto order = world.variant == Variant::link_relaxed ? std::memory_order_relaxed
                                                              : std::memory_order_release;
    const ExclusiveLock lock(world.lock);
    if (world.variant != Variant::link_unchecked &&
        world.root.load(std::memory_order_relaxed) != nullptr) {
        ExploredSync::destroy(table);
        return;
    }
    world.root.store(table, order);
    world.linked.fetch_add(1, std::memory_order_relaxed);
}

inline void walk_once(World& world) {
    const auto order = world.variant == Variant::walk_relaxed ? std::memory_order_relaxed
                                                              : std::memory_order_acquire;
    if (Table* const table = world.root.load(order))
        ExploredSync::check(table->leaf.read() == mapped,
                            "the walker reads an entry before it is written");
}

inline void walk(World& world) {
    if (world.variant == Variant::walk_unprotected) {
        walk_once(world);
        return;
    }
    const ExploredSync::ReadSection section;
    walk_once(world);
}

inline void unmap(World& world) {
    if (world.variant == Variant::free_before_unlink)
        ExploredSync::synchronize();
    Table* table = nullptr;
    {
        const ExclusiveLock lock(world.lock);
        table = world.root.load(std::memory_order_relaxed);
        world.root.store(nullptr, std::memory_order_release);
    }
    if (table == nullptr)
        return;
    if (world.variant == Variant::right)
        ExploredSync::retire(table);
    else {
        if (world.variant != Variant::free_at_once && world.variant != Variant::free_before_unlink)
            ExploredSync::synchronize();
        ExploredSync::destroy(table);
    }
}

/// Two populate one slot beside a walker and an unmapper.
[[nodiscard]] inline explore::Program program(Variant variant) {
    return [variant](explore::Setup& setup) {
        auto& world = setup.make<World>();
        world.variant = variant;
        setup.name(&world.root, "root");
        setup.name(&world.lock, "root lock");
        setup.thread("walker", [&world] { walk(world); });
        setup.thread("populator", [&world] { populate(world); });
        if (variant == Variant::link_unchecked)
            setup.thread("other populator", [&world] { populate(world); });
        else
            setup.thread("unmapper", [&world] { unmap(world); });
        setup.at_end([&world] {
            ExploredSync::check(world.linked.load(std::memory_order_relaxed) <= 1,
                                "a linked table is overwritten by another");
        });
    };
}

} // namespace moat::scenarios::publish_table
