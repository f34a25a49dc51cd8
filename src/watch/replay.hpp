// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Replays traffic through moat's allocator and tables under a policy: what the policy costs, and
// what it catches that the recorded addresses do not. `moat replay` prints both.
#pragma once

#include "moat/core/result.hpp"
#include "moat/dma/options.hpp"

#include "traffic.hpp"

#include <cstdint>
#include <optional>
#include <vector>

namespace moat::watch {

struct Policy {
    ByteCount guard = {};        ///< unmapped bytes after each mapping
    ByteCount guard_before = {}; ///< and before it
    ByteCount quarantine = {};   ///< bytes of unmapped addresses that stay out of use
    /// Moves buffers below a page to an edge of a page of their own, as level `exact` does.
    std::optional<dma::Placement> placement = {};
};

/// The smallest and the median of many numbers; 0 without any.
struct Spread {
    std::uint64_t count = 0;
    std::uint64_t least = 0;
    std::uint64_t median = 0;
};

/// What stays unseen, or is caught, by where mappings lie.
struct Exposure {
    std::uint64_t maps = 0;
    /// Pairs of mappings, live at the same time, without an unmapped page between them: an overrun
    /// of one reaches the other.
    std::uint64_t adjacent_pairs = 0;
    /// Mappings of which the first byte after the end, or before the start, was refused throughout.
    std::uint64_t overruns_refused_at_once = 0;
    std::uint64_t underruns_refused_at_once = 0;
    /// Of each mapping, the bytes after its end in its last page.
    Spread silent_bytes_after = {};
    Spread silent_bytes_before = {};
    std::uint64_t unmaps = 0;
    /// Of each map over an address that was mapped before: how many unmaps, and how many
    /// nanoseconds, lie between. A late access in that time is refused; afterwards it is not.
    Spread reused_after_unmaps = {};
    Spread reused_after_ns = {};
    /// Of the recorded faults that name a mapping, the access at the same distance from it is
    /// refused and attributed to the same mapping, or to another one, or it is not refused.
    std::uint64_t faults_attributed = 0;
    std::uint64_t faults_attributed_elsewhere = 0;
    std::uint64_t faults_silent = 0;
};

/// Measured by running the traffic through dma::Space at level `guard`.
struct Cost {
    std::uint64_t maps = 0;
    std::uint64_t failed_maps = 0; ///< no address was free
    /// At the most, of the mappings, their guards, caches and the quarantine.
    ByteCount peak_addresses = {};
    std::uint64_t peak_tables = 0; ///< 4 KiB each
    /// Maps whose address came from the free space, not from a cache.
    std::uint64_t searched = 0;
    /// Bytes that placement copies to and from pages of its own.
    ByteCount copied = {};
    /// CPU time of a map and its unmap by the steady clock: the least of several runs.
    double ns_per_pair = 0;
};

struct PolicyOutcome {
    Exposure exposure;
    Cost cost;
};

/// What the recorded addresses expose; no cost.
[[nodiscard]] Exposure exposure_of(const GroupTraffic& traffic);

/// Errors: no_memory; the allocator's for a policy that it refuses.
[[nodiscard]] Result<PolicyOutcome> replay(const GroupTraffic& traffic, const Policy& policy);

} // namespace moat::watch
