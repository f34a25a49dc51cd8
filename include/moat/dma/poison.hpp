// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Poison: bytes of living mappings that their owner has taken from the devices for a while, for who
// hands out parts of a mapping. When it holds, and where it cannot, space.hpp says.
#pragma once

#include "moat/core/range.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <atomic>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory_resource>

namespace moat::dma {

/// Thread-safe. Asked inside accesses of devices: its lock is held for a search, and never while
/// somebody waits for an access to end.
template <SyncPolicy Sync>
class Poison {
  public:
    /// `memory` keeps the ranges, outlives this, and is used under the lock.
    explicit Poison(std::pmr::memory_resource* memory = std::pmr::new_delete_resource())
        : last_by_start_(memory) {}

    void add(IovaRange range) {
        const ExclusiveLock lock(mutex_);
        cut_out(range);
        last_by_start_.emplace(range.start().value(), range.last().value());
        any_.store(1, std::memory_order_release);
    }

    void remove(IovaRange range) {
        if (any_.load(std::memory_order_acquire) == 0) [[likely]]
            return;
        const ExclusiveLock lock(mutex_);
        cut_out(range);
        any_.store(last_by_start_.empty() ? 0 : 1, std::memory_order_release);
    }

    /// How many bytes from `start` on, `size` at most, come before a poisoned one.
    [[nodiscard]] ByteCount clear_from(Iova start, ByteCount size) const {
        if (any_.load(std::memory_order_acquire) == 0) [[likely]]
            return size;
        const std::uint64_t at = start.value();
        const ExclusiveLock lock(mutex_);
        const auto next = last_by_start_.upper_bound(at);
        if (next != last_by_start_.begin() && std::prev(next)->second >= at)
            return {};
        if (next == last_by_start_.end() || next->first - at >= size.value())
            return size;
        return ByteCount(next->first - at);
    }

  private:
    void cut_out(IovaRange range) MOAT_REQUIRES(mutex_) {
        const std::uint64_t first = range.start().value();
        const std::uint64_t last = range.last().value();
        auto each = last_by_start_.upper_bound(first);
        if (each != last_by_start_.begin() && std::prev(each)->second >= first)
            --each;
        while (each != last_by_start_.end() && each->first <= last) {
            const auto [was_first, was_last] = *each;
            each = last_by_start_.erase(each);
            if (was_first < first)
                last_by_start_.emplace(was_first, first - 1);
            if (was_last > last)
                last_by_start_.emplace(last + 1, was_last);
        }
    }

    mutable typename Sync::Mutex mutex_;
    /// Disjoint.
    std::pmr::map<std::uint64_t, std::uint64_t> last_by_start_ MOAT_GUARDED_BY(mutex_);
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
