// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The cases T1 to T9 of the page-walk race, and what the address space's protocol adds to them:
// each a program of two to four threads, for any rules and any way to look again.
#pragma once

#include "moat/mm/readers/numa_maps.hpp"

#include "lab/explore/program.hpp"
#include "lab/scenarios/mm/world.hpp"

#include <cstdint>

namespace moat::scenarios::space {

using explore::Setup;

constexpr unsigned retries = 1;

/// Walks one page of the BAR, taking leaves of it away, as Linux's numa_maps did.
template <class Again, class W>
void walk_splitting(W& world) {
    CountingVisitor visitor;
    Walker<typename W::Space, CountingVisitor, Again> walker(
        world.space, visitor, {.retries = retries, .device = DeviceLeaf::unmap});
    const auto walked = walker.run(at(base, page));
    ExploredSync::check(walked.has_value(), "a walk succeeds");
    ExploredSync::check(visitor.leaves + visitor.holes == 1, "every address is visited once");
}

template <class Rules>
void start_walk_case(Setup& setup, World<Rules>& world) {
    world.map(base, giant);
    world.fault(base);
    setup.name(&world.space.core().pud_locks.of(base), "pud lock");
}

/// T1 (one faulter), T2 and T3 (and a zapper): the walker's leaf goes and comes back.
template <class Rules, class Again>
void walker_beside(Setup& setup, bool zaps) {
    auto& world = setup.make<World<Rules>>();
    start_walk_case(setup, world);
    setup.thread("walker", [&world] { walk_splitting<Again>(world); });
    setup.thread("faulter", [&world] { world.fault(base); });
    if (zaps)
        setup.thread("zapper", [&world] { world.zap(base, giant); });
}

/// T4: what was retried and has become a hole is visited once. T6: a refault at every retry.
template <class Rules, class Again>
void walker_and_refaults(Setup& setup, unsigned refaults) {
    auto& world = setup.make<World<Rules>>();
    start_walk_case(setup, world);
    setup.thread("walker", [&world] {
        walk_splitting<Again>(world);
        world.done.store(1, std::memory_order_release);
    });
    setup.thread("refaulter", [&world, refaults] {
        for (unsigned i = 0; i != refaults || !Again::bounded; ++i) {
            if (world.done.load(std::memory_order_acquire) != 0)
                return;
            world.fault(base);
            if (!Again::bounded)
                ExploredSync::pause();
        }
    });
}

/// Installs what is missing. The broken way: fault in, and look again for what came of it.
template <class W>
struct Installer : CountingVisitor {
    explicit Installer(W& used, bool looks) : world(used), looks_again(looks) {}

    std::optional<Access> install(VirtualRange hole) {
        if (!looks_again)
            return Access::read;
        world.fault(hole.start().value());
        if (world.maps(hole.start().value()))
            return Access::read;
        return std::nullopt;
    }

