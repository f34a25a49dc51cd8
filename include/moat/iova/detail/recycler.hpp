// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A released range's way to its reuse: queue, invalidation, quarantine, caches. Ranges whose
// invalidation failed are held instead.
#pragma once

#include "moat/iova/config.hpp"
#include "moat/iova/detail/caches.hpp"
#include "moat/iova/detail/flush_timer.hpp"
#include "moat/iova/detail/held_ranges.hpp"
#include "moat/iova/detail/quarantine.hpp"
#include "moat/iova/flush_queue.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

namespace moat::iova {

template <SyncPolicy Sync>
class Recycler {
  public:
    using Range = Entry<Sync>;
    using Cache = ThreadCache<Sync>;

    Recycler(Central<Sync>& central, Caches<Sync>& caches, const Config& config)
        : central_(central), caches_(caches),
          quarantine_(config.quarantine, central.guard().both()),
          queue_(caches.lanes(), config.invalidation),
          timer_(config.flush_delay_nanoseconds, &time_is_up, this) {}

    ~Recycler() {
        timer_.cancel();
        (void)flush(nullptr); // the HeldListener reports a failure
    }

    Recycler(const Recycler&) = delete;
    Recycler& operator=(const Recycler&) = delete;

    void set_held_listener(const HeldListener& listener) { held_listener_ = listener; }

    /// Whether ranges can wait for an invalidation.
    [[nodiscard]] bool can_defer() const { return queue_.enabled(); }

    static void set_state(const Range& range, State state) {
        range.word->store(record::with_state(range.word->load(std::memory_order_relaxed), state),
                          std::memory_order_relaxed);
    }

    /// Queues a range in state `queued`; flushes a full lane. Error: the invalidation's, where
    /// there was no memory for a lane; the range is held then.
    [[nodiscard]] Result<void> enqueue(Range range, Cache* cache) {
        FlushLane<Sync>* const lane = caches_.lane_of(cache);
        if (lane == nullptr)
            return invalidate_for(range, cache);
        while (!lane->push(range, weight_of(range)))
            (void)flush(cache, lane); // it makes room even where it fails
        timer_.arm();
        return {};
    }

    /// The same without a flush. Return: false where there is no lane, or it has no room.
    [[nodiscard, gnu::always_inline]] bool try_enqueue(Range range, Cache& cache) {
        if (cache.lane == nullptr || !cache.lane->push(range, weight_of(range))) [[unlikely]]
            return false;
        timer_.arm();
        return true;
    }

    /// See Allocator::flush. `cache`: the calling thread's, or nullptr. `full`: its lane, where it
    /// has no room; the flush may leave the ranges of other threads then.
    Result<void> flush(Cache* cache, FlushLane<Sync>* full = nullptr) {
        const auto release = [this, cache](unsigned shelf, std::span<const Range> ranges) {
            if (quarantine_.enabled())
                for (const Range& each : ranges)
                    after_invalidation(each, cache);
            else
                reuse_all(shelf, ranges, cache);
        };
        const auto hold_all = [this](std::span<const Range> ranges) {
            for (const Range& each : ranges) {
                const IovaRange payload = hold(each);
                if (held_listener_.held != nullptr)
                    held_.note(payload);
            }
        };
        const Result<void> flushed = full != nullptr ? queue_.flush(*full, release, hold_all)
                                                     : queue_.flush(release, hold_all);
        if (!flushed) [[unlikely]]
            held_.announce(held_listener_);
        return flushed;
    }

    /// Keeps a range that a device may still reach from any reuse. Return: its payload.
    IovaRange hold(const Range& range) {
        const std::uint64_t payload = central_.payload_of(range);
        set_state(range, State::held);
        held_.count(payload);
        return {range.start, ByteCount(payload << page_lg2)};
    }

    /// Quarantines a range that no device can reach any more, or makes it allocatable at once.
    /// `cache`: takes it; nullptr: the depot does.
    void after_invalidation(Range range, Cache* cache) {
        if (!quarantine_.enabled()) {
            reuse(range, cache);
            return;
        }
        set_state(range, State::quarantined);
        std::array<Range, 2> due; // one in, one out, most of the time
        auto taken = quarantine_.exchange(range, central_.payload_of(range), due);
        if (!taken)
            reuse(range, cache);
        using Which = typename Quarantine<Sync>::Which;
        while (taken.value_or(0) != 0) {
            for (const Range& each : std::span(due).first(*taken))
                reuse(each, cache);
            taken = *taken == due.size() ? quarantine_.take(Which::over_budget, due) : 0;
        }
    }

