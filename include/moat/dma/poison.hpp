// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Poison: bytes of mappings that their owner denies to devices for a while, for sub-allocators.
// space.hpp documents its limits.
#pragma once

#include "moat/core/range.hpp"
#include "moat/dma/detail/range_set.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <atomic>
#include <cstdint>
#include <memory_resource>

namespace moat::dma {

/// Thread-safe. Devices' accesses query it: its lock is held for one search, never during a wait
/// for an access.
template <SyncPolicy Sync>
class Poison {
  public:
    /// `memory` allocates the ranges, under the lock, and outlives this.
    explicit Poison(std::pmr::memory_resource* memory = std::pmr::new_delete_resource())
        : poisoned_(memory) {}

    void add(IovaRange range) {
        const ExclusiveLock lock(mutex_);
        poisoned_.add(range.start().value(), range.last().value());
        any_.store(1, std::memory_order_release);
    }

    void remove(IovaRange range) {
        if (any_.load(std::memory_order_acquire) == 0) [[likely]]
            return;
        const ExclusiveLock lock(mutex_);
        poisoned_.remove(range.start().value(), range.last().value());
        any_.store(poisoned_.empty() ? 0 : 1, std::memory_order_release);
    }

    /// How many bytes from `start` on, up to `size`, precede a poisoned one.
    [[nodiscard]] ByteCount clear_from(Iova start, ByteCount size) const {
        if (any_.load(std::memory_order_acquire) == 0) [[likely]]
            return size;
        const ExclusiveLock lock(mutex_);
        return ByteCount(poisoned_.clear_from(start.value(), size.value()));
    }

  private:
    mutable typename Sync::Mutex mutex_;
    RangeSet poisoned_ MOAT_GUARDED_BY(mutex_);
    typename Sync::template Atomic<std::uint64_t> any_{0};
};

/// On return no device of `domain` reaches the range. Every access queries the poison, so no
/// translation need be invalidated; but accesses that queried before must end. Errors: io; the
/// range is poisoned, but an earlier access may continue.
template <class Domain, SyncPolicy Sync>
[[nodiscard]] Result<void> poison_and_wait(Poison<Sync>& poison, Domain& domain, IovaRange range) {
    poison.add(range);
    return domain.invalidate_all();
}

} // namespace moat::dma
