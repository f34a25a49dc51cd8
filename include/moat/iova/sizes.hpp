// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The sizes of an allocator's parts. A trait of the Sync policy, so that the explorer runs the
// shipped code with small ones: loops over all sizes would multiply the schedules to explore.
#pragma once

#include "moat/sync/concept.hpp"

#include <cstdint>

namespace moat::iova {

template <SyncPolicy Sync>
struct Sizes {
    /// Payloads of 1 to this many pages are cached, each size apart.
    static constexpr std::uint64_t most_cached_pages = 512;
    /// Ranges of one size that a thread keeps at most.
    static constexpr std::uint32_t magazine_capacity = 64;
    /// Ranges of one size on one shelf of the depot.
    static constexpr std::uint32_t bin_capacity = 256;
    /// Threads with equal numbers modulo this one share a shelf and a shard of the flush queue.
    static constexpr unsigned shelves = 16;
    /// Ranges that a shard queues before it is flushed.
    static constexpr std::uint32_t shard_capacity = 256;
};

} // namespace moat::iova
