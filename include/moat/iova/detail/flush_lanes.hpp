// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Released ranges that wait for an invalidation: a lane for each thread. A lane is a ring that its
// owner fills without a lock or an atomic read-modify-write; the holder of the flush lock empties
// it (flush_queue.hpp).
#pragma once

#include "moat/iova/config.hpp"
#include "moat/iova/detail/central.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace moat::iova {

template <SyncPolicy Sync>
class alignas(64) FlushLane {
  public:
    using Range = Entry<Sync>;

    static constexpr std::uint32_t capacity = Sizes<Sync>::lane_capacity;
    static_assert(std::has_single_bit(capacity));
    static_assert(capacity <= Sizes<Sync>::bin_capacity,
                  "a flush fills a bin of the depot at most");

    /// The weight of a range that no magazine takes. A flush returns at most half of what a set of
    /// the special cache holds: the other half is in use or waits there, and more would go through
    /// the free space.
    static constexpr std::uint32_t special_weight =
        std::max(capacity / std::max(Sizes<Sync>::special_ways / 2, 1U), 1U);

    /// Room for what one flush takes.
    using Batch = std::array<Range, capacity>;

    FlushLane() = default;
    FlushLane(const FlushLane&) = delete;
    FlushLane& operator=(const FlushLane&) = delete;

    /// Owner. `weight`: how much of the lane the range takes, 1 to `special_weight`. Return: false
    /// where the ranges queued since the last flush leave less.
    [[nodiscard, gnu::always_inline]] bool push(const Range& range, std::uint32_t weight) {
        const std::uint32_t pushed = pushed_.load(std::memory_order_relaxed);
        const std::uint32_t taken = taken_.load(std::memory_order_acquire);
        if (taken != seen_.read()) {
            const std::uint32_t limit = limit_.load(std::memory_order_relaxed);
            const std::uint32_t queued = pushed - taken;
            seen_.write(taken);
            room_.write(std::max(limit, queued) - queued);
        }
        const std::uint32_t room = room_.read();
        if (room < weight)
            return false;
        room_.write(room - weight);
        ring_[pushed % ring_.size()].write(range);
        pushed_.store(pushed + 1, std::memory_order_release);
        return true;
    }

    // The next five are for the holder of the flush lock.

    /// From its next flush on, `lanes` of them together may fill one bin of the depot.
    void share_bin(std::uint32_t lanes) {
        limit_.store(std::max(capacity / lanes, special_weight), std::memory_order_relaxed);
    }

    /// Whether a `take` would find any.
    [[nodiscard]] bool has_queued() const {
        return pushed_.load(std::memory_order_acquire) != taken_.load(std::memory_order_relaxed);
    }

    /// Makes room for the owner. What it takes stays in the ring until `taken`. Return: whether
    /// there is any.
    [[nodiscard]] bool take() {
        const std::uint32_t end = pushed_.load(std::memory_order_acquire);
        const bool any = end != taken_.load(std::memory_order_relaxed);
        taken_.store(end, std::memory_order_release);
        return any;
    }

    /// What the last `take` took; once.
    [[nodiscard]] std::span<const Range> taken(Batch& batch) {
        const std::uint32_t begin = released_.read();
        released_.write(taken_.load(std::memory_order_relaxed));
        return copy(begin, released_.read(), batch);
    }

    /// What the next `take` would take.
    [[nodiscard]] std::span<const Range> queued(Batch& batch) const {
        return copy(released_.read(), pushed_.load(std::memory_order_acquire), batch);
    }

    /// Any thread. Return: whether the lane had no owner; it is the caller's then.
    [[nodiscard]] bool adopt(unsigned shelf) {
        if (owned_.load(std::memory_order_relaxed) ||
            owned_.exchange(true, std::memory_order_acquire))
            return false;
        shelf_.store(shelf, std::memory_order_relaxed);
        return true;
    }

    /// Owner: its ranges stay queued, and another thread may adopt the lane.
    void abandon() { owned_.store(false, std::memory_order_release); }

    /// Where the owner searches first for ranges.
    [[nodiscard]] unsigned shelf() const { return shelf_.load(std::memory_order_relaxed); }

    /// Constant once the lane is listed.
    FlushLane* next = nullptr;
    /// Under the flush lock: the list of lanes that had ranges at the last flush.
    FlushLane* next_active = nullptr;
    bool is_active = false;

  private:
    [[nodiscard]] std::span<const Range> copy(std::uint32_t begin, std::uint32_t end,
                                              Batch& batch) const {
        for (std::uint32_t i = begin; i != end; ++i)
            batch[i - begin] = ring_[i % ring_.size()].read();
        return std::span(batch).first(end - begin);
    }

    typename Sync::template Atomic<std::uint32_t> pushed_{0};
    typename Sync::template Atomic<std::uint32_t> taken_{0};
    typename Sync::template Atomic<std::uint32_t> limit_{capacity};
    /// Owner: `taken_` at its last push, and what is left of the limit.
    typename Sync::template Plain<std::uint32_t> seen_{};
    typename Sync::template Plain<std::uint32_t> room_{capacity};
    /// Under the flush lock: what came before it is no longer in the ring.
    typename Sync::template Plain<std::uint32_t> released_{};
    typename Sync::template Atomic<unsigned> shelf_{0};
    typename Sync::template Atomic<bool> owned_{false};
    /// A flush works on at most as many as the capacity, and at most as many were pushed since.
    std::array<typename Sync::template Plain<Range>, std::size_t{2} * capacity> ring_{};
};

/// The lanes of an allocator. A lane lives as long as they do; one that a thread has abandoned
/// serves another.
template <SyncPolicy Sync>
class FlushLanes {
  public:
    using Lane = FlushLane<Sync>;

    FlushLanes() = default;

    ~FlushLanes() {
        Lane* lane = first_.load(std::memory_order_relaxed);
        while (lane != nullptr)
            Sync::destroy(std::exchange(lane, lane->next));
    }

    FlushLanes(const FlushLanes&) = delete;
    FlushLanes& operator=(const FlushLanes&) = delete;

    /// Return: a lane that is the caller's until it abandons it; nullptr without memory.
    [[nodiscard]] Lane* adopt(unsigned shelf) {
        for (Lane* lane = first(); lane != nullptr; lane = lane->next)
            if (lane->adopt(shelf))
                return lane;
        return add(shelf);
    }

    /// Any thread; `next` leads to the others.
    [[nodiscard]] Lane* first() const { return first_.load(std::memory_order_acquire); }

  private:
    [[nodiscard]] Lane* add(unsigned shelf) {
        Lane* const made = Sync::template make<Lane>();
        if (made == nullptr)
            return nullptr;
        (void)made->adopt(shelf);
        made->next = first_.load(std::memory_order_relaxed);
        while (!first_.compare_exchange_weak(made->next, made, std::memory_order_release,
                                             std::memory_order_relaxed)) {
        }
        return made;
    }

    typename Sync::template Atomic<Lane*> first_{nullptr};
};

} // namespace moat::iova
