// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// FaultQueue: the pending faults of one device. Bounded: it counts what does not fit. One queue per
// device, so that one device's flood does not hide another's faults.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/record.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace moat::iommu {

/// Thread-safe.
template <SyncPolicy Sync, std::size_t Capacity = 64>
class FaultQueue {
  public:
    void push(const fault::Record& record) {
        const ExclusiveLock lock(mutex_);
        if (count_ == Capacity) {
            ++lost_;
            return;
        }
        fault::Record& slot = records_[(first_ + count_++) % Capacity];
        slot = record;
        slot.suppressed = std::exchange(lost_, 0);
    }

    /// Takes one record. Return: false if there is none. Adds the losses to `lost`; those after the
    /// last record with the last record.
    [[nodiscard]] bool pop(fault::Record& record, std::uint64_t& lost) {
        const ExclusiveLock lock(mutex_);
        if (count_ == 0) {
            lost += std::exchange(lost_, 0);
            return false;
        }
        record = records_[first_];
        lost += record.suppressed;
        first_ = (first_ + 1) % Capacity;
        --count_;
        return true;
    }

  private:
    typename Sync::Mutex mutex_;
    std::array<fault::Record, Capacity> records_ MOAT_GUARDED_BY(mutex_){};
    std::size_t first_ MOAT_GUARDED_BY(mutex_) = 0;
    std::size_t count_ MOAT_GUARDED_BY(mutex_) = 0;
    /// Since the last record that fitted.
    std::uint64_t lost_ MOAT_GUARDED_BY(mutex_) = 0;
};

} // namespace moat::iommu
