// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How an allocator is set up: its addresses, guard and granule, and what happens to released
// ranges. Allocator::create checks it.
#pragma once

#include "moat/core/range.hpp"
#include "moat/core/result.hpp"

#include <cstdint>
#include <limits>
#include <span>

namespace moat::iova {

/// Unmapped bytes around every payload, each side rounded up to whole granules; 0 is off. Less than
/// 1 GiB a side.
struct Guard {
    ByteCount before{};
    ByteCount after{};
};

/// How much the quarantine may hold; beyond any of the limits the oldest ranges leave. All zero is
/// off.
struct QuarantineBudget {
    ByteCount bytes{}; ///< payloads and guards
    std::uint64_t entries = 0;
    /// The longest stay. Checked when a range enters and when space runs out.
    std::uint64_t nanoseconds = std::numeric_limits<std::uint64_t>::max();

    [[nodiscard]] constexpr bool enabled() const {
        return bytes.value() != 0 && entries != 0 && nanoseconds != 0;
    }
};

/// Returns once the device can use no translation that was removed before the call; an error where
/// it may still use one. Runs under the flush queue's lock: it must neither flush nor allocate.
struct Invalidation {
    Result<void> (*invalidate)(void* context) = nullptr;
    void* context = nullptr;
};

/// Called for each range that is held because an invalidation failed: on the flushing thread, which
/// may be the timer's, without a lock, so that it may call the allocator. Ranges that there was no
/// memory to note are only counted (Stats::held).
struct HeldListener {
    void (*held)(void* context, IovaRange payload) = nullptr;
    void* context = nullptr;
};

struct Config {
    /// The addresses that the IOMMU translates, below 2^57: disjoint ranges in ascending order,
    /// rounded inwards to the granule. Read during creation only.
    std::span<const IovaRange> aperture{};
    /// The IOMMU's page size: 12, 14 or 16.
    unsigned granule_lg2 = 12;
    Guard guard{};
    /// Off by default: released ranges are reused last in, first out.
    QuarantineBudget quarantine{};
    /// Required for releases `after_invalidation`.
    Invalidation invalidation{};
    /// The longest time from a queued release to the start of its invalidation.
    std::uint64_t flush_delay_nanoseconds = 10'000'000;
};

} // namespace moat::iova
