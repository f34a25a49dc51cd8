// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The cases T1 to T9 of the page-walk race (docs/the-race.md), and more of the address space's
// protocol. Each is a program of two to four threads, for the shipped headers and for mutated ones.
#pragma once

#include "moat/mm/readers/proc.hpp"

#include "lab/explore/program.hpp"
#include "lab/scenarios/mm/world.hpp"

#include <cstdint>

namespace moat::scenarios::space {

using explore::Setup;

constexpr unsigned retries = 1;
constexpr unsigned unbounded = ~0U;

/// Walks one page of the BAR and unmaps its large leaf, as Linux's numa_maps did.
template <class W>
void walk_splitting(W& world) {
    CountingVisitor visitor;
    const auto walked = walk_and_change(world.space, at(base, page), visitor,
                                        {.retries = retries, .device = DeviceLeaf::unmap});
    ExploredSync::check(walked.has_value(), "a walk succeeds");
    ExploredSync::check(visitor.leaves + visitor.holes == 1, "every address is visited once");
}

template <class Sync>
void start_walk_case(Setup& setup, World<Sync>& world) {
    world.map(base, giant);
    world.fault(base);
    setup.name(&world.space.core().pud_locks.of(base), "pud lock");
}

/// T1 (one faulter), T2 and T3 (and a zapper): the walker's leaf goes and comes back.
template <class Sync>
void walker_beside(Setup& setup, bool zaps) {
    auto& world = setup.make<World<Sync>>();
    start_walk_case(setup, world);
    setup.thread("walker", [&world] { walk_splitting(world); });
    setup.thread("faulter", [&world] { world.fault(base); });
    if (zaps)
        setup.thread("zapper", [&world] { world.zap(base, giant); });
}

/// T4: an entry that became a hole before the retry is visited once. T6: a refault at every retry,
/// `refaults` of them, or without end where that is `unbounded`.
template <class Sync>
void walker_and_refaults(Setup& setup, unsigned refaults) {
    auto& world = setup.make<World<Sync>>();
    start_walk_case(setup, world);
    setup.thread("walker", [&world] {
        walk_splitting(world);
        world.done.store(1, std::memory_order_release);
    });
    setup.thread("refaulter", [&world, refaults] {
        // A count without end would make each state a new one.
        for (unsigned left = refaults; left != 0; left -= refaults == unbounded ? 0 : 1) {
            if (world.done.load(std::memory_order_acquire) != 0)
                return;
            world.fault(base);
            if (refaults == unbounded)
                ExploredSync::pause();
        }
    });
}

/// Installs missing leaves. The broken way faults the leaf in, then looks for it again.
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
template <class Sync>
void installer_beside(Setup& setup, bool looks_again) {
    auto& world = setup.make<World<Sync>>();
    world.map(base, giant);
    setup.thread("installer", [&world, looks_again] {
        Installer<World<Sync>> visitor(world, looks_again);
        const auto walked =
            walk_and_change(world.space, at(base, page), visitor, {.retries = retries});
        ExploredSync::check(walked.has_value(), "a walk succeeds");
        ExploredSync::check(visitor.leaves == 1 && visitor.holes == 0,
                            "an installed leaf is visited once");
    });
    setup.thread("faulter", [&world] { world.fault(base); });
    setup.thread("zapper", [&world] { world.zap(base, giant); });
}

/// T7: a leaf that is faulted in for a device is mapped for it, or unmapped again by a zap.
template <class Sync>
void mapper_beside(Setup& setup, std::string_view variant) {
    auto& world = setup.make<World<Sync>>();
    world.map(base, giant);
    world.space.add_notifier(setup.make<MirrorNotifier<Sync>>(world.memory));
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
        ExploredSync::check(found == bar_base, "a DMA map of a mapping succeeds");
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

/// T8: a neighbour in the same table of level 1 is unmapped. With `faults`, the other page is
/// faulted in meanwhile; otherwise it is present from the start.
template <class Sync>
void neighbour_unmapped(Setup& setup, bool faults) {
    auto& world = setup.make<World<Sync>>();
    world.map(base, page, 0, frame_lg2);
    world.map(base + huge, page, 8 * page, frame_lg2);
    world.fault(base);
    setup.thread("unmapper", [&world] {
        ExploredSync::check(world.space.unmap(at(base, page)).has_value(),
                            "a mapping can be unmapped");
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
        ExploredSync::check(!world.maps(base), "an unmapped page has no leaf");
        ExploredSync::check(world.maps(base + huge), "a neighbour's leaf stays");
    });
}

/// T9: TABLE is absorbing in an entry of level 2, even while everything below it goes. A mutant
/// that frees such a table runs without the faulter: overlapping edits would fail a CHECK first.
template <class Sync>
void table_is_absorbing(Setup& setup, bool faults) {
    auto& world = setup.make<World<Sync>>();
    world.map(base, giant, page);
    world.fault(base);
    setup.thread("walker", [&world] {
        const bool is_table = world.space.core().look(VirtualAddress(base)).level < 2;
        const bool stays = world.space.core().look(VirtualAddress(base)).level < 2;
        ExploredSync::check(!is_table || stays, "a table stays while a walker is inside");
    });
    setup.thread("zapper", [&world] { world.zap(base, huge); });
    if (faults)
        setup.thread("faulter", [&world] { world.fault(base + page); });
}

/// A fault beside an unmap of the same memory leaves no leaf and no frame.
template <class Sync>
void fault_beside_unmap(Setup& setup) {
    auto& world = setup.make<World<Sync>>();
    world.map_ram(base, page);
    setup.thread("unmapper", [&world] {
        ExploredSync::check(world.space.unmap(at(base, page)).has_value(),
                            "a mapping can be unmapped");
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

/// A page's frame is freed only after the second MMU's notifier has run.
template <class Sync>
void reuse_after_invalidation(Setup& setup) {
    auto& world = setup.make<World<Sync>>();
    world.map_ram(base, page);
    world.space.add_notifier(setup.make<MirrorNotifier<Sync>>(world.memory));
    setup.thread("mapper", [&world] {
        const auto map = [&world](const LeafView& leaf) {
            world.memory.mirror.store(leaf.physical.value(), std::memory_order_release);
        };
        const auto faulted = world.space.with_leaf(VirtualAddress(base), Access::write, map);
        ExploredSync::check(faulted.has_value(), "an access to a mapping is served");
    });
    setup.thread("zapper", [&world] { world.zap(base, page); });
}

/// The table of level 0 goes, and a leaf of 2 MiB comes, between two looks of a fault.
template <class Sync>
void pte_table_goes(Setup& setup) {
    auto& world = setup.make<World<Sync>>();
    // A neighbour keeps the table of level 1; the unmapped page leaves an empty one of level 0.
    world.map(base + 2 * huge, page, 0, frame_lg2);
    world.map(base, page, 0, frame_lg2);
    world.fault(base);
    ExploredSync::check(world.space.unmap(at(base, page)).has_value(), "a mapping can be unmapped");
    world.map(base, huge, 0);
    setup.thread("faulter1", [&world] { world.fault(base); });
    setup.thread("faulter2", [&world] { world.fault(base + page); });
    setup.thread("zapper", [&world] { world.zap(base, huge); });
}

/// A revocation beside a fault: nothing is mapped when it returns, nor later.
template <class Sync>
void revoked_beside(Setup& setup) {
    auto& world = setup.make<World<Sync>>();
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

/// Two readers of numa_maps, a faulter, a revoker and a DMA mapper. Readers unmap nothing, and the
/// mapper's translation is gone when the revocation returns.
template <class Sync>
void all_together(Setup& setup) {
    auto& world = setup.make<World<Sync>>();
    world.map(base, giant);
    world.fault(base);
    world.space.add_notifier(setup.make<MirrorNotifier<Sync>>(world.memory));
    for (const char* const name : {"reader1", "reader2"})
        setup.thread(name, [&world] {
            unsigned lines = 0;
            numa_maps(world.space, [&](std::string_view line) {
                ++lines;
                ExploredSync::check(line == "100000000 default\n", "the mapping is reported");
            });
            ExploredSync::check(lines == 1, "a mapping is reported once");
        });
    setup.thread("faulter", [&world] {
        (void)world.space.fault(VirtualAddress(base), Access::read).has_value();
    });
    setup.thread("revoker", [&world] {
        world.space.revoke(world.bar);
        ExploredSync::check(!world.maps(base), "nothing is mapped once revoke returned");
        ExploredSync::check(world.memory.mirror.load(std::memory_order_acquire) == 0,
                            "no device reaches a revoked region");
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
