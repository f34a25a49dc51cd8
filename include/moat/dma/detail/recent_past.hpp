// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RecentPast: the latest past mappings. An unmap stores one in its thread's ring (past_rings.hpp);
// diagnosis merges the rings into the index (fault/mapping.hpp).
#pragma once

#include "moat/dma/detail/past_rings.hpp"
#include "moat/dma/detail/registered.hpp"
#include "moat/fault/mapping.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>
#include <vector>

namespace moat::dma {

/// Thread-safe.
template <SyncPolicy Sync>
class RecentPast {
  public:
    using Rings = PastRings<Sync>;

    /// Keeps the newest `capacity` mappings, or none without memory.
    RecentPast(std::size_t capacity, const SharedByMappings& shared)
        : rings_(capacity), capacity_(std::max<std::size_t>(capacity, 1)), shared_(shared),
          history_(capacity_) {}

    [[nodiscard]] Rings& rings() { return rings_; }

    /// Brings the index up to date. Return: the result of use(const History&).
    template <class Use>
    [[nodiscard]] auto with_history(Use&& use) {
        const ExclusiveLock lock(index_mutex_);
        try {
            take_over();
            history_.catch_up();
        } catch (const std::bad_alloc&) {
            history_ = fault::History(capacity_);
        }
        return use(std::as_const(history_));
    }

  private:
    /// Moves the entries added before the call to the history. If a ring wrapped since the last
    /// call, the history holds older entries than the lost ones: it is filled anew then.
    void take_over() MOAT_REQUIRES(index_mutex_) {
        std::vector<typename Rings::Taken> taken;
        if (!rings_.take(taken))
            history_ = fault::History(capacity_);
        for (const auto& [entry, order] : taken)
            history_.note(entry.mapping.unpack(entry.page, shared_).mapping, entry.unmapped);
    }

    Rings rings_;
    const std::size_t capacity_;
    const SharedByMappings shared_;

    typename Sync::Mutex index_mutex_;
    fault::History history_ MOAT_GUARDED_BY(index_mutex_);
};

} // namespace moat::dma
