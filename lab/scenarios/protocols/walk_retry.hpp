// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A walker that has to read an entry again: how often, and with which action.
// Each variant but `right` has one mistake. A small model.
#pragma once

#include "lab/explore/explored_sync.hpp"
#include "lab/scenarios/pud_slot.hpp"

#include <array>
#include <string_view>

namespace moat::scenarios::walk_retry {

enum class Variant : std::uint8_t {
    right,
    sticky_action,   ///< AGAIN is still set when the entry is a hole: it is visited twice
    unbounded_retry, ///< two threads undo each other's work for ever
};

inline constexpr std::array<std::string_view, 3> variant_names = {"right", "sticky-action",
                                                                  "unbounded-retry"};

enum class Action : std::uint8_t { proceed, again };

struct World {
    Variant variant = Variant::right;
    pud_slot::World<ExploredSync> slot;
    ExploredSync::Atomic<std::uint64_t> done;
};

/// Visits one entry. Return: the number of visits.
inline unsigned walk(World& world) {
    unsigned visits = 0;
    Action action = Action::proceed;
    const unsigned counts = world.variant == Variant::unbounded_retry ? 0 : 1;
    for (unsigned attempt = 0;; attempt += counts) {
        const std::uint64_t seen = world.slot.load();
        if (seen == pud_slot::leaf) {
            const bool locked = attempt == 2;
            pud_slot::split_leaf(world.slot);
            if (locked)
                return visits + 1; // reports the state under the lock
            action = Action::again;
            if (world.slot.load() != pud_slot::none) {
                ExploredSync::pause();
                continue;
            }
        }
        ++visits; // a hole, or a table that has been walked
        if (world.variant != Variant::sticky_action || action == Action::proceed)
            return visits;
        action = Action::proceed;
    }
}

/// Restores the leaf whenever it is gone, until the walker has finished.
inline void fault_always(World& world) {
    while (world.done.load(std::memory_order_acquire) == 0) {
        pud_slot::fault(world.slot, {.iterations = 1});
        ExploredSync::pause();
    }
}

[[nodiscard]] inline explore::Program program(Variant variant) {
    return [variant](explore::Setup& setup) {
        auto& world = setup.make<World>();
        world.variant = variant;
        setup.name(&world.slot.slot, "pud");
        setup.name(&world.slot.lock, "pud lock");
        setup.name(&world.done, "done");
        setup.thread("walker", [&world] {
            const unsigned visits = walk(world);
            ExploredSync::check(visits == 1, "an entry is visited twice by one walk");
            world.done.store(1, std::memory_order_release);
        });
        setup.thread("faulter", [&world] {
            if (world.variant == Variant::sticky_action)
                pud_slot::fault(world.slot, {.iterations = 1});
            else
                fault_always(world);
        });
    };
}

} // namespace moat::scenarios::walk_retry
