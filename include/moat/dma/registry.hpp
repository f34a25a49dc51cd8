// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Registry: finds mappings by address, to the byte: the living ones, and the latest past ones. The
// tracker writes it, fault/diagnose.hpp reads it.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/dma/detail/recent_past.hpp"
#include "moat/dma/detail/registered.hpp"
#include "moat/dma/detail/registry_sizes.hpp"
#include "moat/fault/diagnose.hpp"
#include "moat/fault/mapping.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <utility>

namespace moat::dma {

/// A tree over page numbers, nine bits per level. A leaf covers 2 MiB and has one slot per page,
/// for a mapping that begins there: a cache line with its own lock. Nodes and leaves stay until the
/// registry ends, since addresses are reused. Nodes and leaves mark what may be in use; a search
/// that finds a slot or a leaf empty clears its mark. So adding a mapping costs one descent and one
/// uncontended lock, and a search for a neighbour skips what is empty.
template <SyncPolicy Sync>
class Registry {
  public:
    explicit Registry(std::size_t history, const SharedByMappings& shared = {})
        : shared_(shared), past_(history, shared) {
        for (auto& each : recent_)
            each.store(&no_leaf_, std::memory_order_relaxed);
    }

    ~Registry() { destroy(root_.load(std::memory_order_relaxed), levels - 1); }

    Registry(const Registry&) = delete;
    Registry& operator=(const Registry&) = delete;

    /// Adds a mapping that begins at `start`, where no other begins in the same page;
    /// fill(PackedMapping&) sets it. Errors: no_memory.
    template <class Fill>
    [[nodiscard, gnu::always_inline]] Result<void> add(Iova start, Fill&& fill) {
        Leaf* leaf = find(page_of(start));
        if (leaf == nullptr) [[unlikely]]
            leaf = make(page_of(start));
        if (leaf == nullptr) [[unlikely]]
            return fail(ErrorCode::no_memory, "no memory to record a mapping");
        Slot& slot = leaf->slot(start);
        const ExclusiveLock lock(slot.mutex);
        MOAT_CHECK(!slot.used, "one mapping begins in a page");
        fill(slot.mapping);
        slot.used = true;
        if (!slot.announced) [[unlikely]]
            announce(page_of(start), *leaf, slot);
        return {};
    }

    /// Removes the mapping that begins at `start` if `accept(const PackedMapping&)` returns true;
    /// not called if there is none. Return: whether it was removed.
    template <class Accept>
    [[nodiscard, gnu::noinline]] bool remove(Iova start, Accept&& accept) {
        return take_out(start, accept, [](const PackedMapping&, Stamp) {});
    }

    /// The same, and adds it to the past mappings. The history drops it without memory.
    template <class Accept>
    [[nodiscard, gnu::always_inline]] bool retire(Iova start, const fault::Event& unmapped,
                                                  Accept&& accept) {
        PastStripe<Sync>* const stripe = past_.rings().own();
        if (stripe == nullptr) [[unlikely]]
            return remove(start, auto(accept)); // a copy, so that `accept` stays in registers
        const auto note = [&](const PackedMapping& mapping,
                              Stamp& stamp) __attribute__((always_inline)) {
            stamp = past_.rings().note(*stripe, mapping, page_of(start), unmapped, stamp);
        };
        return take_out(start, accept, note);
    }

    /// Calls use(PackedMapping&) for the mapping that begins at `start`. Return: the mapping as it
    /// was before, or nothing.
    template <class Use>
    std::optional<Registered> with(Iova start, Use&& use) {
        std::optional<Registered> found;
        if (Leaf* const leaf = find(page_of(start))) {
            Slot& slot = leaf->slot(start);
            const ExclusiveLock lock(slot.mutex);
            if (slot.used && slot.mapping.begins_at(start)) {
                found = unpack(slot.mapping, start);
                use(slot.mapping);
            }
        }
        return found;
    }

    /// What `packed`, which begins at `start`, stands for.
    [[nodiscard]] Registered unpack(const PackedMapping& packed, Iova start) const {
        return packed.unpack(page_of(start), shared_);
    }

    /// The mapping that begins at `start`.
    [[nodiscard]] std::optional<Registered> find_at(Iova start) {
        return with(start, [](const PackedMapping&) {});
    }

    /// The mapping that begins at `from`, or the next one above.
    [[nodiscard]] std::optional<fault::Mapping> first_from(Iova from) const {
        fault::SearchSteps steps;
        const fault::Neighbours found = around(from, steps);
        const bool here = found.at_or_below && found.at_or_below->range.start() == from;
        return here ? found.at_or_below : found.above;
    }

