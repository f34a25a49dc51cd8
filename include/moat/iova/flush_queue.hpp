// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Released ranges that wait for an invalidation. A flush takes the ranges queued before it,
// invalidates, and releases them, or holds them where the invalidation failed; recycler.hpp
// implements both.
#pragma once

#include "moat/core/result.hpp"
#include "moat/iova/config.hpp"
#include "moat/iova/detail/central.hpp"
#include "moat/sync/lock.hpp"

#include <array>
#include <cstdint>
#include <span>

namespace moat::iova {

template <SyncPolicy Sync>
class FlushQueue {
  public:
    using Range = Entry<Sync>;

    static constexpr unsigned shards = Sizes<Sync>::shelves;
    static constexpr std::uint32_t shard_capacity = Sizes<Sync>::shard_capacity;

    explicit FlushQueue(const Invalidation& invalidation) : invalidation_(invalidation) {}

    ~FlushQueue() {
        for (auto& each : shards_)
            if (Shard* const shard = each.load(std::memory_order_relaxed))
                Sync::destroy(shard);
    }

    FlushQueue(const FlushQueue&) = delete;
    FlushQueue& operator=(const FlushQueue&) = delete;

    [[nodiscard]] bool enabled() const { return invalidation_.invalidate != nullptr; }

    enum class Pushed : std::uint8_t { done, full, no_memory };

    /// `shard_index` < shards; threads use different ones where possible. `weight`: how much of
    /// `shard_capacity` the range takes.
    [[nodiscard]] Pushed push(unsigned shard_index, Range range, std::uint32_t weight = 1) {
        Shard* const shard = find_or_make(shard_index);
        if (shard == nullptr)
            return Pushed::no_memory;
        const ExclusiveLock lock(shard->mutex);
        if (shard->room < weight)
            return Pushed::full;
        shard->room -= weight;
        const std::uint32_t count = shard->count.read();
        shard->halves[shard->filling][count] = range;
        shard->count.write(count + 1);
        return Pushed::done;
    }

    /// Passes every range queued before the call to `release(shard, ranges)` after an invalidation
    /// that began later, or to `hold(ranges)` where that invalidation failed; both run under the
    /// flush lock. After a failure the next flush invalidates again, even with an empty queue.
    /// Return: the invalidation's error. After success no device reaches any range queued before
    /// the call, held ranges included.
    template <class Release, class Hold>
    [[nodiscard]] Result<void> flush(Release&& release, Hold&& hold) MOAT_EXCLUDES(flush_mutex_) {
        const ExclusiveLock flushing(flush_mutex_);
        std::array<std::span<const Range>, shards> taken{};
        bool any = false;
        for (unsigned i = 0; i != shards; ++i)
            if (Shard* const shard = shards_[i].load(std::memory_order_acquire)) {
                taken[i] = take(*shard);
                any = any || !taken[i].empty();
            }
        if (!any && !again_)
            return {};
        const Result<void> invalidated = run_invalidation();
        for (unsigned i = 0; i != shards; ++i)
            if (!taken[i].empty()) {
                if (invalidated)
                    release(i, taken[i]);
                else
                    hold(taken[i]);
            }
        return invalidated;
    }

    /// Invalidates for a range that found no place in the queue. Return: the invalidation's error.
    [[nodiscard]] Result<void> invalidate() MOAT_EXCLUDES(flush_mutex_) {
        const ExclusiveLock flushing(flush_mutex_);
        return run_invalidation();
    }

    /// Failed invalidations since creation.
    [[nodiscard]] std::uint64_t failures() const {
        return failures_.load(std::memory_order_relaxed);
    }

    /// Calls visit(range) for each queued range, under its shard's lock.
    template <class Visit>
    void visit(Visit&& visit) {
        for (auto& each : shards_)
            if (Shard* const shard = each.load(std::memory_order_acquire)) {
                const ExclusiveLock lock(shard->mutex);
                for (std::uint32_t i = 0; i != shard->count.read(); ++i)
                    visit(shard->halves[shard->filling][i]);
            }
    }

  private:
    /// One half fills while the other is flushed. The halves trade places under the lock; the
    /// flushed half belongs to the holder of the flush lock.
    struct Shard {
        typename Sizes<Sync>::ShardLock mutex;
        typename Sync::template Plain<std::uint32_t> count MOAT_GUARDED_BY(mutex){};
        std::uint32_t room MOAT_GUARDED_BY(mutex) = shard_capacity;
        unsigned filling MOAT_GUARDED_BY(mutex) = 0;
        std::array<std::array<Range, shard_capacity>, 2> halves{};
    };

    [[nodiscard]] Result<void> run_invalidation() MOAT_REQUIRES(flush_mutex_) {
        const Result<void> invalidated = invalidation_.invalidate(invalidation_.context);
        again_ = !invalidated;
        if (!invalidated)
            failures_.fetch_add(1, std::memory_order_relaxed);
        return invalidated;
    }

    [[nodiscard]] static std::span<const Range> take(Shard& shard) {
        const ExclusiveLock lock(shard.mutex);
        const std::span<const Range> full(shard.halves[shard.filling].data(), shard.count.read());
        shard.filling ^= 1;
        shard.count.write(0);
        shard.room = shard_capacity;
        return full;
    }

    [[nodiscard, gnu::always_inline]] Shard* find_or_make(unsigned i) {
        Shard* const found = shards_[i].load(std::memory_order_acquire);
        return found != nullptr ? found : make_shard(i);
    }

    [[nodiscard, gnu::noinline]] Shard* make_shard(unsigned i) {
        Shard* found = nullptr;
        Shard* const made = Sync::template make<Shard>();
        if (made == nullptr)
            return nullptr;
        if (shards_[i].compare_exchange_strong(found, made, std::memory_order_acq_rel,
                                               std::memory_order_acquire))
            return made;
        Sync::destroy(made);
        return found;
    }

    const Invalidation invalidation_;
    typename Sync::Mutex flush_mutex_;
    bool again_ MOAT_GUARDED_BY(flush_mutex_) = false; ///< the last invalidation failed
    typename Sync::template Atomic<std::uint64_t> failures_{0};
    std::array<typename Sync::template Atomic<Shard*>, shards> shards_{};
};

} // namespace moat::iova
