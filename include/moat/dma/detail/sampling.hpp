// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sampling, in the way of GWP-ASan: chooses the mappings to watch, filters addresses at unmap, and
// keeps the addresses of ended samples out of use. buffer_watch.hpp does the rest.
#pragma once

#include "moat/core/range.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

namespace moat::dma {

/// The calling thread's random numbers: a linear congruential generator modulo 2^64 (multiplier of
/// Knuth's MMIX); only its high bits are used. Not for secrets.
namespace sample_random {

struct State {
    std::uint64_t number = 0;
    std::uint64_t increment = 0; ///< odd; 0: not seeded, every number is 0
};

inline constinit thread_local State state;

/// Makes the thread's numbers repeatable.
inline void seed(std::uint64_t seed) {
    constexpr std::uint64_t golden_ratio = 0x9e3779b97f4a7c15;
    state = {(seed + 1) * golden_ratio, seed << 1 | 1};
}

[[nodiscard, gnu::always_inline]] inline std::uint64_t next() {
    return state.number = state.number * 6364136223846793005U + state.increment;
}

} // namespace sample_random

/// Thread-safe.
template <SyncPolicy Sync>
class Sampling {
  public:
    /// How many ended samples stay out of use.
    static constexpr std::size_t quarantine_entries = 1024;
    /// How many past mappings the history keeps: fewer, so that it drops each one before its
    /// address is reused, also when threads unmap at the same time.
    static constexpr std::size_t remembered = quarantine_entries - 128;

    /// Samples one of `one_in` mappings on average; 0: none.
    explicit Sampling(std::uint32_t one_in)
        : one_in_(one_in),
          most_(one_in == 0 ? 0 : std::numeric_limits<std::uint64_t>::max() / one_in) {}

    [[nodiscard]] std::uint32_t one_in() const { return one_in_; }

    /// Whether to sample the next mapping. Takes no lock.
    [[nodiscard, gnu::always_inline]] bool next_is_sampled() const {
        return sample_random::next() <= most_ && seeded_next_is_sampled();
    }

    /// Whether a sampled mapping may be in the page of `iova`; false is certain.
    [[nodiscard, gnu::always_inline]] bool may_be_sampled(Iova iova) const {
        return counter(iova).load(std::memory_order_relaxed) != 0;
    }

    void note_begin(Iova iova) { counter(iova).fetch_add(1, std::memory_order_relaxed); }

    void note_end(Iova iova) { counter(iova).fetch_sub(1, std::memory_order_relaxed); }

    /// Adds whole pages that no device reaches. Return: the range that leaves, if the quarantine is
    /// full.
    [[nodiscard]] std::optional<IovaRange> quarantine(IovaRange range) {
        const ExclusiveLock lock(mutex_);
        std::optional<IovaRange> oldest = std::exchange(ring_[next_], range);
        next_ = (next_ + 1) % ring_.size();
        return oldest;
    }

    /// Removes the oldest range. Return: that range, or nothing.
    [[nodiscard]] std::optional<IovaRange> release_oldest() {
        const ExclusiveLock lock(mutex_);
        for (std::size_t i = 0; i != ring_.size(); ++i)
            if (auto& each = ring_[(next_ + i) % ring_.size()])
                return std::exchange(each, std::nullopt);
        return std::nullopt;
    }

  private:
    using Counter = typename Sync::template Atomic<std::uint64_t>;

    static constexpr std::size_t counters = 1024;

    [[nodiscard]] static std::size_t index(Iova iova) { return (iova.value() >> 12) % counters; }

    [[nodiscard]] const Counter& counter(Iova iova) const { return live_[index(iova)]; }

    [[nodiscard]] Counter& counter(Iova iova) { return live_[index(iova)]; }

    [[nodiscard, gnu::cold, gnu::noinline]] bool seeded_next_is_sampled() const {
        if (sample_random::state.increment != 0)
            return true;
        sample_random::seed(Sync::now() ^ reinterpret_cast<std::uintptr_t>(&sample_random::state));
        return sample_random::next() <= most_;
    }

    const std::uint32_t one_in_;
    const std::uint64_t most_;
    /// How many sampled mappings live, by page number modulo the size.
    std::array<Counter, counters> live_{};
    typename Sync::Mutex mutex_;
    std::array<std::optional<IovaRange>, quarantine_entries> ring_ MOAT_GUARDED_BY(mutex_){};
    std::size_t next_ MOAT_GUARDED_BY(mutex_) = 0;
};

} // namespace moat::dma