    [[nodiscard]] fault::Diagnosis diagnose(const fault::Record& record,
                                            const fault::DiagnoseOptions& options = {}) {
        return past_.with_history([&](const fault::History& history) {
            return fault::diagnose(*this, history, record, options);
        });
    }

    /// The latest past mapping that covered a byte of `range`.
    [[nodiscard]] std::optional<fault::PastMapping> latest_at(IovaRange range) {
        if (range.empty())
            return std::nullopt;
        return past_.with_history([&](const fault::History& history) {
            fault::SearchSteps steps;
            return history.around(range, steps).latest;
        });
    }

    /// Models fault::LiveMappings.
    [[nodiscard]] fault::Neighbours around(Iova address, fault::SearchSteps& steps) const {
        fault::Neighbours found;
        const std::uint64_t page = page_of(address);
        if (auto below = search<Below>(page, address, steps))
            found.at_or_below = below->mapping;
        if (auto above = search<Above>(page, address, steps))
            found.above = above->mapping;
        return found;
    }

    /// The mapping with the nearest start at or below `address`.
    [[nodiscard]] std::optional<fault::Mapping> at_or_below(Iova address) const {
        fault::SearchSteps steps;
        const auto found = search<Below>(page_of(address), address, steps);
        return found ? std::optional(found->mapping) : std::nullopt;
    }

    /// Calls visit(Registered) for each living mapping, by address. Mappings that are added or
    /// removed meanwhile may be visited or not.
    template <class Visit>
    void for_each(Visit&& visit) const {
        fault::SearchSteps steps;
        auto next = search<Below>(0, Iova(0), steps); // the search above begins after address 0
        if (!next)
            next = search<Above>(0, Iova(0), steps);
        while (next) {
            visit(*next);
            const Iova from = next->mapping.range.start();
            next = search<Above>(page_of(from), from, steps);
        }
    }

  private:
    using Sizes = RegistrySizes<Sync>;
    using Stamp = typename PastRings<Sync>::Stamp;

    static constexpr unsigned levels = Sizes::levels;
    static constexpr unsigned level_bits = Sizes::level_bits;
    static constexpr unsigned fan_out = 1U << level_bits;
    static constexpr unsigned words = (fan_out + 63) / 64;
    static constexpr unsigned page_lg2 = 12;

    struct alignas(64) Slot {
        typename Sizes::Lock mutex;
        PackedMapping mapping MOAT_GUARDED_BY(mutex){};
        bool used MOAT_GUARDED_BY(mutex) = false;
        bool announced MOAT_GUARDED_BY(mutex) = false; ///< marked in the leaf
        Stamp stamp MOAT_GUARDED_BY(mutex) = 0;
    };

    template <class T>
    using Atomic = typename Sync::template Atomic<T>;
    /// A bit for each child or slot that may hold something.
    using Marks = std::array<Atomic<std::uint64_t>, words>;

    struct LeafNumber {
        const std::uint64_t number; ///< of its first page, by `fan_out`
    };

    struct Leaf : LeafNumber {
        explicit Leaf(std::uint64_t which) : LeafNumber{which} {}

        /// For a mapping that begins at `start`. By a pointer, whose address is computed once.
        [[nodiscard]] Slot& slot(Iova start) { return *(slots.data() + slot_of(start)); }

        Marks may_hold{}; ///< changes under the mutex
        typename Sizes::Lock mutex;
        bool announced MOAT_GUARDED_BY(mutex) = false; ///< marked in its node
        std::array<Slot, fan_out> slots{};
    };

    struct Node {
        Marks may_hold{};
        std::array<Atomic<void*>, fan_out> children{};
    };

    [[nodiscard]] static std::uint64_t page_of(Iova address) { return address.value() >> page_lg2; }

    [[nodiscard]] static unsigned slot_of(Iova address) { return page_of(address) % fan_out; }

    [[nodiscard]] static unsigned index_of(std::uint64_t page, unsigned level) {
        return page >> (level_bits * level) & (fan_out - 1);
    }

    /// A leaf that was found lately, where that needs no descent.
    [[nodiscard, gnu::always_inline]] Leaf* find(std::uint64_t page) {
        LeafNumber* const recent = recent_of(page).load(std::memory_order_acquire);
        return recent->number == page / fan_out ? static_cast<Leaf*>(recent) : find_slowly(page);
    }

