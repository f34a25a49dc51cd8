// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How an allocator is set up: its addresses, its unit, and what happens to released ranges.
// Guards are a template parameter (guard_policy.hpp); allocator.hpp checks and applies all this.
#pragma once

#include "moat/core/range.hpp"
#include "moat/iova/detail/free_space.hpp"
#include "moat/iova/detail/quarantine.hpp"
#include "moat/iova/flush_queue.hpp"

#include <cstdint>
#include <optional>
#include <span>

namespace moat::iova {

/// Called for each range that is held because the invalidation hook failed, also in a timer's
/// flush, on the thread that flushed and with no lock held: it may call the allocator. Without
/// memory to note a range, Stats::held counts it and no call names it.
struct HeldListener {
    void (*held)(void* context, IovaRange payload) = nullptr;
    void* context = nullptr;
};

struct Config {
    /// The addresses that the IOMMU translates, ascending, apart; rounded inwards to the granule.
    /// Below 2^57. Used during creation only.
    std::span<const IovaRange> aperture{};
    /// The IOMMU's page: 12, 14 or 16.
    unsigned granule_lg2 = 12;
    Preference preference = Preference::above_4gib;
    /// Off by default: released ranges are reused last in, first out.
    QuarantineBudget quarantine{};
    /// Needed for releases `after_invalidation`.
    Invalidation invalidation{};
    /// No queued release waits longer for its invalidation to begin.
    std::uint64_t flush_delay_nanoseconds = 10'000'000;
    /// Carved out of the aperture, or beside it; see Source::fixed_window.
    std::optional<IovaRange> fixed_window{};
    /// Of the random guards.
    std::uint64_t seed = 1;
};

} // namespace moat::iova
