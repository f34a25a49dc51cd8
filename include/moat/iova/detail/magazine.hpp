// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One thread's own ranges by exact payload size. Other threads may only close a magazine (limit 0),
// which fails the owner's next call. caches.hpp fills and empties magazines.
#pragma once

#include "moat/iova/config.hpp"
#include "moat/iova/detail/central.hpp"
#include "moat/iova/detail/flush_lanes.hpp"
#include "moat/iova/detail/special_cache.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace moat::iova {

/// The fields of one thread's magazines, field by field: one scaled index finds those of a size, at
/// fixed distances, and few cache lines hold many sizes. A size's pointers are null until its first
/// use. `top` is atomic for statistics, floor and ceiling for closing; only the owner reads
/// entries.
template <SyncPolicy Sync>
struct MagazineRack {
    static constexpr std::uint32_t capacity = Sizes<Sync>::magazine_capacity;
    static constexpr std::uint64_t most_cached_pages = Sizes<Sync>::most_cached_pages;

    using Range = Entry<Sync>;

    struct alignas(64) Store {
        std::array<Range, capacity> entries{};
        std::uint32_t batch = 1;
        /// Ranges that it may hold, while it is open.
        std::uint32_t limit = 0;
        /// Pages of the thread's budget that its room takes.
        std::uint64_t charged_pages = 0;
    };

    using Bound = typename Sync::template Atomic<Range*>;

    /// No multiple of 4 KiB: where the low 12 bits of a load and of a store before it are the same,
    /// a processor may take the two for the same place, and wait.
    static constexpr std::size_t distance = most_cached_pages + 8;
    static constexpr std::size_t tops = 0;
    static constexpr std::size_t floors = tops + distance;
    static constexpr std::size_t ceilings = floors + distance;

    MagazineRack() = default;
    MagazineRack(const MagazineRack&) = delete;
    MagazineRack& operator=(const MagazineRack&) = delete;

    ~MagazineRack() {
        for (auto& each : stores)
            if (Store* const store = each.load(std::memory_order_relaxed))
                Sync::destroy(store);
    }

    std::array<Bound, 3 * distance> bounds{};
    std::array<typename Sync::template Atomic<Store*>, most_cached_pages> stores{};
};

/// A stack of ranges of one size, between a floor and a ceiling: one place of a rack.
template <SyncPolicy Sync>
class Magazine {
  public:
    using Rack = MagazineRack<Sync>;
    using Range = Entry<Sync>;

    static constexpr std::uint32_t capacity = Rack::capacity;

    Magazine(Rack& rack, std::uint64_t payload)
        : bounds_(rack.bounds.data() + (payload - 1)), store_(&rack.stores[payload - 1]) {}

    /// Return: the range on top, or nullptr where the magazine is empty or closed.
    [[nodiscard, gnu::always_inline]] const Range* pop() const {
        Range* const top = this->top().load(std::memory_order_relaxed);
        if (top <= floor().load(std::memory_order_relaxed)) [[unlikely]]
            return nullptr;
        this->top().store(top - 1, std::memory_order_relaxed);
        return top - 1;
    }

    /// Return: false where the magazine is full or closed.
    [[nodiscard, gnu::always_inline]] bool push(const Range& range) const {
        Range* const top = this->top().load(std::memory_order_relaxed);
        if (top >= ceiling().load(std::memory_order_relaxed)) [[unlikely]]
            return false;
        *top = range;
        this->top().store(top + 1, std::memory_order_relaxed);
        return true;
    }

    /// Any thread; false until the size is first used.
    [[nodiscard]] bool made() const { return store() != nullptr; }

    /// Owner. Return: false when memory failed.
    [[nodiscard]] bool make() const {
        Store* const own = Sync::template make<Store>();
        if (own == nullptr)
            return false;
        floor().store(own->entries.data() + capacity, std::memory_order_relaxed);
        ceiling().store(own->entries.data(), std::memory_order_relaxed);
        top().store(own->entries.data(), std::memory_order_relaxed);
        store_->store(own, std::memory_order_release);
        return true;
    }

    [[nodiscard]] std::uint32_t count() const {
        return made() ? distance(top().load(std::memory_order_relaxed)) : 0;
    }

    /// Any thread, made: the owner's next pop or push on the hot path fails.
    void close() const {
        floor().store(bottom() + capacity, std::memory_order_seq_cst);
        ceiling().store(bottom(), std::memory_order_seq_cst);
    }

    // The functions below are for the owner, once the magazine is made.

    enum class For : std::uint8_t { pop, pop_and_push };

    /// `use`: what the hot path may do with it.
    void open(std::uint32_t limit, For use) const {
        store()->limit = limit;
        floor().store(bottom(), std::memory_order_seq_cst);
        ceiling().store(bottom() + (use == For::pop_and_push ? limit : 0),
                        std::memory_order_seq_cst);
    }

    [[nodiscard]] bool is_open() const {
        return floor().load(std::memory_order_relaxed) == bottom();
    }

