// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Poison: bytes of living mappings that their owner has taken from the devices for a while, for who
// hands out parts of a mapping. When it holds, and where it cannot, space.hpp says.
#pragma once

#include "moat/core/range.hpp"
#include "moat/dma/detail/range_set.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <atomic>
#include <cstdint>
#include <memory_resource>

namespace moat::dma {

/// Thread-safe. Asked inside accesses of devices: its lock is held for a search, and never while
/// somebody waits for an access to end.
template <SyncPolicy Sync>
class Poison {
  public:
    /// `memory` keeps the ranges, outlives this, and is used under the lock.
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

    /// How many bytes from `start` on, `size` at most, come before a poisoned one.
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

/// On return no device of `domain` reaches the range. Errors: io, after which the range is poisoned
/// but an access that began before may go on. What was poisoned is asked for at each
/// access, so there is nothing to forget; but accesses that asked before must end.
template <class Domain, SyncPolicy Sync>
[[nodiscard]] Result<void> poison_and_wait(Poison<Sync>& poison, Domain& domain, IovaRange range) {
    poison.add(range);
    return domain.invalidate_all();
}

} // namespace moat::dma