    [[nodiscard]] Atomic<LeafNumber*>& recent_of(std::uint64_t page) {
        return recent_[page / fan_out % Sizes::recent_leaves];
    }

    [[nodiscard, gnu::noinline]] Leaf* find_slowly(std::uint64_t page) {
        void* child = root_.load(std::memory_order_acquire);
        for (unsigned level = levels - 1; level != 0 && child != nullptr; --level)
            child = static_cast<Node*>(child)->children[index_of(page, level)].load(
                std::memory_order_acquire);
        if (child == nullptr || page >> (level_bits * levels) != 0)
            return nullptr;
        auto* const leaf = static_cast<Leaf*>(child);
        recent_of(page).store(leaf, std::memory_order_release);
        return leaf;
    }

    [[nodiscard, gnu::noinline]] Leaf* make(std::uint64_t page) {
        auto* link = &root_;
        for (unsigned level = levels - 1; level != 0; --level) {
            void* const node = child_or_make<Node>(*link);
            if (node == nullptr)
                return nullptr;
            link = &static_cast<Node*>(node)->children[index_of(page, level)];
        }
        return static_cast<Leaf*>(child_or_make<Leaf>(*link, page / fan_out));
    }

    template <class T, class... Args>
    [[nodiscard]] static void* child_or_make(Atomic<void*>& link, Args... args) {
        void* found = link.load(std::memory_order_acquire);
        if (found != nullptr)
            return found;
        T* const made = Sync::template make<T>(args...);
        if (made == nullptr || link.compare_exchange_strong(found, made, std::memory_order_acq_rel,
                                                            std::memory_order_acquire))
            return made;
        Sync::destroy(made);
        return found;
    }

    /// Calls taken(const PackedMapping&, Stamp&) for what is removed.
    template <class Accept, class Taken>
    [[nodiscard, gnu::always_inline]] bool take_out(Iova start, Accept& accept, Taken&& taken) {
        Leaf* const leaf = find(page_of(start));
        if (leaf == nullptr) [[unlikely]]
            return false;
        Slot& slot = leaf->slot(start);
        const ExclusiveLock lock(slot.mutex);
        if (!slot.used || !slot.mapping.begins_at(start) || !accept(std::as_const(slot.mapping)))
            [[unlikely]]
            return false;
        taken(std::as_const(slot.mapping), slot.stamp);
        slot.used = false;
        return true;
    }

    /// Marks the path from the root to the slot. Leaves' locks are taken after slots'.
    [[gnu::noinline]] void announce(std::uint64_t page, Leaf& leaf, Slot& slot)
        MOAT_REQUIRES(slot.mutex) {
        const ExclusiveLock lock(leaf.mutex);
        slot.announced = true;
        mark(leaf.may_hold, page % fan_out);
        if (std::exchange(leaf.announced, true))
            return;
        void* child = root_.load(std::memory_order_acquire);
        for (unsigned level = levels - 1; level != 0; --level) {
            Node& node = *static_cast<Node*>(child);
            const unsigned index = index_of(page, level);
            mark(node.may_hold, index);
            child = node.children[index].load(std::memory_order_acquire);
        }
    }

    static void mark(Marks& marks, unsigned index) {
        auto& word = marks[index / 64];
        if ((word.load(std::memory_order_relaxed) >> (index % 64) & 1) == 0)
            word.fetch_or(bit(index % 64), std::memory_order_acq_rel);
    }

    static void clear(Marks& marks, unsigned index) {
        marks[index / 64].fetch_and(~bit(index % 64), std::memory_order_acq_rel);
    }

    struct Below {
        static constexpr bool up = false;

        static bool right(Iova start, Iova at) { return start <= at; }
    };

    struct Above {
        static constexpr bool up = true;

        static bool right(Iova start, Iova at) { return start > at; }
    };

    /// The set bit of `word` nearest to `from` on `Side`, including `from`; or nothing.
    template <class Side>
    [[nodiscard]] static std::optional<unsigned> nearest(std::uint64_t word, unsigned from) {
        word &= Side::up ? ~low_bits(from) : low_bits(from) | bit(from);
        if (word == 0)
            return std::nullopt;
        return Side::up ? static_cast<unsigned>(std::countr_zero(word))
                        : 63U - static_cast<unsigned>(std::countl_zero(word));
    }

