// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Moves ranges between a thread's magazines and special cache, the depot and the central free
// space, once the hot paths (Magazine::pop and push, called by allocator.hpp) fail, and empties
// caches when space is short.
//
// Emptying another thread's cache. Only its owner touches a magazine, without a lock or an atomic
// read-modify-write. When the pressure changes, any thread may close all magazines. The owner's
// next call fails its fast path, sees the change and returns all its ranges. It caches a few while
// some space is free, none after a request failed. No closing is lost: the owner opens a magazine
// and then compares the pressure; the other side announces the change and then closes. Calls that
// use the special cache compare the pressure each time. A thread that ends returns everything; one
// that will be idle may call `rest`. Other threads cannot reach what an idle thread holds: at most
// its budget, and together a fixed share of the space.
#pragma once

#include "moat/iova/detail/depot.hpp"
#include "moat/iova/detail/magazine.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

namespace moat::iova {

/// Pages of payload and guard that caches may hold.
struct CacheBudget {
    std::uint64_t thread_pages = 0;
    std::uint64_t all_threads_pages = 0;
    std::uint64_t shelf_pages = 0; ///< each shelf of the depot
    /// Released ranges go through a quarantine, never straight into a magazine.
    bool quarantined = false;
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
        const std::uint32_t got = bring(
            cache, payload, magazine->vacant(half),
            magazine->vacant(magazine->next_batch(first_batch(payload), half)), memory_failed);
        if (got == 0)
            return false;
        range = magazine->vacant(got)[got - 1];
        magazine->refilled(got - 1);
        return true;
    }

    /// Caches a released range, in state `cached`, after the fast path failed.
    void put(Cache* cache, std::uint64_t payload, Range range) {
        if (knows_pressure(*cache))
            if (const Mag open = cache->magazine(payload);
                open.made() && open.is_open() && open.count() < open.limit()) {
                open.push_below_limit(range);
                return;
            }
        put_slowly(cache, payload, range);
    }

    /// Takes a range from the thread's special cache. Return: an empty one where none fits, or
    /// the pressure has changed.
    [[nodiscard, gnu::always_inline]] Range pop_special(Cache& cache, std::uint64_t payload,
                                                        const Wish& wish) {
        SpecialCache<Sync>* const special = cache.special();
        if (special == nullptr || !knows_pressure(cache)) [[unlikely]]
            return {};
        return special->pop(payload, wish);
    }

    /// Caches a released range of Reuse::special. Return: false where it needs put_special.
    [[nodiscard, gnu::always_inline]] bool push_special(Cache& cache, std::uint64_t payload,
                                                        Range range) {
        SpecialCache<Sync>* const special = cache.special();
        return special != nullptr && knows_pressure(cache) &&
               special->push(payload, range, cache.special_pages);
    }

    /// Caches a released range of Reuse::special; evicts older ranges if it must. Return: false if
    /// the budget, memory or a shortage prevents it.
    [[nodiscard]] bool put_special(Cache& cache, std::uint64_t payload, Range range) {
        if (push_special(cache, payload, range))
            return true;
        obey_shortage(&cache);
        if (!admit_special(cache, payload + guard_pages_))
            return false;
        if (const std::size_t set = SpecialCache<Sync>::set_of(payload); cache.special()->full(set))
            evict_special(cache, set);
        return cache.special()->push(payload, range, cache.special_pages);
    }

    /// For a call that the thread's caches do not serve: returns them where the pressure has
    /// changed.
    void obey_shortage(Cache* cache) {
        const Pressure now = central_.pressure();
        if (cache != nullptr && cache->pressure != now) {
            if (cache->stocked)
                surrender(*cache);
            cache->pressure = now;
        }
        if (now.level() != Shortage::none)
            close_all(now);
    }

    /// Whether released ranges go through a quarantine, and into caches only from there.
    [[nodiscard]] bool quarantined() const { return budget_.quarantined; }

    /// The thread's shelf of the depot; 0 without a cache.
    [[nodiscard]] unsigned shelf_of(Cache* cache) {
        if (cache == nullptr)
            return 0;
        if (cache->number == 0)
            cache->number = threads_.fetch_add(1, std::memory_order_relaxed) + 1;
        return cache->number % Depot<Sync>::shelves;
    }

    [[nodiscard]] FlushLanes<Sync>& lanes() { return lanes_; }

