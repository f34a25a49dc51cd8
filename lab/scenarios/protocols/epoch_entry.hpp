// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RCU by epochs (moat/sync/epoch.hpp) as a small model: a reader enters, and a grace period tests
// it, by a read-modify-write of the reader's slot. Each variant but `right` has one mistake.
// Does not use the explorer's own RCU, because this protocol is under test.
#pragma once

#include "lab/explore/explored_sync.hpp"

#include <array>
#include <string_view>

namespace moat::scenarios::epoch_entry {

enum class Variant : std::uint8_t {
    right,
    enter_by_store, ///< the entry waits in a store buffer while the reader continues
    ask_by_load,    ///< the grace period may read an old value of the slot
    leave_relaxed,  ///< the reader's accesses may be late
};

inline constexpr std::array<std::string_view, 4> variant_names = {"right", "enter-by-store",
                                                                  "ask-by-load", "leave-relaxed"};

struct Node {
    ExploredSync::Plain<std::uint64_t> value{7};
};

struct World {
    Variant variant = Variant::right;
    ExploredSync::Atomic<std::uint64_t> epoch{1U};
    ExploredSync::Atomic<std::uint64_t> entered;
    ExploredSync::Atomic<Node*> root;
};

inline void read(World& world) {
    const std::uint64_t epoch = world.epoch.load(std::memory_order_acquire);
    if (world.variant == Variant::enter_by_store)
        world.entered.store(epoch, std::memory_order_release);
    else
        world.entered.exchange(epoch, std::memory_order_acq_rel);
    if (Node* const node = world.root.load(std::memory_order_acquire))
        ExploredSync::check(node->value.read() == 7, "a reader sees a node as it was");
    world.entered.store(0, world.variant == Variant::leave_relaxed ? std::memory_order_relaxed
                                                                   : std::memory_order_release);
}

inline void replace(World& world) {
    Node* const node = world.root.load(std::memory_order_relaxed);
    world.root.store(nullptr, std::memory_order_release);
    const std::uint64_t after = world.epoch.fetch_add(1, std::memory_order_acq_rel) + 1;
    const auto ask = [&world] {
        return world.variant == Variant::ask_by_load
                   ? world.entered.load(std::memory_order_acquire)
                   : world.entered.fetch_add(0, std::memory_order_acq_rel);
    };
    std::uint64_t entered = ask();
    while (entered != 0 && entered < after) {
        ExploredSync::pause();
        entered = world.entered.load(std::memory_order_acquire);
    }
    node->value.write(0); // poison, before the memory is used again
    ExploredSync::destroy(node);
}

[[nodiscard]] inline explore::Program program(Variant variant) {
    return [variant](explore::Setup& setup) {
        auto& world = setup.make<World>();
        world.variant = variant;
        world.root.store(ExploredSync::make<Node>(), std::memory_order_relaxed);
        setup.name(&world.epoch, "epoch");
        setup.name(&world.entered, "entered");
        setup.name(&world.root, "root");
        setup.thread("reader", [&world] { read(world); });
        setup.thread("reclaimer", [&world] { replace(world); });
    };
}

} // namespace moat::scenarios::epoch_entry