    /// Returns everything within reach to the free space. In this order, so that each step frees
    /// what the steps before it released.
    void drain(Cache* cache) {
        caches_.drain(cache);
        (void)flush(cache); // a failure frees nothing
        std::array<Range, 64> ranges;
        using Which = typename Quarantine<Sync>::Which;
        while (const std::size_t taken = quarantine_.take(Which::all, ranges))
            central_.take_back(std::span(ranges).first(taken));
    }

    [[nodiscard]] Stats stats() {
        const CentralCounts central = central_.counts();
        const auto caches = caches_.counts();
        const auto quarantine = quarantine_.counts();
        std::uint64_t queued_ranges = 0;
        std::uint64_t queued_pages = 0;
        queue_.visit([&](const Range& range) {
            queued_ranges += 1;
            queued_pages += central_.payload_of(range);
        });
        const std::uint64_t idle_ranges = caches.magazine_ranges + caches.depot_ranges +
                                          quarantine.entries + queued_ranges + held_.ranges();
        const std::uint64_t idle_pages = caches.magazine_pages + caches.depot_pages +
                                         quarantine.payload_pages + queued_pages + held_.pages();
        const auto bytes = [](std::uint64_t pages) { return ByteCount(pages << page_lg2); };
        return {
            .live_ranges = central.ranges - std::min(idle_ranges, central.ranges),
            .live = bytes(central.payload_pages - std::min(idle_pages, central.payload_pages)),
            .cached = bytes(caches.magazine_pages + caches.depot_pages),
            .private_to_threads = bytes(caches.magazine_pages),
            .quarantined = bytes(quarantine.payload_pages),
            .queued = bytes(queued_pages),
            .held = bytes(held_.pages()),
            .held_ranges = held_.ranges(),
            .failed_invalidations = queue_.failures(),
            .guard = bytes(central.guard_pages),
            .free = bytes(central.free_pages),
            .largest_hole = bytes(central.largest_hole_pages),
            .search_steps = central.search_steps,
        };
    }

  private:
    [[nodiscard, gnu::always_inline]] static std::uint32_t weight_of(const Range& range) {
        const std::uint32_t word = range.word->load(std::memory_order_relaxed);
        return record::reuse_of(word) == Reuse::special ? FlushLane<Sync>::special_weight : 1;
    }

    /// The payload pages of a range for a magazine; 0 for another.
    [[nodiscard]] static std::uint64_t magazine_pages(const Range& range) {
        const std::uint32_t word = range.word->load(std::memory_order_relaxed);
        return record::reuse_of(word) == Reuse::magazine ? word & record::payload_mask : 0;
    }

    void reuse(Range range, Cache* cache) {
        const std::uint32_t word = range.word->load(std::memory_order_relaxed);
        const std::uint64_t payload = word & record::payload_mask;
        range.word->store(record::with_state(word, State::cached), std::memory_order_relaxed);
        if (record::reuse_of(word) != Reuse::magazine) {
            if (record::reuse_of(word) == Reuse::direct || cache == nullptr ||
                !caches_.put_special(*cache, payload, range))
                central_.take_back({&range, 1});
            return;
        }
        if (cache != nullptr)
            caches_.put(cache, payload, range);
        else
            caches_.put_shared(0, payload, {&range, 1});
    }

    /// Puts ranges of one size together onto `shelf`, where the threads that released them search
    /// first. A range without a place there costs two searches of the free space.
    void reuse_all(unsigned shelf, std::span<const Range> ranges, Cache* cache) {
        while (!ranges.empty()) {
            const std::uint64_t payload = magazine_pages(ranges.front());
            std::size_t alike = 0;
            while (alike != ranges.size() && magazine_pages(ranges[alike]) == payload) {
                if (payload != 0)
                    set_state(ranges[alike], State::cached);
                ++alike;
            }
            if (payload != 0)
                caches_.put_shared(shelf, payload, ranges.first(alike));
            else
                for (const Range& each : ranges.first(alike))
                    reuse(each, cache);
            ranges = ranges.subspan(alike);
        }
    }

    [[nodiscard]] Result<void> invalidate_for(const Range& range, Cache* cache) {
        const Result<void> invalidated = queue_.invalidate();
        if (invalidated) {
            after_invalidation(range, cache);
            return invalidated;
        }
        const IovaRange payload = hold(range);
        if (held_listener_.held != nullptr)
            held_listener_.held(held_listener_.context, payload);
        return invalidated;
    }

    static void time_is_up(void* recycler) {
        // The HeldListener and the next flush report a failure.
        (void)static_cast<Recycler*>(recycler)->flush(nullptr);
    }

    Central<Sync>& central_;
    Caches<Sync>& caches_;
    Quarantine<Sync> quarantine_;
    HeldListener held_listener_{};
    HeldRanges<Sync> held_;
    FlushQueue<Sync> queue_;
    FlushTimer<Sync> timer_;
};

} // namespace moat::iova