    W& world;
    bool looks_again;
};

/// T5: an installing walk beside a fault of the same leaf and a zap of it.
template <class Rules>
void installer_beside(Setup& setup, bool looks_again) {
    auto& world = setup.make<World<Rules>>();
    world.map(base, giant);
    setup.thread("installer", [&world, looks_again] {
        Installer<World<Rules>> visitor(world, looks_again);
        const auto walked =
            walk_and_change(world.space, at(base, page), visitor, {.retries = retries});
        ExploredSync::check(walked.has_value(), "a walk succeeds");
        ExploredSync::check(visitor.leaves == 1 && visitor.holes == 0,
                            "what is installed is visited, once");
    });
    setup.thread("faulter", [&world] { world.fault(base); });
    setup.thread("zapper", [&world] { world.zap(base, giant); });
}

/// T7: what is faulted in for a device is mapped for it, or unmapped again, whatever zaps do.
template <class Rules>
void mapper_beside(Setup& setup, std::string_view variant) {
    auto& world = setup.make<World<Rules>>();
    world.map(base, giant);
    world.space.add_notifier(setup.make<MirrorNotifier>(world.memory));
    const bool looks_again = variant == "look-again";
    const bool maps_late = variant == "maps-late";
    setup.thread("mapper", [&world, looks_again, maps_late] {
        std::uint64_t found = 0;
        const auto map = [&](const LeafView& leaf) {
            found = leaf.physical.value();
            if (!maps_late)
                world.memory.mirror.store(found, std::memory_order_release);
        };
        if (looks_again) {
            world.fault(base);
            if (const auto leaf = world.space.look_up(VirtualAddress(base)))
                map(*leaf);
        } else {
            const auto faulted = world.space.with_leaf(VirtualAddress(base), Access::write, map);
            ExploredSync::check(faulted.has_value(), "an access to a mapping is served");
        }
        ExploredSync::check(found == bar_base, "a DMA map of what is mapped succeeds");
        if (maps_late)
            world.memory.mirror.store(found, std::memory_order_release);
    });
    setup.thread("zapper", [&world] { world.zap(base, giant); });
    setup.thread("faulter", [&world] { world.fault(base); });
    setup.at_end([&world] {
        ExploredSync::check(world.memory.mirror.load(std::memory_order_relaxed) == 0 ||
                                world.maps(base),
                            "a device reaches only what is mapped");
    });
}

/// T8: a neighbour in the same table of level 1 is unmapped. `faults`: the neighbour's page comes
/// meanwhile; else it is there from the beginning.
template <class Rules>
void neighbour_unmapped(Setup& setup, bool faults) {
    auto& world = setup.make<World<Rules>>();
    world.map(base, page, 0, frame_lg2);
    world.map(base + huge, page, 8 * page, frame_lg2);
    world.fault(base);
    setup.thread("unmapper", [&world] {
        ExploredSync::check(world.space.unmap(at(base, page)).has_value(), "what is mapped goes");
    });
    if (faults)
        setup.thread("faulter", [&world] {
            world.fault(base + huge);
            ExploredSync::check(world.maps(base + huge), "a neighbour's leaf stays");
        });
    else
        world.fault(base + huge);
    setup.thread("walker", [&world] {
        CountingVisitor visitor;
        const auto walked = walk(world.space, at(base + huge, page), visitor);
        ExploredSync::check(walked.has_value() && visitor.leaves + visitor.holes == 1,
                            "every address is visited once");
    });
    setup.at_end([&world] {
        ExploredSync::check(!world.maps(base), "what was unmapped is gone");
        ExploredSync::check(world.maps(base + huge), "a neighbour's leaf stays");
    });
}

/// T9: TABLE is absorbing in an entry of level 2, also while all below it goes.
template <class Rules>
void table_is_absorbing(Setup& setup) {
    auto& world = setup.make<World<Rules>>();
    world.map(base, giant, page);
    world.fault(base);
    setup.thread("walker", [&world] {
        const bool is_table = world.space.core().look(VirtualAddress(base)).level < 2;
        const bool stays = world.space.core().look(VirtualAddress(base)).level < 2;
        ExploredSync::check(!is_table || stays, "a table stays while a walker is inside");
    });
    setup.thread("zapper", [&world] { world.zap(base, huge); });
    // Beside a table that goes, edits overlap, and the engine ends the program.
    if (Rules::tables_stay)
        setup.thread("faulter", [&world] { world.fault(base + page); });
}

/// A fault beside an unmap of the same memory: nothing is left behind.
template <class Rules>
void fault_beside_unmap(Setup& setup) {
    auto& world = setup.make<World<Rules>>();
    world.map_ram(base, page);
    setup.thread("unmapper", [&world] {
        ExploredSync::check(world.space.unmap(at(base, page)).has_value(), "what is mapped goes");
    });
    setup.thread("faulter", [&world] {
        const auto faulted = world.space.fault(VirtualAddress(base), Access::write);
        ExploredSync::check(faulted || faulted.error().code() == ErrorCode::not_found,
                            "a fault is served or finds no mapping");
    });
    setup.at_end([&world] {
        ExploredSync::check(!world.maps(base), "no leaf is left where nothing is mapped");
        ExploredSync::check(world.memory.frames_in_use() == 0, "no frame is left in use");
    });
}

/// A page's frame goes back after the second MMU was told.
template <class Rules>
void reuse_after_invalidation(Setup& setup) {
    auto& world = setup.make<World<Rules>>();
    world.map_ram(base, page);
    world.space.add_notifier(setup.make<MirrorNotifier>(world.memory));
    setup.thread("mapper", [&world] {
        const auto map = [&world](const LeafView& leaf) {
            world.memory.mirror.store(leaf.physical.value(), std::memory_order_release);
        };
        const auto faulted = world.space.with_leaf(VirtualAddress(base), Access::write, map);
        ExploredSync::check(faulted.has_value(), "an access to a mapping is served");
    });
    setup.thread("zapper", [&world] { world.zap(base, page); });
}

/// The table of level 0 goes and a leaf of 2 MiB comes between a fault's two looks.
template <class Rules>
void pte_table_goes(Setup& setup) {
    auto& world = setup.make<World<Rules>>();
    // A neighbour keeps the table of level 1; a page that is gone leaves an empty one of level 0.
    world.map(base + 2 * huge, page, 0, frame_lg2);
    world.map(base, page, 0, frame_lg2);
    world.fault(base);
    ExploredSync::check(world.space.unmap(at(base, page)).has_value(), "what is mapped goes");
    world.map(base, huge, 0);
    setup.thread("faulter1", [&world] { world.fault(base); });
    setup.thread("faulter2", [&world] { world.fault(base + page); });
    setup.thread("zapper", [&world] { world.zap(base, huge); });
}

/// A revocation beside a fault: when it returns, nothing is mapped, and stays so.
template <class Rules>
void revoked_beside(Setup& setup) {
    auto& world = setup.make<World<Rules>>();
    world.map(base, giant);
    world.fault(base);
    setup.thread("revoker", [&world] {
        world.space.revoke(world.bar);
        ExploredSync::check(!world.maps(base), "nothing is mapped once revoke returned");
    });
    setup.thread("faulter", [&world] {
        const auto faulted = world.space.fault(VirtualAddress(base), Access::read);
        ExploredSync::check(faulted || faulted.error().code() == ErrorCode::io,
                            "a fault is served or finds the region revoked");
    });
    setup.thread("mapping", [&world] {
        world.map(base + giant, giant, giant);
        (void)world.space.fault(VirtualAddress(base + giant), Access::read).has_value();
    });
    setup.at_end([&world] {
        ExploredSync::check(!world.maps(base) && !world.maps(base + giant),
                            "nothing of a revoked region is mapped");
    });
}

/// Two readers of numa_maps, a faulter, a revoker and a DMA mapper. Reading takes nothing away, and
/// what the mapper mapped is gone when the revocation has returned.
template <class Rules>
void all_together(Setup& setup) {
    auto& world = setup.make<World<Rules>>();
    world.map(base, giant);
    world.fault(base);
    world.space.add_notifier(setup.make<MirrorNotifier>(world.memory));
    for (const char* const name : {"reader1", "reader2"})
        setup.thread(name, [&world] {
            unsigned lines = 0;
            numa_maps(world.space, [&](std::string_view line) {
                ++lines;
                ExploredSync::check(line == "100000000 default\n", "the mapping is told of");
            });
            ExploredSync::check(lines == 1, "a mapping is told of once");
        });
    setup.thread("faulter", [&world] {
        (void)world.space.fault(VirtualAddress(base), Access::read).has_value();
    });
    setup.thread("revoker", [&world] {
        world.space.revoke(world.bar);
        ExploredSync::check(!world.maps(base), "nothing is mapped once revoke returned");
        ExploredSync::check(world.memory.mirror.load(std::memory_order_acquire) == 0,
                            "no device reaches what is revoked");
    });
    setup.thread("mapper", [&world] {
        const auto map = [&world](const LeafView& leaf) {
            world.memory.mirror.store(leaf.physical.value(), std::memory_order_release);
        };
        const auto faulted = world.space.with_leaf(VirtualAddress(base), Access::write, map);
        ExploredSync::check(faulted || faulted.error().code() == ErrorCode::io,
                            "a DMA map succeeds or finds the region revoked");
    });
}

} // namespace moat::scenarios::space
