// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a caller tells an allocator: at its creation, the addresses, guard, granule and sizes of its
// parts (Config, Sizes); with each call, what to allocate and when a release takes effect (Request,
// When). And the counters that it keeps.
#pragma once

#include "moat/core/range.hpp"
#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/sync/concept.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
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
/// it may still use one. Runs under the flush queue's lock: it must neither flush nor allocate nor
/// call stats().
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
    /// The longest time from a queued release to the start of its invalidation; twice that for a
    /// release beside the start of another.
    std::uint64_t flush_delay_nanoseconds = 10'000'000;
};

/// The sizes of an allocator's parts. A trait of the Sync policy, so that the explorer
/// runs the shipped code with small ones: loops over all sizes would multiply the schedules.
template <SyncPolicy Sync>
struct Sizes {
    /// Payloads of 1 to this many pages are cached, each size apart.
    static constexpr std::uint64_t most_cached_pages = 512;
    /// Ranges of one size that a thread keeps at most.
    static constexpr std::uint32_t magazine_capacity = 64;
    /// Larger payloads, and those with a placement: sets by payload, and ranges in each.
    static constexpr std::size_t special_sets = 16;
    static constexpr std::uint32_t special_ways = 32;
    /// Ranges of one size on one shelf of the depot.
    static constexpr std::uint32_t bin_capacity = 256;
    /// Threads with equal numbers modulo this one share a shelf.
    static constexpr unsigned shelves = 16;
    /// Ranges that a thread queues before it flushes; a power of two.
    static constexpr std::uint32_t lane_capacity = 256;
};

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

/// Where the payload may start: at addresses equal to `like` modulo 2^modulus_lg2.
struct Congruence {
    /// 0 to 57; up to the granule it changes nothing.
    unsigned modulus_lg2 = 0;
    std::uint64_t like = 0;

    /// Natural alignment, which coherent buffers need: the size, rounded up to a power of two.
    [[nodiscard]] static constexpr Congruence natural(ByteCount size) {
        const std::uint64_t most = std::uint64_t{1} << 63;
        const std::uint64_t last = std::min(size.value(), most) - (size.value() != 0 ? 1 : 0);
        return {static_cast<unsigned>(std::bit_width(last)), 0};
    }

    [[nodiscard]] static constexpr Congruence aligned(unsigned alignment_lg2) {
        return {alignment_lg2, 0};
    }

    /// The same offset in a large page (2^modulus_lg2: 21 for 2 MiB, 30 for 1 GiB) as the memory
    /// has, so that large leaves can map it.
    [[nodiscard]] static constexpr Congruence with(PhysicalAddress memory, unsigned modulus_lg2) {
        return {modulus_lg2, memory.value()};
    }
};

/// A range to allocate. All of it concerns the payload; the allocator adds the guard.
struct Request {
    /// In bytes; the allocator rounds it up to the granule.
    ByteCount size;
    Congruence placement{};
    /// The last address that the device can send; the payload ends there at the latest.
    Iova last{std::numeric_limits<std::uint64_t>::max()};
    /// The payload's own address, where the caller chooses it: a multiple of the granule that
    /// satisfies `placement` and `last`.
    std::optional<Iova> at{};

    /// Whether any range of this size will do, as the caches hold them.
    [[nodiscard]] constexpr bool is_plain() const {
        return placement.modulus_lg2 == 0 &&
               last.value() == std::numeric_limits<std::uint64_t>::max() && !at;
    }
};

enum class When : std::uint8_t {
    now,                ///< the caller has invalidated: no device can reach the range
    after_invalidation, ///< queued; reusable after an invalidation that begins later
};

} // namespace moat::iova
