// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Moves ranges between a thread's magazines, the depot and the central free space, once the hot
// paths (Magazine::pop and push, called by allocator.hpp) fail, and empties caches when space is
// short.
//
// Emptying another thread's cache. Only its owner touches a magazine, without a lock or an atomic
// read-modify-write. When space gets short, any thread may close all magazines (limit 0). The
// owner's next call fails its fast path, sees the shortage and returns all its ranges; nothing is
// cached while the shortage lasts. No closing is lost: the owner opens a magazine and then checks
// for a shortage; the other side announces the shortage and then closes. A thread that ends returns
// everything; one that will be idle may call `rest`. Out of reach is only what idle threads hold:
// at most their budget, and a share of the space together.
#pragma once

#include "moat/iova/detail/depot.hpp"
#include "moat/iova/detail/magazine.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>

namespace moat::iova {

/// Pages of payload and guard that caches may hold.
struct CacheBudget {
    std::uint64_t thread_pages = 0;
    std::uint64_t all_threads_pages = 0;
    std::uint64_t shelf_pages = 0; ///< each shelf of the depot
};

template <SyncPolicy Sync>
class Caches {
  public:
    using Range = Entry<Sync>;
    using Cache = ThreadCache<Sync>;
    using Mag = Magazine<Sync>;

    static constexpr std::uint64_t most_cached_pages = Sizes<Sync>::most_cached_pages;

    Caches(Central<Sync>& central, const CacheBudget& budget)
        : central_(central), budget_(budget), guard_pages_(central.guard().both()),
          depot_(budget.shelf_pages, guard_pages_), slots_(&thread_exits, this) {}

    /// The calling thread's cache; nullptr where there was no memory for it.
    [[nodiscard, gnu::always_inline]] Cache* local() { return slots_.local(); }

    /// Finds a range of `payload` pages after the fast path failed: in the thread's cache, the
    /// depot or the free space. Return: false where none fits, or with `memory_failed` set.
    [[nodiscard]] bool take(Cache* cache, std::uint64_t payload, Range& range,
                            bool& memory_failed) {
        if (cache != nullptr && take_from_closed(*cache, payload, range))
            return true;
        obey_shortage(cache);
        const std::optional<Mag> magazine = admit(cache, payload);
        if (!magazine)
            return bring(cache, payload, {&range, 1}, {&range, 1}, memory_failed) == 1;
        const std::uint32_t half = std::max(magazine->limit() / 2, 1U);
        const std::uint32_t got =
            bring(cache, payload, magazine->vacant(half),
                  magazine->vacant(magazine->next_batch(half)), memory_failed);
        if (got == 0)
            return false;
        range = magazine->vacant(got)[got - 1];
        magazine->refilled(got - 1);
        return true;
    }

    /// Caches a released range, in state `cached`, after the fast path failed.
    void put(Cache* cache, std::uint64_t payload, const Range& range) {
        obey_shortage(cache);
        const std::optional<Mag> magazine = admit(cache, payload);
        if (!magazine) {
            put_shared(shelf_of(cache), payload, {&range, 1});
            return;
        }
        if (magazine->count() >= magazine->limit())
            spill(*cache, *magazine, payload, (magazine->count() + 1) / 2);
        if (!magazine->push(range))
            put_shared(shelf_of(cache), payload, {&range, 1});
    }

    /// The thread's shelf of the depot and shard of the flush queue; 0 without a cache.
    [[nodiscard]] unsigned shelf_of(Cache* cache) {
        if (cache == nullptr)
            return 0;
        if (cache->number == 0)
            cache->number = threads_.fetch_add(1, std::memory_order_relaxed) + 1;
        return cache->number % Depot<Sync>::shelves;
    }

    /// Puts ranges into the depot; those without a place there into the free space.
    void put_shared(unsigned shelf, std::uint64_t payload, std::span<const Range> ranges) {
        const std::uint32_t taken = central_.pressed() ? 0 : depot_.put(shelf, payload, ranges);
        if (taken != ranges.size())
            central_.take_back(ranges.subspan(taken));
    }

    /// Returns all ranges within reach to the free space (see above). Constant work where nothing
    /// is cached.
    void drain(Cache* cache) {
        central_.starve();
        obey_shortage(cache);
    }

    /// Empties the calling thread's cache.
    void rest() {
        if (Cache* const cache = local(); cache != nullptr && cache->stocked)
            surrender(*cache);
    }

    struct Counts {
        std::uint64_t magazine_ranges = 0;
        std::uint64_t magazine_pages = 0;
        std::uint64_t depot_ranges = 0;
        std::uint64_t depot_pages = 0;
    };

    /// Counts payload pages; locks the policy's registry of threads.
    [[nodiscard]] Counts counts() {
        Counts counts;
        slots_.for_each(
            [](void* context, Cache& cache) {
                auto& sum = *static_cast<Counts*>(context);
                cache.visit([&](std::uint64_t payload, const Mag& magazine) {
                    sum.magazine_ranges += magazine.count();
                    sum.magazine_pages += payload * magazine.count();
                });
            },
            &counts);
        depot_.visit([&](std::uint64_t payload, std::uint32_t count) {
            counts.depot_ranges += count;
            counts.depot_pages += payload * count;
        });
        return counts;
    }

  private:
    static void thread_exits(void* context, Cache& cache) {
        auto& caches = *static_cast<Caches*>(context);
        caches.surrender(cache);
    }

