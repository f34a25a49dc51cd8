// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Registry: finds mappings by address, to the byte: the living ones, and the latest past ones. The
// tracker writes it, fault/diagnose.hpp reads it.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/dma/detail/recent_past.hpp"
#include "moat/dma/detail/registered.hpp"
#include "moat/dma/detail/registry_sizes.hpp"
#include "moat/fault/diagnose.hpp"
#include "moat/fault/history.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <utility>

namespace moat::dma {

/// A tree over page numbers, nine bits per level. A leaf covers 2 MiB and has its own lock and one
/// slot per page, for a mapping that begins there. Nodes and leaves stay until the registry ends,
/// since addresses are reused. Inner nodes mark children that may hold something; a search that
/// finds a leaf empty clears its mark. So adding a mapping costs one descent and one uncontended
/// lock, and a search for a neighbour skips empty subtrees.
template <SyncPolicy Sync>
class Registry {
  public:
    explicit Registry(std::size_t history) : past_(history) {}

    ~Registry() { destroy(root_.load(std::memory_order_relaxed), levels - 1); }

    Registry(const Registry&) = delete;
    Registry& operator=(const Registry&) = delete;

    /// Adds a mapping that begins at `start`, where no other begins in the same page;
    /// fill(Registered&) sets it. Errors: no_memory.
    template <class Fill>
    [[nodiscard, gnu::always_inline]] Result<void> add(Iova start, Fill&& fill) {
        Leaf* const leaf = find_or_make(page_of(start));
        if (leaf == nullptr) [[unlikely]]
            return fail(ErrorCode::no_memory, "no memory to record a mapping");
        const unsigned slot = slot_of(start);
        const ExclusiveLock lock(leaf->mutex);
        MOAT_CHECK(!leaf->used(slot), "one mapping begins in a page");
        fill(leaf->slots[slot]);
        leaf->occupied[slot / 64] |= bit(slot % 64);
        if (!std::exchange(leaf->announced, true))
            announce(page_of(start));
        return {};
    }

    /// Removes the mapping that begins at `start` if `accept(const Registered&)` returns true; not
    /// called if there is none. Return: whether it was removed.
    template <class Accept>
    [[nodiscard, gnu::always_inline]] bool remove(Iova start, Accept&& accept) {
        Leaf* const leaf = find(page_of(start));
        if (leaf == nullptr) [[unlikely]]
            return false;
        const unsigned slot = slot_of(start);
        const ExclusiveLock lock(leaf->mutex);
        if (!leaf->used(slot) || leaf->slots[slot].mapping.range.start() != start) [[unlikely]]
            return false;
        if (!accept(std::as_const(leaf->slots[slot]))) [[unlikely]]
            return false;
        leaf->occupied[slot / 64] &= ~bit(slot % 64);
        return true;
    }

    /// Calls use(Registered&) for the mapping that begins at `start`; `use` does not change its
    /// range. Return: the result of `use`, a Result<void>; or not_found.
    template <class Use>
    [[nodiscard]] Result<void> with(Iova start, Use&& use) {
        if (Leaf* const leaf = find(page_of(start))) {
            const ExclusiveLock lock(leaf->mutex);
            const unsigned slot = slot_of(start);
            if (leaf->used(slot) && leaf->slots[slot].mapping.range.start() == start)
                return use(leaf->slots[slot]);
        }
        return fail(ErrorCode::not_found, "no mapping begins here", {"iova", start.value()});
    }

    /// The mapping that begins at `from`, or the next one above.
    [[nodiscard]] std::optional<fault::Mapping> first_from(Iova from) const {
        fault::SearchSteps steps;
        const fault::Neighbours found = around(from, steps);
        const bool here = found.at_or_below && found.at_or_below->range.start() == from;
        return here ? found.at_or_below : found.above;
    }

