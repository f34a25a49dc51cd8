// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped address space under the explorer, with its memory in the arena. Nothing here is a
// model: this instantiates the headers of include/moat/mm, or mutated copies of them
// (mutants/mutations.cmake). The cases are in cases.hpp and dma_map.hpp.
#pragma once

#include "moat/mm/address_space.hpp"
#include "moat/mm/walker.hpp"
#include "moat/page_table/formats/riscv.hpp"

#include "lab/explore/explored_sync.hpp"

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace moat::scenarios::space {

using namespace moat::mm;

/// Three levels, so that an entry of level 2 is one of the root.
using Sv39 = formats::RiscV<>;

constexpr std::uint64_t page = 1ULL << frame_lg2;
constexpr std::uint64_t huge = 1ULL << pmd_lg2;
constexpr std::uint64_t giant = 1ULL << pud_lg2;
constexpr std::uint64_t base = 4 * giant;
constexpr std::uint64_t bar_base = 1ULL << 40;

[[nodiscard]] inline VirtualRange at(std::uint64_t start, std::uint64_t size) {
    return {VirtualAddress(start), ByteCount(size)};
}

[[nodiscard]] inline explore::Arena& arena() {
    return explore::Machine::current().arena();
}

template <class T>
[[nodiscard]] std::span<T> in_arena(std::size_t count, std::size_t align = alignof(T)) {
    auto* const things = static_cast<T*>(arena().allocate(count * sizeof(T), align));
    MOAT_CHECK(things != nullptr, "the arena has room for a scenario's memory");
    for (std::size_t i = 0; i != count; ++i)
        new (things + i) T();
    return {things, count};
}

/// Tables and metadata in the arena. The contents of pages are not modelled.
template <class S>
class ArenaStore {
  public:
    using Sync = S;
    static constexpr std::size_t most_tables = 10;
    static constexpr unsigned cached_frames = 0;

    [[nodiscard]] std::span<std::byte> tables() const { return tables_; }

    [[nodiscard]] std::span<TableHeader> headers() const { return headers_; }

    [[nodiscard]] static std::span<Frame<Sync>> frames(std::uint64_t count) {
        return in_arena<Frame<Sync>>(count);
    }

    static void clear(std::uint64_t, std::uint64_t) {}

  private:
    std::span<std::byte> tables_ = in_arena<std::byte>(most_tables * page, page);
    std::span<TableHeader> headers_ = in_arena<TableHeader>(most_tables);
};

/// Catches a reader of a released table, since an execution never reuses one, and a frame that is
/// freed while a second MMU still maps it.
template <class Sync>
class ExploredMemory : public PhysicalMemory<ArenaStore<Sync>> {
    using Base = PhysicalMemory<ArenaStore<Sync>>;

  public:
    using Base::Base;

    void release(PhysicalAddress table, unsigned bytes_lg2) {
        explored::announce(explore::Kind::free, this->words(table), bit(bytes_lg2));
    }

    void drop(PhysicalAddress address) {
        ExploredSync::check(mirror.load(std::memory_order_acquire) != address.value(),
                            "a frame is freed while a second MMU still maps it");
        Base::drop(address);
    }

    /// The one translation of a second MMU.
    ExploredSync::Atomic<std::uint64_t> mirror{0};
};

template <class S>
struct World {
    using Sync = S;
    using Space = AddressSpace<Sv39, Sync, ExploredMemory<Sync>>;

    World()
        : memory(ArenaStore<Sync>(), {.nodes = ram}),
          bar(**memory.add_region({PhysicalAddress(bar_base), ByteCount(16 * giant)},
                                  RegionKind::registers)),
          space(memory, *Space::Tables::create(memory), {.retries = 2}) {}

    /// A mapping of the BAR, from `offset` on.
    void map(std::uint64_t start, std::uint64_t size, std::uint64_t offset = 0,
             unsigned largest_leaf_lg2 = pud_lg2) {
        const auto mapped = space.map(at(start, size), {.kind = VmaKind::device,
                                                        .largest_leaf_lg2 = largest_leaf_lg2,
                                                        .region = &bar,
                                                        .offset = ByteCount(offset)});
        ExploredSync::check(mapped.has_value(), "a free range can be mapped");
    }

    void map_ram(std::uint64_t start, std::uint64_t size) {
        const auto mapped = space.map(at(start, size), {});
        ExploredSync::check(mapped.has_value(), "a free range can be mapped");
    }

    void fault(std::uint64_t address) {
        const auto faulted = space.fault(VirtualAddress(address), Access::write);
        ExploredSync::check(faulted.has_value(), "an access to a mapping is served");
    }

    void zap(std::uint64_t start, std::uint64_t size) {
        const auto zapped = space.zap(at(start, size));
        ExploredSync::check(zapped.has_value(), "a range can be zapped");
    }

    [[nodiscard]] bool maps(std::uint64_t address) const {
        return space.look_up(VirtualAddress(address)).has_value();
    }

    static constexpr std::array ram = {ByteCount(8 * page)};

    ExploredMemory<Sync> memory;
    DeviceRegion<Sync>& bar;
    Space space;
    ExploredSync::Atomic<std::uint64_t> done{0};
};

/// Unmaps the page from the second MMU when a translation goes.
template <class Sync>
struct MirrorNotifier final : Notifier<Sync> {
    explicit MirrorNotifier(ExploredMemory<Sync>& physical) : memory(physical) {}

    void invalidated(const InvalidationRequest<VirtualAddress>&, Change) override {
        memory.mirror.store(0, std::memory_order_release);
    }

    ExploredMemory<Sync>& memory;
};

/// Asks for leaves of 4 KiB, and counts how often it visits an address.
struct CountingVisitor {
    unsigned leaves = 0;
    unsigned holes = 0;

    template <class Tree, unsigned L>
    Action leaf(VirtualRange part, const Leaf<Tree, L>& found) {
        if (L != 0)
            return Action::subtree;
        count(part, found);
        return Action::proceed;
    }

    template <class Tree, unsigned L>
    void kept(VirtualRange part, const Leaf<Tree, L>& found) {
        count(part, found);
    }

    void hole(VirtualRange, unsigned) {
        ++holes;
        visited();
    }

    template <class Tree, unsigned L>
    void count(VirtualRange, const Leaf<Tree, L>& found) {
        ++leaves;
        visited();
        ExploredSync::check(found.physical().value() >= bar_base, "a leaf leads into the BAR");
    }

    /// The walks here cover one page.
    void visited() const {
        ExploredSync::check(leaves + holes == 1, "every address is visited once");
    }
};

} // namespace moat::scenarios::space
