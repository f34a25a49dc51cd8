// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The clocks of a run: of maps, unmaps and refused accesses.
#pragma once

#include <chrono>
#include <cstdint>
#ifdef __x86_64__
#include <x86intrin.h>
#endif

namespace moat::run {

/// Nanoseconds, monotonic, with an arbitrary start.
[[nodiscard]] inline std::uint64_t now_ns() {
    return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch() /
                                      std::chrono::nanoseconds(1));
}

/// now_ns to within some microseconds, by the processor's time stamp counter, which takes half the
/// time to read. Not thread-safe.
class FastClock {
  public:
    /// Compares the counter with now_ns, if that was a millisecond ago.
    void adjust();

    /// Monotonic; now_ns itself without a counter of a constant rate, and where `adjust` was not
    /// called for ten milliseconds.
    [[nodiscard]] std::uint64_t now() {
        const std::uint64_t ticks = counter() - mark_.ticks;
        const std::uint64_t ns =
            ticks < valid_ticks_ ? mark_.ns + (ticks * rate_ >> rate_bits) : now_ns();
        latest_ = ns > latest_ ? ns : latest_;
        return latest_;
    }

  private:
    struct Mark {
        std::uint64_t ticks = 0;
        std::uint64_t ns = 0;
    };

    [[nodiscard]] static std::uint64_t counter() {
#ifdef __x86_64__
        return __rdtsc();
#else
        return 0;
#endif
    }

    static constexpr unsigned rate_bits = 32;

    Mark mark_;
    std::uint64_t valid_ticks_ = 0; ///< how long after the mark the counter is used
    std::uint64_t rate_ = 0;        ///< nanoseconds a tick, shifted by `rate_bits`
    std::uint64_t latest_ = 0;
};

} // namespace moat::run
