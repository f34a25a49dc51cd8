// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Released ranges that wait for an invalidation: a lane for each thread. A lane is a ring that its
// owner fills without a lock or an atomic read-modify-write; the holder of the flush lock empties
// it (flush_queue.hpp).
#pragma once

#include "moat/iova/config.hpp"
#include "moat/iova/detail/central.hpp"

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

    /// Room for what one flush takes.
    using Batch = std::array<Range, capacity>;

    FlushLane() = default;
    FlushLane(const FlushLane&) = delete;
    FlushLane& operator=(const FlushLane&) = delete;

    /// Owner. `weight`: how much of the capacity the range takes, 1 or more. Return: false where
    /// the ranges queued since the last flush leave less.
    [[nodiscard, gnu::always_inline]] bool push(const Range& range, std::uint32_t weight) {
        const std::uint32_t pushed = pushed_.load(std::memory_order_relaxed);
        const std::uint32_t taken = taken_.load(std::memory_order_acquire);
        if (taken != seen_.read()) {
            seen_.write(taken);
            room_.write(capacity - (pushed - taken));
        }
        const std::uint32_t room = room_.read();
        if (room < weight)
            return false;
        room_.write(room - weight);
        ring_[pushed % ring_.size()].write(range);
        pushed_.store(pushed + 1, std::memory_order_release);
        return true;
    }

    // The next three are for the holder of the flush lock.

    /// Makes room for the owner. What it takes stays in the ring until `taken`. Return: whether
    /// there is any.
    [[nodiscard]] bool take() {
        const std::uint32_t end = pushed_.load(std::memory_order_acquire);
        taken_.store(end, std::memory_order_release);
        return end != released_.read();
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

  private:
    [[nodiscard]] std::span<const Range> copy(std::uint32_t begin, std::uint32_t end,
                                              Batch& batch) const {
        for (std::uint32_t i = begin; i != end; ++i)
            batch[i - begin] = ring_[i % ring_.size()].read();
        return std::span(batch).first(end - begin);
    }

    typename Sync::template Atomic<std::uint32_t> pushed_{0};
    typename Sync::template Atomic<std::uint32_t> taken_{0};
    /// Owner: `taken_` at its last push, and the capacity that is left.
    typename Sync::template Plain<std::uint32_t> seen_{};
    typename Sync::template Plain<std::uint32_t> room_{capacity};
    /// Under the flush lock: what came before it is no longer in the ring.
    typename Sync::template Plain<std::uint32_t> released_{};
    typename Sync::template Atomic<unsigned> shelf_{0};
    typename Sync::template Atomic<bool> owned_{false};
    /// One half fills while a flush works on the other.
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
        Lane* adopted = nullptr;
        visit([&](Lane& each) {
            if (adopted == nullptr && each.adopt(shelf))
                adopted = &each;
        });
        return adopted != nullptr ? adopted : add(shelf);
    }

    template <class Visit>
    void visit(Visit&& visit) {
        for (Lane* lane = first_.load(std::memory_order_acquire); lane != nullptr;
             lane = lane->next)
            visit(*lane);
    }

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
