// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The readers scenario, for the shipped header and for mutated copies of it: readers follow a
// pointer, and reclaimers unlink its node, wait for a grace period and free the node. The
// explorer's own RCU is not used, because this protocol is under test.
#pragma once

#include "moat/sync/readers.hpp"

#include "lab/explore/explored_sync.hpp"
#include "lab/scenarios/scenario.hpp"

#include <array>

namespace moat::scenarios::grace_periods {

inline constexpr unsigned most_threads = 2;

struct Node {
    ExploredSync::Plain<std::uint64_t> value{7};
};

template <class Sync>
struct World {
    /// The first look at an idle slot removes it from the list.
    using Readers = epoch::Readers<Sync, most_threads, 1>;

    Readers readers;
    std::array<typename Readers::Slot, most_threads> slots;
    std::array<ExploredSync::Atomic<Node*>, most_threads> roots;
};

template <class Sync>
void read(World<Sync>& world, unsigned slot) {
    world.readers.enter(world.slots[slot]);
    for (auto& root : world.roots)
        if (Node* const node = root.load(std::memory_order_acquire))
            ExploredSync::check(node->value.read() == 7, "a reader sees a node as it was");
    world.readers.leave(world.slots[slot]);
}

template <class Sync>
void reclaim(World<Sync>& world, unsigned place, unsigned waits) {
    for (; waits != 0; --waits)
        world.readers.wait(place); // removes idle slots
    Node* const node = world.roots[place].load(std::memory_order_relaxed);
    world.roots[place].store(nullptr, std::memory_order_release);
    world.readers.wait(place);
    node->value.write(0); // poison, before the memory is used again
    ExploredSync::destroy(node);
}

template <class Sync>
[[nodiscard]] explore::Program program_with(const Configuration& text) {
    const unsigned readers = number(text, "readers");
    const unsigned reclaimers = number(text, "reclaimers");
    const unsigned waits = number(text, "waits");
    const unsigned sections = number(text, "sections");
    const bool listed = text.at("slots") != "dormant";
    return [=](explore::Setup& setup) {
        auto& world = setup.make<World<Sync>>();
        for (unsigned i = 0; i != reclaimers; ++i)
            world.roots[i].store(ExploredSync::make<Node>(), std::memory_order_relaxed);
        for (unsigned i = 0; i != most_threads && listed; ++i)
            read(world, i);
        for (unsigned i = 0; i != readers; ++i)
            setup.thread("reader", [&world, sections, i] {
                for (unsigned section = 0; section != sections; ++section)
                    read(world, i);
            });
        for (unsigned i = 0; i != reclaimers; ++i)
            setup.thread("reclaimer", [&world, waits, i] { reclaim(world, i, waits); });
    };
}

} // namespace moat::scenarios::grace_periods