    /// Takes from a closed magazine before it is emptied.
    [[nodiscard]] static bool take_from_closed(Cache& cache, std::uint64_t payload, Range& range) {
        const Mag magazine = cache.magazine(payload);
        if (magazine.count() == 0)
            return false;
        range = magazine.contents().back();
        magazine.remove_newest();
        return true;
    }

    /// While space is short: returns the caller's cache and the depot, and closes all magazines
    /// once.
    void obey_shortage(Cache* cache) {
        if (!central_.pressed()) {
            if (closed_.load(std::memory_order_relaxed))
                closed_.store(false, std::memory_order_relaxed);
            return;
        }
        if (cache != nullptr && cache->stocked)
            surrender(*cache);
        if (!closed_.load(std::memory_order_relaxed) &&
            !closed_.exchange(true, std::memory_order_seq_cst))
            slots_.for_each(
                [](void*, Cache& each) {
                    each.visit([](std::uint64_t, const Mag& magazine) { magazine.close(); });
                },
                nullptr);
        if (!depot_.empty())
            empty_depot();
    }

    /// The caller's open magazine of this size; none where the budget, memory or a shortage
    /// prevents one.
    [[nodiscard]] std::optional<Mag> admit(Cache* cache, std::uint64_t payload) {
        if (cache == nullptr || central_.pressed())
            return std::nullopt;
        const Mag magazine = cache->magazine(payload);
        if (!magazine.made() && !magazine.make())
            return std::nullopt;
        if (magazine.limit() != 0)
            return magazine;
        const std::uint32_t limit = limit_of(payload);
        if (!magazine.charged() && !charge(*cache, limit * (payload + guard_pages_)))
            return std::nullopt;
        magazine.charged() = true;
        cache->stocked = true;
        magazine.open(limit);
        if (!central_.pressed())
            return magazine;
        magazine.close();
        return std::nullopt;
    }

    /// Ranges of one size that a thread may keep: a sixteenth of its budget, 2 to 64.
    [[nodiscard]] std::uint32_t limit_of(std::uint64_t payload) const {
        const std::uint64_t share = budget_.thread_pages / 16 / (payload + guard_pages_);
        return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(share, 2, Mag::capacity));
    }

    /// Makes room for `pages` in the thread's budget; retires other sizes in turn. Return: false
    /// where there is no room.
    [[nodiscard]] bool charge(Cache& cache, std::uint64_t pages) {
        if (pages > budget_.thread_pages)
            return false;
        while (cache.charged_pages + pages > budget_.thread_pages) {
            cache.clock_hand = cache.clock_hand % most_cached_pages + 1;
            const Mag victim = cache.magazine(cache.clock_hand);
            if (victim.made() && victim.charged())
                retire(cache, cache.clock_hand);
        }
        const std::uint64_t before = charged_pages_.fetch_add(pages, std::memory_order_relaxed);
        if (before + pages > budget_.all_threads_pages) {
            charged_pages_.fetch_sub(pages, std::memory_order_relaxed);
            return false;
        }
        cache.charged_pages += pages;
        return true;
    }

    void retire(Cache& cache, std::uint64_t payload) {
        const Mag magazine = cache.magazine(payload);
        magazine.close();
        spill(cache, magazine, payload, magazine.count());
        release_charge(cache, magazine, payload);
    }

    void release_charge(Cache& cache, const Mag& magazine, std::uint64_t payload) {
        if (!magazine.charged())
            return;
        magazine.charged() = false;
        const std::uint64_t pages = limit_of(payload) * (payload + guard_pages_);
        cache.charged_pages -= pages;
        charged_pages_.fetch_sub(pages, std::memory_order_relaxed);
    }

    void spill(Cache& cache, const Mag& magazine, std::uint64_t payload, std::uint32_t oldest) {
        put_shared(shelf_of(&cache), payload, magazine.contents().first(oldest));
        magazine.drop_oldest(oldest);
    }

    void surrender(Cache& cache) {
        cache.visit([&](std::uint64_t payload, const Mag& magazine) {
            magazine.close();
            central_.take_back(magazine.contents());
            magazine.drop_oldest(magazine.count());
            release_charge(cache, magazine, payload);
        });
        cache.stocked = false;
    }

    /// Fetches ranges: from the thread's own or a well filled shelf, else fresh, else from any
    /// shelf. Return: how many.
    [[nodiscard]] std::uint32_t bring(Cache* cache, std::uint64_t payload, std::span<Range> room,
                                      std::span<Range> fresh_room, bool& memory_failed) {
        using From = typename Depot<Sync>::From;
        const unsigned shelf = shelf_of(cache);
        if (const std::uint32_t got = depot_.get(shelf, From::own_or_well_filled, payload, room))
            return got;
        if (const std::uint32_t got = central_.carve(payload, fresh_room, memory_failed))
            return got;
        return depot_.get(shelf, From::any, payload, room);
    }

    void empty_depot() {
        std::array<Range, Depot<Sync>::bin_capacity> ranges;
        for (std::uint64_t payload = 1; payload <= most_cached_pages; ++payload)
            while (const std::uint32_t got = depot_.get(0, Depot<Sync>::From::any, payload, ranges))
                central_.take_back(std::span(ranges).first(got));
    }

    Central<Sync>& central_;
    const CacheBudget budget_;
    const std::uint64_t guard_pages_;
    typename Sync::template Atomic<bool> closed_{false};
    typename Sync::template Atomic<std::uint64_t> charged_pages_{0};
    typename Sync::template Atomic<unsigned> threads_{0};
    Depot<Sync> depot_;
    typename Sync::template ThreadLocal<Cache> slots_;
};

} // namespace moat::iova