    /// Ranges that it may hold.
    [[nodiscard]] std::uint32_t limit() const { return store()->limit; }

    /// Ignores the ceiling; the count must be below the limit.
    void push_below_limit(Range range) const {
        bottom()[count()] = range;
        set_count(count() + 1);
    }

    /// Room for a refill.
    [[nodiscard]] std::span<Range> vacant(std::uint32_t most) const {
        const std::uint32_t room = capacity - count();
        return {bottom() + count(), most < room ? most : room};
    }

    void refilled(std::uint32_t more) const { set_count(count() + more); }

    [[nodiscard]] std::span<const Range> contents() const { return {bottom(), count()}; }

    /// Pops, also from a closed magazine.
    void remove_newest() const { set_count(count() - 1); }

    /// Drops the oldest `gone` entries, which lie at the bottom.
    void drop_oldest(std::uint32_t gone) const {
        const std::uint32_t rest = count() - gone;
        for (std::uint32_t i = 0; i != rest; ++i)
            bottom()[i] = bottom()[i + gone];
        set_count(rest);
    }

    /// The size of the next refill: `least` at first, then doubled each time.
    [[nodiscard]] std::uint32_t next_batch(std::uint32_t least, std::uint32_t most) const {
        std::uint32_t& batch = store()->batch;
        const std::uint32_t now = std::min(std::max(batch, least), most);
        batch = now * 2;
        return now;
    }

    /// Pages of the thread's budget that its room takes.
    [[nodiscard]] std::uint64_t& charged_pages() const { return store()->charged_pages; }

  private:
    using Store = typename Rack::Store;
    using Bound = typename Rack::Bound;

    [[nodiscard, gnu::always_inline]] Bound& top() const { return bounds_[Rack::tops]; }

    [[nodiscard, gnu::always_inline]] Bound& floor() const { return bounds_[Rack::floors]; }

    [[nodiscard, gnu::always_inline]] Bound& ceiling() const { return bounds_[Rack::ceilings]; }

    [[nodiscard]] Store* store() const { return store_->load(std::memory_order_acquire); }

    [[nodiscard]] Range* bottom() const { return store()->entries.data(); }

    [[nodiscard]] std::uint32_t distance(const Range* above) const {
        return static_cast<std::uint32_t>(above - bottom());
    }

    void set_count(std::uint32_t count) const {
        top().store(bottom() + count, std::memory_order_relaxed);
    }

    Bound* bounds_;
    typename Sync::template Atomic<Store*>* store_;
};

/// Everything of one thread.
template <SyncPolicy Sync>
class alignas(64) ThreadCache {
  public:
    using Mag = Magazine<Sync>;

    static constexpr std::uint64_t most_cached_pages = Sizes<Sync>::most_cached_pages;

    ThreadCache() = default;

    ~ThreadCache() {
        if (SpecialCache<Sync>* const made = special())
            Sync::destroy(made);
    }

    ThreadCache(const ThreadCache&) = delete;
    ThreadCache& operator=(const ThreadCache&) = delete;

    /// Of a payload of 1 to `most_cached_pages` pages.
    [[nodiscard, gnu::always_inline]] Mag magazine(std::uint64_t payload) {
        return Mag(rack_, payload);
    }

    /// Calls visit(payload, magazine) for each magazine that was made. Any thread inside
    /// `for_each`.
    template <class Visit>
    void visit(Visit&& visit) {
        for (std::uint64_t payload = 1; payload <= most_cached_pages; ++payload)
            if (const Mag each = magazine(payload); each.made())
                visit(payload, each);
    }

    /// Owner. Return: false when memory failed.
    [[nodiscard]] bool make_special(std::uint64_t guard_pages) {
        SpecialCache<Sync>* const made = Sync::template make<SpecialCache<Sync>>(guard_pages);
        special_.store(made, std::memory_order_release);
        return made != nullptr;
    }

    /// Any thread; nullptr until its first use.
    [[nodiscard]] SpecialCache<Sync>* special() const {
        return special_.load(std::memory_order_acquire);
    }

    LeafCache<Sync> leaves;
    /// Owner: from its first deferred release on.
    FlushLane<Sync>* lane = nullptr;
    /// Owner: pages that the open magazines may hold together, and the special cache.
    std::uint64_t charged_pages = 0;
    std::uint64_t special_pages = 0;
    /// Owner: whether anything was opened or cached since all was emptied.
    bool stocked = false;
    /// Owner: the pressure under which it was stocked.
    Pressure pressure{};
    /// Owner: the size that was retired last; the search for the next one starts behind it.
    std::uint64_t clock_hand = 1;
    /// Owner: the set of the special cache that loses ranges next.
    std::size_t special_hand = 0;
    /// Owner: numbers the allocator's threads from 1 in the order of their first need; 0 before.
    unsigned number = 0;

  private:
    MagazineRack<Sync> rack_;
    typename Sync::template Atomic<SpecialCache<Sync>*> special_{nullptr};
};

} // namespace moat::iova
