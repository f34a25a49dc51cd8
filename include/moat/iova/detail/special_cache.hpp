// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One thread's own ranges that no magazine serves: large sizes, and special placements of any size.
// Sets by exact payload size; a request takes the newest range of its size that lies where it may.
// caches.hpp fills and empties it; only its owner reads the ranges.
#pragma once

#include "moat/iova/config.hpp"
#include "moat/iova/detail/central.hpp"
#include "moat/iova/detail/spot.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace moat::iova {

template <SyncPolicy Sync>
class SpecialCache {
  public:
    using Range = Entry<Sync>;

    static constexpr std::size_t sets = Sizes<Sync>::special_sets;
    static constexpr std::uint32_t ways = Sizes<Sync>::special_ways;

    /// `guard_pages`: of each range, beside its payload.
    explicit SpecialCache(std::uint64_t guard_pages) : guard_pages_(guard_pages) {}

    [[nodiscard]] static std::size_t set_of(std::uint64_t payload) {
        // Fibonacci hashing: equal low bits, as powers of two have them, spread over the sets.
        return (payload * 0x9e3779b97f4a7c15U >> 32) % sets;
    }

    /// Takes a range. Return: an empty one where none of this size lies where `wish` allows.
    [[nodiscard, gnu::always_inline]] Range pop(std::uint64_t payload, const Wish& wish) {
        const std::size_t set = set_of(payload);
        auto& kept = kept_[set];
        const std::uint32_t count = counts_[set].load(std::memory_order_relaxed);
        for (std::uint32_t i = count; i-- != 0;)
            if (kept[i].payload == payload && wish.allows(kept[i].range.start, payload)) {
                const Range range = kept[i].range;
                if (i != count - 1) [[unlikely]]
                    kept[i] = kept[count - 1];
                counts_[set].store(count - 1, std::memory_order_relaxed);
                add_pages(0 - (payload + guard_pages_));
                return range;
            }
        return {};
    }

    [[nodiscard]] bool full(std::size_t set) const {
        return counts_[set].load(std::memory_order_relaxed) == ways;
    }

    /// Adds a range, unless its set is full or the cache would hold more than `most_pages`. Return:
    /// whether it did.
    [[nodiscard, gnu::always_inline]] bool push(std::uint64_t payload, Range range,
                                                std::uint64_t most_pages) {
        const std::size_t set = set_of(payload);
        const std::uint32_t count = counts_[set].load(std::memory_order_relaxed);
        const std::uint64_t more = pages() + payload + guard_pages_;
        if (count == ways || more > most_pages) [[unlikely]]
            return false;
        kept_[set][count].range = range;
        kept_[set][count].payload = payload;
        counts_[set].store(count + 1, std::memory_order_relaxed);
        pages_.store(more, std::memory_order_relaxed);
        return true;
    }

    /// Passes the older half of a set, rounded up, to take(ranges), and forgets it.
    template <class Take>
    void evict_half(std::size_t set, const Take& take) {
        auto& kept = kept_[set];
        const std::uint32_t count = counts_[set].load(std::memory_order_relaxed);
        const std::uint32_t gone = (count + 1) / 2;
        std::array<Range, (ways + 1) / 2> ranges;
        std::uint64_t gone_pages = 0;
        for (std::uint32_t i = 0; i != gone; ++i) {
            ranges[i] = kept[i].range;
            gone_pages += kept[i].payload + guard_pages_;
        }
        for (std::uint32_t i = gone; i != count; ++i)
            kept[i - gone] = kept[i];
        counts_[set].store(count - gone, std::memory_order_relaxed);
        add_pages(0 - gone_pages);
        if (gone != 0)
            take(std::span<const Range>(ranges.data(), gone));
    }

    /// Any thread: payload and guard.
    [[nodiscard]] std::uint64_t pages() const { return pages_.load(std::memory_order_relaxed); }

    /// Any thread.
    [[nodiscard]] std::uint64_t ranges() const {
        std::uint64_t sum = 0;
        for (const auto& each : counts_)
            sum += each.load(std::memory_order_relaxed);
        return sum;
    }

  private:
    struct alignas(32) Kept {
        Range range{};
        std::uint64_t payload = 0;
    };

    void add_pages(std::uint64_t more) { pages_.store(pages() + more, std::memory_order_relaxed); }

    const std::uint64_t guard_pages_;
    /// Atomic for statistics.
    typename Sync::template Atomic<std::uint64_t> pages_{0};
    std::array<typename Sync::template Atomic<std::uint32_t>, sets> counts_{};
    std::array<std::array<Kept, ways>, sets> kept_{};
};

} // namespace moat::iova
