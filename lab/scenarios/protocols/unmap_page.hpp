// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A thread unmaps, invalidates and frees a page while a device reaches it through its IOTLB, and
// reuses the IOVA. Each variant but `right` has one mistake. A small model.
#pragma once

#include "lab/explore/explored_sync.hpp"

#include <array>
#include <string_view>

namespace moat::scenarios::unmap_page {

enum class Variant : std::uint8_t {
    right,
    free_before_invalidation,       ///< the page is freed while the IOTLB still maps it
    invalidation_before_clear,      ///< the IOTLB can reload the live entry
    iova_reused_before_invalidation ///< the IOVA's next owner inherits the old translation
};

inline constexpr std::array<std::string_view, 4> variant_names = {
    "right", "free-before-invalidation", "invalidation-before-clear",
    "iova-reused-before-invalidation"};

struct Page {
    ExploredSync::Atomic<std::uint64_t> bytes;
};

/// One entry of the table, and the one line of the device's cache of translations. The device
/// translates and accesses in one step of the bus, so that a fence with it is `bus`.
struct World {
    Variant variant = Variant::right;
    ExploredSync::Atomic<Page*> entry;
    ExploredSync::Atomic<Page*> iotlb;
    ExploredSync::Mutex bus;
    Page* next_page = nullptr;
};

inline constexpr auto relaxed = std::memory_order_relaxed;

inline void device_writes(World& world) {
    const ExclusiveLock lock(world.bus);
    Page* page = world.iotlb.load(relaxed);
    if (page == nullptr) {
        page = world.entry.load(relaxed);
        world.iotlb.store(page, relaxed);
    }
    if (page != nullptr)
        page->bytes.store(1, relaxed);
}

inline void invalidate(World& world) {
    const ExclusiveLock lock(world.bus);
    world.iotlb.store(nullptr, relaxed);
}

inline void unmap(World& world) {
    Page* const page = world.entry.load(relaxed);
    if (world.variant == Variant::invalidation_before_clear)
        invalidate(world);
    world.entry.store(nullptr, relaxed);
    if (world.variant == Variant::iova_reused_before_invalidation)
        world.entry.store(world.next_page, relaxed);
    if (world.variant == Variant::free_before_invalidation)
        ExploredSync::destroy(page);
    if (world.variant == Variant::right || world.variant == Variant::free_before_invalidation)
        invalidate(world);
    if (world.variant == Variant::right || world.variant == Variant::invalidation_before_clear)
        ExploredSync::destroy(page);
    if (world.variant == Variant::right)
        world.entry.store(world.next_page, relaxed);
    if (world.variant == Variant::iova_reused_before_invalidation) {
        const std::uint64_t before = page->bytes.load(relaxed);
        device_writes(world);
        ExploredSync::check(page->bytes.load(relaxed) == before,
                            "the device writes through a translation of the last owner");
        invalidate(world);
        ExploredSync::destroy(page);
    }
}

[[nodiscard]] inline explore::Program program(Variant variant) {
    return [variant](explore::Setup& setup) {
        auto& world = setup.make<World>();
        world.variant = variant;
        world.next_page = ExploredSync::make<Page>();
        world.entry.store(ExploredSync::make<Page>(), relaxed);
        setup.name(&world.entry, "entry");
        setup.name(&world.iotlb, "iotlb");
        setup.name(&world.bus, "bus");
        setup.thread("device", [&world] {
            device_writes(world);
            device_writes(world);
        });
        setup.thread("unmapper", [&world] { unmap(world); });
    };
}

} // namespace moat::scenarios::unmap_page
