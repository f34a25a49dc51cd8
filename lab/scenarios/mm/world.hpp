// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped address space under the explorer: its memory in the arena, its rules and walks with
// one step left out. Nothing here is a model: the headers of include/moat/address_space are
// instantiated with ExploredSync. The cases are in cases.hpp.
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

/// Tables and metadata in the arena; what pages hold is not modelled.
class ArenaStore {
  public:
    using Sync = ExploredSync;
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

/// Who reads a table where none is has run into the page-walk race.
struct ExploredOracle {
    static void table_read(bool is_table) {
        ExploredSync::check(is_table, "a table is read from memory that holds no tables");
    }
};

/// A released table is never used again within an execution, so that whoever still reads it is
/// caught; and a frame that goes back must not be in use by a second MMU.
class ExploredMemory : public PhysicalMemory<ArenaStore, ExploredOracle> {
  public:
    using PhysicalMemory::PhysicalMemory;

    Result<PhysicalAddress> allocate(unsigned bytes_lg2) {
        const auto table = PhysicalMemory::allocate(bytes_lg2);
        ++tables_made_;
        return table;
    }

    void release(PhysicalAddress table, unsigned bytes_lg2) {
        explored::announce(explore::Kind::free, words(table), bit(bytes_lg2));
        ++tables_released_;
    }

    void drop(PhysicalAddress address) {
        ExploredSync::check(mirror.load(std::memory_order_acquire) != address.value(),
                            "memory goes back that a second MMU still maps");
        PhysicalMemory::drop(address);
    }

    [[nodiscard]] unsigned tables_left() const { return tables_made_ - tables_released_; }

    /// The one translation of a second MMU.
    ExploredSync::Atomic<std::uint64_t> mirror{0};

  private:
    unsigned tables_made_ = 0;
    unsigned tables_released_ = 0;
};

struct ExploredRules : ShippedRules {
    static void check(bool condition, std::string_view text) {
        ExploredSync::check(condition, text);
    }
};

// Mutants of the protocol: each leaves out one step.

struct Unasked : ExploredRules {
    static constexpr bool asks_attached = false;
};

struct ReusesFirst : ExploredRules {
    static constexpr bool tells_before_reuse = false;
};

struct FreesSharedTable : ExploredRules {
    static constexpr bool spares_neighbours = false;
};

struct TableGoes : ExploredRules {
    static constexpr bool tables_stay = false;
};

struct LooksBeforeLock : ExploredRules {
    static constexpr bool looks_under_lock = false;
};

struct RevokesAfterZap : ExploredRules {
    static constexpr bool marks_before_zap = false;
};

struct Untold : ExploredRules {
    static constexpr bool tells_revoked = false;
};

// Mutants of the walk: how it looks again at an entry of level 2.

enum class Seen : std::uint8_t { none, leaf, table };

template <class Walker>
[[nodiscard]] Spot look(Walker& walker, VirtualRange part) {
    return walker.space().core().look(part.start());
}

[[nodiscard]] inline Seen seen(const Spot& spot) {
    return spot.level < 2 ? Seen::table : spot.is_leaf ? Seen::leaf : Seen::none;
}

/// What the engine has no function for: another load is taken for a table, whatever it is.
template <class Walker>
void descend_unchecked(Walker& walker, VirtualRange part) {
    const Spot spot = look(walker, part);
    if (seen(spot) == Seen::table)
        walker.visit_tables(part);
    else
        (void)walker.space().memory().words(spot.is_leaf ? spot.leaf.physical : PhysicalAddress(0));
}

struct OldLook : LookAgain {
    template <class Walker>
    static void look(Walker& walker, VirtualRange part) {
        if (seen(space::look(walker, part)) == Seen::none)
            walker.visit_tables(part);
        else
            descend_unchecked(walker, part);
    }
};

struct TwoLoads : LookAgain {
    template <class Walker>
    static void look(Walker& walker, VirtualRange part) {
        if (seen(space::look(walker, part)) == Seen::none ||
            seen(space::look(walker, part)) == Seen::leaf)
            walker.visit_tables(part);
        else
            descend_unchecked(walker, part);
    }
};

struct TwoLoadsReversed : LookAgain {
    template <class Walker>
    static void look(Walker& walker, VirtualRange part) {
        if (seen(space::look(walker, part)) == Seen::leaf ||
            seen(space::look(walker, part)) == Seen::none)
            walker.visit_tables(part);
        else
            descend_unchecked(walker, part);
    }
};

/// The merged fix. Not a mutant: right as long as TABLE is absorbing.
struct Reload : LookAgain {
    template <class Walker>
    static void look(Walker& walker, VirtualRange part) {
        if (seen(space::look(walker, part)) != Seen::table)
            walker.visit_tables(part);
        else
            descend_unchecked(walker, part);
    }
};

struct StickyAction : LookAgain {
    static constexpr Action fresh(Action last) { return last; }
};

/// It waits for others before it looks: so that they undo its work, whenever they can.
struct UnboundedRetry : LookAgain {
    static constexpr bool bounded = false;

    template <class Walker>
    static void look(Walker& walker, VirtualRange part) {
        ExploredSync::pause();
        LookAgain::look(walker, part);
    }
};

template <class Rules>
struct World {
    using Space = AddressSpace<Sv39, ExploredSync, ExploredMemory, Rules>;

    World()
        : memory(ArenaStore(), {.nodes = ram}),
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

    ExploredMemory memory;
    DeviceRegion<ExploredSync>& bar;
    Space space;
    ExploredSync::Atomic<std::uint64_t> done{0};
};

/// Maps the second MMU away when it hears that a translation went.
struct MirrorNotifier final : Notifier<ExploredSync> {
    explicit MirrorNotifier(ExploredMemory& physical) : memory(physical) {}

    void invalidated(const InvalidationRequest<VirtualAddress>&, Change) override {
        memory.mirror.store(0, std::memory_order_release);
    }

    ExploredMemory& memory;
};

/// Wants leaves of pages, and counts how often it is shown an address.
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

    /// Walks are of one page.
    void visited() const {
        ExploredSync::check(leaves + holes == 1, "every address is visited once");
    }
};

} // namespace moat::scenarios::space
