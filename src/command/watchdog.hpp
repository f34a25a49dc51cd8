// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Watchdog: says which of several workers has made no progress for too long. Who asks tells the
// time, so it can be tested without any.
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
        std::uint64_t progress; ///< the count that it stands at
        double seconds;         ///< for how long
    };

    Watchdog(std::size_t workers, double patience_seconds)
        : seen_(workers), patience_(patience_seconds) {}

    /// `progress` is a count that changes while the worker works. Times rise.
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
