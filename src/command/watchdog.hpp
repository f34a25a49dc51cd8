// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Watchdog: finds a worker that has made no progress for too long. The caller passes the
// time, so that tests need no clock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace moat::tools {

class Watchdog {
  public:
    struct Stalled {
        std::size_t worker;
        std::uint64_t progress; ///< its count
        double seconds;         ///< without progress
    };

    Watchdog(std::size_t workers, double patience_seconds)
        : seen_(workers), patience_(patience_seconds) {}

    /// `progress` is a count that changes while the worker works. Times must not decrease.
    [[nodiscard]] std::optional<Stalled> observe(std::size_t worker, std::uint64_t progress,
                                                 double now_seconds) {
        Seen& seen = seen_[worker];
        if (seen.progress != progress)
            seen = {progress, now_seconds};
        const double still = now_seconds - seen.since;
        return still >= patience_ ? std::optional(Stalled{worker, progress, still}) : std::nullopt;
    }

  private:
    struct Seen {
        std::uint64_t progress = 0;
        double since = 0;
    };

    std::vector<Seen> seen_;
    double patience_;
};

} // namespace moat::tools
