// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A flush takes the released ranges that were queued before it, invalidates, and releases them, or
// holds them where the invalidation failed; recycler.hpp implements both.
#pragma once

#include "moat/core/result.hpp"
#include "moat/iova/config.hpp"
#include "moat/iova/detail/flush_lanes.hpp"
#include "moat/sync/lock.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <utility>

namespace moat::iova {

template <SyncPolicy Sync>
class FlushQueue {
  public:
    using Lane = FlushLane<Sync>;

    FlushQueue(FlushLanes<Sync>& lanes, const Invalidation& invalidation)
        : lanes_(lanes), invalidation_(invalidation) {}

    FlushQueue(const FlushQueue&) = delete;
    FlushQueue& operator=(const FlushQueue&) = delete;

    [[nodiscard]] bool enabled() const { return invalidation_.invalidate != nullptr; }

    /// Passes every range queued before the call to `release(shelf, ranges)` after an invalidation
    /// that began later, or to `hold(ranges)` where that invalidation failed; both run under the
    /// flush lock. After a failure the next flush invalidates again, even with an empty queue.
    /// Return: the invalidation's error. After success no device reaches any range queued before
    /// the call, held ranges included.
    template <class Release, class Hold>
    [[nodiscard]] Result<void> flush(Release&& release, Hold&& hold) MOAT_EXCLUDES(flush_mutex_) {
        const ExclusiveLock flushing(flush_mutex_);
        for (Lane* lane = lanes_.first(); lane != nullptr; lane = lane->next)
            if (lane->has_queued())
                activate(*lane);
        return flush_active(release, hold);
    }

    /// The same for a full lane, and for the lanes that had ranges at the last flush, which share
    /// its invalidation. Its cost does not grow with idle threads.
    template <class Release, class Hold>
    [[nodiscard]] Result<void> flush(Lane& full, Release&& release, Hold&& hold)
        MOAT_EXCLUDES(flush_mutex_) {
        const ExclusiveLock flushing(flush_mutex_);
        activate(full);
        return flush_active(release, hold);
    }

    /// Invalidates for a range that found no place in a lane. Return: the invalidation's error.
    [[nodiscard]] Result<void> invalidate() MOAT_EXCLUDES(flush_mutex_) {
        const ExclusiveLock flushing(flush_mutex_);
        return run_invalidation();
    }

    /// Failed invalidations since creation.
    [[nodiscard]] std::uint64_t failures() const {
        return failures_.load(std::memory_order_relaxed);
    }

    /// Calls visit(range) for each queued range, under the flush lock.
    template <class Visit>
    void visit(Visit&& visit) MOAT_EXCLUDES(flush_mutex_) {
        const ExclusiveLock lock(flush_mutex_);
        typename Lane::Batch batch;
        for (const Lane* lane = lanes_.first(); lane != nullptr; lane = lane->next)
            for (const auto& each : lane->queued(batch))
                visit(each);
    }

  private:
    void activate(Lane& lane) MOAT_REQUIRES(flush_mutex_) {
        if (!std::exchange(lane.is_active, true))
            lane.next_active = std::exchange(active_, &lane);
    }

    /// Counts the lanes of each shelf from which it takes ranges; lanes without any leave the list.
    void take_active(std::span<std::uint32_t, Sizes<Sync>::shelves> lanes_of_shelf)
        MOAT_REQUIRES(flush_mutex_) {
        Lane** link = &active_;
        while (Lane* const lane = *link) {
            if (lane->take()) {
                ++lanes_of_shelf[lane->shelf()];
                link = &lane->next_active;
            } else {
                *link = lane->next_active;
                lane->is_active = false;
            }
        }
    }

    template <class Release, class Hold>
    [[nodiscard]] Result<void> flush_active(Release& release, Hold& hold)
        MOAT_REQUIRES(flush_mutex_) {
        std::array<std::uint32_t, Sizes<Sync>::shelves> lanes_of_shelf{};
        take_active(lanes_of_shelf);
        if (active_ == nullptr && !again_)
            return {};
        const Result<void> invalidated = run_invalidation();
        typename Lane::Batch batch;
        for (Lane* lane = active_; lane != nullptr; lane = lane->next_active) {
            const unsigned shelf = lane->shelf(); // of a new owner, perhaps
            lane->share_bin(std::max(lanes_of_shelf[shelf], 1U));
            if (invalidated)
                release(shelf, lane->taken(batch));
            else
                hold(lane->taken(batch));
        }
        return invalidated;
    }

    [[nodiscard]] Result<void> run_invalidation() MOAT_REQUIRES(flush_mutex_) {
        const Result<void> invalidated = invalidation_.invalidate(invalidation_.context);
        again_ = !invalidated;
        if (!invalidated)
            failures_.fetch_add(1, std::memory_order_relaxed);
        return invalidated;
    }

    FlushLanes<Sync>& lanes_;
    const Invalidation invalidation_;
    typename Sync::Mutex flush_mutex_;
    Lane* active_ MOAT_GUARDED_BY(flush_mutex_) = nullptr; ///< had ranges at the last flush
    bool again_ MOAT_GUARDED_BY(flush_mutex_) = false;     ///< the last invalidation failed
    typename Sync::template Atomic<std::uint64_t> failures_{0};
};

} // namespace moat::iova