    /// Adds to the past mappings; does nothing if the history has no memory.
    void note_past(const fault::Mapping& mapping, const fault::Event& unmapped) {
        past_.note(mapping, unmapped);
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

    static constexpr unsigned levels = Sizes::levels;
    static constexpr unsigned level_bits = Sizes::level_bits;
    static constexpr unsigned fan_out = 1U << level_bits;
    static constexpr unsigned words = (fan_out + 63) / 64;
    static constexpr unsigned page_lg2 = 12;

    using Occupied = std::array<std::uint64_t, words>;
    using Slots = std::array<Registered, fan_out>;

    struct Leaf {
        typename Sizes::LeafLock mutex;
        bool announced MOAT_GUARDED_BY(mutex) = false; ///< marked as possibly not empty
        Occupied occupied MOAT_GUARDED_BY(mutex){};
        Slots slots MOAT_GUARDED_BY(mutex){};

        [[nodiscard]] bool used(unsigned slot) const MOAT_REQUIRES(mutex) {
            return (occupied[slot / 64] >> (slot % 64) & 1) != 0;
        }
    };

    struct Node {
        std::array<typename Sync::template Atomic<std::uint64_t>, words> may_hold{};
        std::array<typename Sync::template Atomic<void*>, fan_out> children{};
    };

    [[nodiscard]] static std::uint64_t page_of(Iova address) { return address.value() >> page_lg2; }

    [[nodiscard]] static unsigned slot_of(Iova address) { return page_of(address) % fan_out; }

    [[nodiscard]] static unsigned index_of(std::uint64_t page, unsigned level) {
        return page >> (level_bits * level) & (fan_out - 1);
    }

    [[nodiscard]] Leaf* find(std::uint64_t page) const {
        void* child = root_.load(std::memory_order_acquire);
        for (unsigned level = levels - 1; level != 0 && child != nullptr; --level)
            child = static_cast<Node*>(child)->children[index_of(page, level)].load(
                std::memory_order_acquire);
        return page >> (level_bits * levels) == 0 ? static_cast<Leaf*>(child) : nullptr;
    }

    [[nodiscard]] Leaf* find_or_make(std::uint64_t page) {
        if (Leaf* const leaf = find(page)) [[likely]]
            return leaf;
        auto* link = &root_;
        for (unsigned level = levels - 1; level != 0; --level) {
            void* const node = child_or_make<Node>(*link);
            if (node == nullptr)
                return nullptr;
            link = &static_cast<Node*>(node)->children[index_of(page, level)];
        }
        return static_cast<Leaf*>(child_or_make<Leaf>(*link));
    }

    template <class T>
    [[nodiscard]] static void* child_or_make(typename Sync::template Atomic<void*>& link) {
        void* found = link.load(std::memory_order_acquire);
        if (found != nullptr)
            return found;
        T* const made = Sync::template make<T>();
        if (made == nullptr || link.compare_exchange_strong(found, made, std::memory_order_acq_rel,
                                                            std::memory_order_acquire))
            return made;
        Sync::destroy(made);
        return found;
    }

    /// Marks the path from the root to the leaf; under the leaf's lock, like `forget_empty`.
    void announce(std::uint64_t page) {
        void* child = root_.load(std::memory_order_acquire);
        for (unsigned level = levels - 1; level != 0; --level) {
            Node& node = *static_cast<Node*>(child);
            const unsigned index = index_of(page, level);
            auto& word = node.may_hold[index / 64];
            if ((word.load(std::memory_order_relaxed) >> (index % 64) & 1) == 0)
                word.fetch_or(bit(index % 64), std::memory_order_acq_rel);
            child = node.children[index].load(std::memory_order_acquire);
        }
    }

    struct Below {
        static constexpr bool up = false;

        static bool right(const Registered& each, Iova at) {
            return each.mapping.range.start() <= at;
        }
    };

    struct Above {
        static constexpr bool up = true;

        static bool right(const Registered& each, Iova at) {
            return each.mapping.range.start() > at;
        }
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

    template <class Side>
    static bool scan_leaf(const Occupied& occupied, const Slots& slots, unsigned from, Iova at,
                          fault::SearchSteps& steps, std::optional<Registered>& found) {
        return scan<Side>(
            from, steps, [&](unsigned word) { return occupied[word]; },
            [&](unsigned slot) {
                if (!Side::right(slots[slot], at))
                    return false;
                found = slots[slot];
                return true;
            });
    }

    /// `edge`: the search begins in this subtree, at `page`; otherwise the whole subtree is on the
    /// right side.
    template <class Side>
    static bool descend(void* here, unsigned level, std::uint64_t page, bool edge, Iova at,
                        fault::SearchSteps& steps, std::optional<Registered>& found) {
        if (here == nullptr)
            return false;
        const unsigned from = edge ? index_of(page, level) : Side::up ? 0 : fan_out - 1;
        if (level == 0) {
            Leaf& leaf = *static_cast<Leaf*>(here);
            const ExclusiveLock lock(leaf.mutex);
            return scan_leaf<Side>(leaf.occupied, leaf.slots, from, at, steps, found);
        }
        Node& node = *static_cast<Node*>(here);
        return scan<Side>(
            from, steps,
            [&](unsigned word) { return node.may_hold[word].load(std::memory_order_acquire); },
            [&](unsigned index) {
                void* const child = node.children[index].load(std::memory_order_acquire);
                if (descend<Side>(child, level - 1, page, edge && index == from, at, steps, found))
                    return true;
                if (level == 1)
                    forget_empty(node, index, *static_cast<Leaf*>(child));
                return false;
            });
    }

    static void forget_empty(Node& node, unsigned index, Leaf& leaf) {
        const ExclusiveLock lock(leaf.mutex);
        std::uint64_t any = 0;
        for (const std::uint64_t word : leaf.occupied)
            any |= word;
        if (any != 0)
            return;
        leaf.announced = false;
        node.may_hold[index / 64].fetch_and(~bit(index % 64), std::memory_order_acq_rel);
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

    typename Sync::template Atomic<void*> root_{nullptr};
    RecentPast<Sync> past_;
};

} // namespace moat::dma
