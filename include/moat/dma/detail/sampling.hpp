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

/// The calling thread's random numbers: a multiplicative congruential generator modulo 2^64
/// whose multiplier fits into an instruction (Borosh and Niederreiter's); only its high bits are
/// used. Not for secrets.
namespace sample_random {

inline constexpr std::uint64_t multiplier = 1812433253;

/// Odd; 0: not seeded, every number is 0.
inline constinit thread_local std::uint64_t state = 0;

/// Makes the thread's numbers repeatable.
inline void seed(std::uint64_t seed) {
    constexpr std::uint64_t golden_ratio = 0x9e3779b97f4a7c15;
    state = (seed + 1) * golden_ratio | 1;
}

[[nodiscard, gnu::always_inline]] inline std::uint64_t next() {
    return state *= multiplier;
}

} // namespace sample_random

/// Decides which mappings are sampled: one in `one_in` on average; 0: none. Takes no lock.
template <SyncPolicy Sync>
class SampleChance {
  public:
    explicit SampleChance(std::uint32_t one_in)
        : most_(one_in == 0 ? 0 : std::numeric_limits<std::uint64_t>::max() / one_in) {}

    /// Whether to sample the next mapping.
    [[nodiscard, gnu::always_inline]] bool next() const {
        return is_low() && (was_seeded() || is_low());
    }

  private:
    [[nodiscard, gnu::always_inline]] bool is_low() const { return sample_random::next() <= most_; }

    /// Seeds the thread's numbers if nothing has.
    [[nodiscard, gnu::cold, gnu::noinline]] static bool was_seeded() {
        if (sample_random::state != 0)
            return true;
        sample_random::seed(Sync::now() ^ reinterpret_cast<std::uintptr_t>(&sample_random::state));
        return false;
    }

    const std::uint64_t most_;
};

/// Thread-safe.
template <SyncPolicy Sync>
class Sampling {
  public:
    /// How many ended samples stay out of use.
    static constexpr std::size_t quarantine_entries = 1024;
    /// How many past mappings the history keeps: fewer, so that it drops each one before its
    /// address is reused, also when threads unmap at the same time.
    static constexpr std::size_t remembered = quarantine_entries - 128;

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

    /// How many sampled mappings live, by page number modulo the size.
    std::array<Counter, counters> live_{};
    typename Sync::Mutex mutex_;
    std::array<std::optional<IovaRange>, quarantine_entries> ring_ MOAT_GUARDED_BY(mutex_){};
    std::size_t next_ MOAT_GUARDED_BY(mutex_) = 0;
};

} // namespace moat::dma
