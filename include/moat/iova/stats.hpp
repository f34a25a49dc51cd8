// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An allocator's counters. allocator.hpp fills them in.
#pragma once

#include "moat/core/types.hpp"

#include <cstdint>

namespace moat::iova {

/// Exact while no other thread calls the allocator. In bytes of payload, except `guard`, `free` and
/// `largest_hole`.
struct Stats {
    std::uint64_t live_ranges = 0;
    ByteCount live{};
    ByteCount cached{};
    /// The part of `cached` in magazines: only the thread that owns one can empty it.
    ByteCount private_to_threads{};
    ByteCount quarantined{};
    ByteCount queued{};
    /// Never reused: their invalidation failed, or the caller held them.
    ByteCount held{};
    std::uint64_t held_ranges = 0;
    /// Failed calls of the invalidation hook since creation, those of the timer included.
    std::uint64_t failed_invalidations = 0;
    /// Around all ranges above.
    ByteCount guard{};
    ByteCount free{};
    ByteCount largest_hole{};
    /// Summaries and bitmap words that searches of the free space have read since creation.
    std::uint64_t search_steps = 0;
};

} // namespace moat::iova