    /// The thread's lane, until it ends; nullptr without a cache or without memory.
    [[nodiscard]] FlushLane<Sync>* lane_of(Cache* cache) {
        if (cache != nullptr && cache->lane == nullptr)
            cache->lane = lanes_.adopt(shelf_of(cache));
        return cache != nullptr ? cache->lane : nullptr;
    }

    /// Puts ranges into the depot; those without a place there into the free space.
    void put_shared(unsigned shelf, std::uint64_t payload, std::span<const Range> ranges) {
        const std::uint32_t taken =
            central_.pressure().level() != Shortage::none ? 0 : depot_.put(shelf, payload, ranges);
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
        std::uint64_t special_ranges = 0; ///< of them
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
                if (const SpecialCache<Sync>* const special = cache.special()) {
                    sum.magazine_ranges += special->ranges();
                    sum.special_ranges += special->ranges();
                    sum.magazine_pages += special->pages();
                }
            },
            &counts);
        counts.magazine_pages -= counts.special_ranges * guard_pages_;
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
        if (cache.lane != nullptr)
            cache.lane->abandon();
    }

    [[gnu::noinline]] void put_slowly(Cache* cache, std::uint64_t payload, Range range) {
        obey_shortage(cache);
        const std::optional<Mag> magazine = admit(cache, payload);
        if (!magazine) {
            put_shared(shelf_of(cache), payload, {&range, 1});
            return;
        }
        if (magazine->count() >= magazine->limit())
            spill(*cache, *magazine, payload, (magazine->count() + 1) / 2);
        magazine->push_below_limit(range);
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

    [[nodiscard, gnu::always_inline]] bool knows_pressure(const Cache& cache) const {
        return cache.pressure == central_.pressure();
    }

    /// Closes all magazines and returns the depot, once for each change of the pressure.
    void close_all(Pressure now) {
        if (closed_at_.load(std::memory_order_relaxed) != now.stamp &&
            closed_at_.exchange(now.stamp, std::memory_order_seq_cst) != now.stamp)
            slots_.for_each(
                [](void*, Cache& each) {
                    each.visit([](std::uint64_t, const Mag& magazine) { magazine.close(); });
                },
                nullptr);
        if (!depot_.empty())
            empty_depot();
    }

    /// The caller's open magazine of this size; none where the budget, memory or a shortage
    /// prevents one. After obey_shortage.
    [[nodiscard]] std::optional<Mag> admit(Cache* cache, std::uint64_t payload) {
        if (cache == nullptr || cache->pressure.level() == Shortage::failed)
            return std::nullopt;
        const Mag magazine = cache->magazine(payload);
        if (!magazine.made() && !magazine.make())
            return std::nullopt;
        if (magazine.is_open())
            return magazine;
        const std::uint32_t limit = limit_of(*cache, payload);
        if (magazine.charged_pages() == 0) {
            const std::uint64_t pages = limit * (payload + guard_pages_);
            if (!charge(*cache, pages))
                return std::nullopt;
            magazine.charged_pages() = pages;
        }
        cache->stocked = true;
        magazine.open(limit, budget_.quarantined ? Mag::For::pop : Mag::For::pop_and_push);
        if (central_.pressure() == cache->pressure)
            return magazine;
        magazine.close();
        return std::nullopt;
    }

    /// A budget under the pressure that the thread knows: a small one where space is short.
    [[nodiscard]] static std::uint64_t under_pressure(const Cache& cache, std::uint64_t pages) {
        return cache.pressure.level() == Shortage::none ? pages : pages / 16;
    }

    /// Ranges of one size that a thread may keep: a share of its budget, 2 to 64; 2 where space is
    /// short.
    [[nodiscard]] std::uint32_t limit_of(const Cache& cache, std::uint64_t payload) const {
        if (cache.pressure.level() != Shortage::none)
            return 2;
        const std::uint64_t share = budget_.thread_pages / 64 / (payload + guard_pages_);
        return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(share, 2, Mag::capacity));
    }

    /// The least number of fresh ranges: with two lines of records, a batch can end with one, and
    /// no other thread gets a record of that line.
    [[nodiscard]] std::uint32_t first_batch(std::uint64_t payload) const {
        constexpr std::uint64_t records = 16;
        const std::uint64_t pages = payload + guard_pages_;
        return pages >= records ? 1
                                : static_cast<std::uint32_t>(2 * ((records + pages - 1) / pages));
    }

    /// Makes room for `pages` in the thread's budget; retires other sizes in turn. Return: false
    /// where there is no room.
    [[nodiscard]] bool charge(Cache& cache, std::uint64_t pages) {
        const std::uint64_t most = under_pressure(cache, budget_.thread_pages);
        if (pages > most)
            return false;
        while (cache.charged_pages + pages > most) {
            cache.clock_hand = cache.clock_hand % most_cached_pages + 1;
            const Mag victim = cache.magazine(cache.clock_hand);
            if (victim.made() && victim.charged_pages() != 0)
                retire(cache, cache.clock_hand);
        }
        if (!charge_all(pages))
            return false;
        cache.charged_pages += pages;
        return true;
    }

    /// Counts pages against the budget of all threads. Return: false where it has no room.
    [[nodiscard]] bool charge_all(std::uint64_t pages) {
        const std::uint64_t before = charged_pages_.fetch_add(pages, std::memory_order_relaxed);
        if (before + pages <= budget_.all_threads_pages)
            return true;
        charged_pages_.fetch_sub(pages, std::memory_order_relaxed);
        return false;
    }

    /// Makes room for a range of `pages` in the special cache, at the cost of older ones. After
    /// obey_shortage. Return: false where budget, memory or a shortage prevents it.
    [[nodiscard, gnu::noinline]] bool admit_special(Cache& cache, std::uint64_t pages) {
        const std::uint64_t most = under_pressure(cache, budget_.thread_pages);
        if (cache.pressure.level() == Shortage::failed || pages > most)
            return false;
        if (cache.special() == nullptr && !cache.make_special(guard_pages_))
            return false;
        SpecialCache<Sync>& special = *cache.special();
        cache.stocked = true;
        const auto needed = [&] { return special.pages() + pages; };
        // An eighth at a time, so that few calls touch the count of all threads.
        const std::uint64_t more = std::min(std::max(pages, most / 8), most - cache.special_pages);
        if (needed() > cache.special_pages && needed() <= cache.special_pages + more &&
            charge_all(more))
            cache.special_pages += more;
        while (special.pages() != 0 && needed() > cache.special_pages) {
            cache.special_hand = (cache.special_hand + 1) % SpecialCache<Sync>::sets;
            evict_special(cache, cache.special_hand);
        }
        return needed() <= cache.special_pages;
    }

    void evict_special(Cache& cache, std::size_t set) {
        cache.special()->evict_half(
            set, [this](std::span<const Range> ranges) { central_.take_back(ranges); });
    }

    void retire(Cache& cache, std::uint64_t payload) {
        const Mag magazine = cache.magazine(payload);
        magazine.close();
        spill(cache, magazine, payload, magazine.count());
        release_charge(cache, magazine);
    }

    void release_charge(Cache& cache, const Mag& magazine) {
        const std::uint64_t pages = std::exchange(magazine.charged_pages(), 0);
        if (pages == 0)
            return;
        cache.charged_pages -= pages;
        charged_pages_.fetch_sub(pages, std::memory_order_relaxed);
    }

    void spill(Cache& cache, const Mag& magazine, std::uint64_t payload, std::uint32_t oldest) {
        put_shared(shelf_of(&cache), payload, magazine.contents().first(oldest));
        magazine.drop_oldest(oldest);
    }

    void surrender(Cache& cache) {
        cache.visit([&](std::uint64_t, const Mag& magazine) {
            magazine.close();
            central_.take_back(magazine.contents());
            magazine.drop_oldest(magazine.count());
            release_charge(cache, magazine);
        });
        surrender_special(cache);
        cache.stocked = false;
    }

    void surrender_special(Cache& cache) {
        SpecialCache<Sync>* const special = cache.special();
        if (special == nullptr)
            return;
        for (std::size_t set = 0; special->pages() != 0; set = (set + 1) % SpecialCache<Sync>::sets)
            evict_special(cache, set);
        charged_pages_.fetch_sub(std::exchange(cache.special_pages, 0), std::memory_order_relaxed);
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
    /// The pressure whose rise closed all magazines last.
    typename Sync::template Atomic<std::uint64_t> closed_at_{0};
    typename Sync::template Atomic<std::uint64_t> charged_pages_{0};
    typename Sync::template Atomic<unsigned> threads_{0};
    Depot<Sync> depot_;
    FlushLanes<Sync> lanes_;
    typename Sync::template ThreadLocal<Cache> slots_;
};

} // namespace moat::iova
