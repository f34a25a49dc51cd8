// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Threads push ranges that they free on a list, which the ranges' owner drains. Each variant but
// `right` has one mistake. A small model.
#pragma once

#include "lab/explore/explored_sync.hpp"

#include <array>
#include <string_view>

namespace moat::scenarios::remote_free {

enum class Variant : std::uint8_t {
    right,
    push_lost,      ///< a push that stores a head computed from an old one
    drain_lost,     ///< a drain that reads the head and clears it in two steps
    push_relaxed,   ///< the push is no release: the drainer reads an unwritten link
    exit_undrained, ///< a thread ends without draining its list
};

inline constexpr std::array<std::string_view, 5> variant_names = {
    "right", "push-lost", "drain-lost", "push-relaxed", "exit-undrained"};

struct Range {
    ExploredSync::Plain<Range*> next{nullptr};
};

struct World {
    Variant variant = Variant::right;
    ExploredSync::Atomic<Range*> freed;
    ExploredSync::Atomic<std::uint64_t> drained;
    std::array<Range, 2> ranges;
};

inline constexpr auto relaxed = std::memory_order_relaxed;

inline void push(World& world, Range& range) {
    Range* head = world.freed.load(relaxed);
    if (world.variant == Variant::push_lost) {
        range.next.write(head);
        world.freed.store(&range, std::memory_order_release);
        return;
    }
    const auto order = world.variant == Variant::push_relaxed ? relaxed : std::memory_order_release;
    do
        range.next.write(head);
    while (!world.freed.compare_exchange_weak(head, &range, order, relaxed));
}

inline void drain(World& world) {
    Range* head = nullptr;
    if (world.variant == Variant::drain_lost) {
        head = world.freed.load(std::memory_order_acquire);
        world.freed.store(nullptr, relaxed);
    } else {
        head = world.freed.exchange(nullptr, std::memory_order_acquire);
    }
    for (; head != nullptr; head = head->next.read())
        world.drained.fetch_add(1, relaxed);
}

[[nodiscard]] inline explore::Program program(Variant variant) {
    return [variant](explore::Setup& setup) {
        auto& world = setup.make<World>();
        world.variant = variant;
        setup.name(&world.freed, "remote list");
        setup.name(&world.drained, "drained");
        setup.name(&world.ranges[0].next, "range 0 next");
        setup.name(&world.ranges[1].next, "range 1 next");
        setup.thread("owner", [&world] { drain(world); });
        setup.thread("freer", [&world] { push(world, world.ranges[0]); });
        setup.thread("other freer", [&world] { push(world, world.ranges[1]); });
        setup.at_end([&world] {
            if (world.variant != Variant::exit_undrained)
                drain(world);
            ExploredSync::check(world.drained.load(relaxed) == 2, "a freed range is lost");
        });
    };
}

} // namespace moat::scenarios::remote_free
