// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What an allocator tells about itself; numbers only. allocator.hpp fills it in.
#pragma once

#include "moat/core/types.hpp"

#include <cstdint>

namespace moat::iova {

/// A sum over caches that go on working: exact while no call runs elsewhere. Payload bytes, but for
/// guards and holes.
struct Stats {
    std::uint64_t live_ranges = 0;
    ByteCount live{};
    ByteCount cached{};
    /// The part of `cached` in magazines: only the thread that owns one can empty it.
    ByteCount private_to_threads{};
    ByteCount quarantined{};
    ByteCount queued{};
    /// Out of use for good: their invalidation failed, or the caller held them.
    ByteCount held{};
    std::uint64_t held_ranges = 0;
    /// Failed calls of the invalidation hook since creation, those of the timer included.
    std::uint64_t failed_invalidations = 0;
    /// Around everything above.
    ByteCount guard{};
    ByteCount free{};
    ByteCount largest_hole{};
    /// Summaries and bitmap words that searches of the free space looked at, ever.
    std::uint64_t search_steps = 0;
};

} // namespace moat::iova
