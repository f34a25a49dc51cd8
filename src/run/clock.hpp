// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The clock of a run: of maps, unmaps and refused accesses.
#pragma once

#include <chrono>
#include <cstdint>

namespace moat::run {

/// Nanoseconds, monotonic, with an arbitrary start.
[[nodiscard]] inline std::uint64_t now_ns() {
    return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch() /
                                      std::chrono::nanoseconds(1));
}

} // namespace moat::run