    /// Visits set bits from `from` on, in the direction of `Side`, until use(index) returns true.
    template <class Side, class Load, class Use>
    static bool scan(unsigned from, fault::SearchSteps& steps, Load&& load, Use&& use) {
        for (unsigned word = from / 64, at = from % 64;;) {
            ++steps.count;
            std::uint64_t bits = load(word);
            while (const auto found = nearest<Side>(bits, at)) {
                if (use(word * 64 + *found))
                    return true;
                bits &= ~bit(*found);
            }
            if (Side::up ? ++word == words : word-- == 0)
                return false;
            at = Side::up ? 0 : 63;
        }
    }

    template <class Side>
    [[nodiscard]] std::optional<Registered> search(std::uint64_t page, Iova at,
                                                   fault::SearchSteps& steps) const {
        const std::uint64_t last = low_bits(level_bits * levels);
        std::optional<Registered> found;
        const std::uint64_t from = page > last ? last : page;
        if (!(Side::up && page > last))
            descend<Side>(root_.load(std::memory_order_acquire), levels - 1, from, true, at, steps,
                          found);
        return found;
    }

    /// Whether the slot holds a mapping on the right side, which becomes `found`. Clears the mark
    /// of an empty one.
    template <class Side>
    bool look(Leaf& leaf, std::uint64_t page, Iova at, std::optional<Registered>& found) const {
        Slot& slot = leaf.slots[page % fan_out];
        const ExclusiveLock lock(slot.mutex);
        if (slot.used) {
            if (!Side::right(slot.mapping.start(page), at))
                return false;
            found = slot.mapping.unpack(page, shared_);
            return true;
        }
        if (slot.announced) {
            const ExclusiveLock leaf_lock(leaf.mutex);
            slot.announced = false;
            clear(leaf.may_hold, page % fan_out);
        }
        return false;
    }

    /// `from` is the number of the first page of the subtree; or, at the edge, the page where the
    /// search begins, which lies in it. Otherwise the whole subtree is on the right side.
    template <class Side>
    bool descend(void* here, unsigned level, std::uint64_t from, bool edge, Iova at,
                 fault::SearchSteps& steps, std::optional<Registered>& found) const {
        if (here == nullptr)
            return false;
        const unsigned first = edge ? index_of(from, level) : Side::up ? 0 : fan_out - 1;
        const std::uint64_t base = from & ~low_bits(level_bits * (level + 1));
        const auto page_at = [&](unsigned index) {
            return base | std::uint64_t{index} << (level_bits * level);
        };
        if (level == 0) {
            Leaf& leaf = *static_cast<Leaf*>(here);
            return scan<Side>(
                first, steps, [&](unsigned word) { return load(leaf.may_hold, word); },
                [&](unsigned index) { return look<Side>(leaf, page_at(index), at, found); });
        }
        Node& node = *static_cast<Node*>(here);
        return scan<Side>(
            first, steps, [&](unsigned word) { return load(node.may_hold, word); },
            [&](unsigned index) {
                void* const child = node.children[index].load(std::memory_order_acquire);
                const bool at_edge = edge && index == first;
                if (descend<Side>(child, level - 1, at_edge ? from : page_at(index), at_edge, at,
                                  steps, found))
                    return true;
                if (level == 1)
                    forget_empty(node, index, *static_cast<Leaf*>(child));
                return false;
            });
    }

    [[nodiscard]] static std::uint64_t load(const Marks& marks, unsigned word) {
        return marks[word].load(std::memory_order_acquire);
    }

    static void forget_empty(Node& node, unsigned index, Leaf& leaf) {
        const ExclusiveLock lock(leaf.mutex);
        std::uint64_t any = 0;
        for (unsigned word = 0; word != words; ++word)
            any |= load(leaf.may_hold, word);
        if (any != 0)
            return;
        leaf.announced = false;
        clear(node.may_hold, index);
    }

    static void destroy(void* here, unsigned level) {
        if (here == nullptr)
            return;
        if (level == 0) {
            Sync::destroy(static_cast<Leaf*>(here));
            return;
        }
        Node& node = *static_cast<Node*>(here);
        for (auto& child : node.children)
            destroy(child.load(std::memory_order_relaxed), level - 1);
        Sync::destroy(&node);
    }

    Atomic<void*> root_{nullptr};
    LeafNumber no_leaf_{~std::uint64_t{0}};
    std::array<Atomic<LeafNumber*>, Sizes::recent_leaves> recent_{};
    const SharedByMappings shared_;
    RecentPast<Sync> past_;
};

} // namespace moat::dma
