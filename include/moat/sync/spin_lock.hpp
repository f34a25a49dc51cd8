// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SpinLock: a lock over any policy's atomics for sections of a few stores, which a mutex would
// dominate. Unlocking is a plain store. For longer sections: Sync::Mutex.
#pragma once

#include "moat/sync/annotations.hpp"
#include "moat/sync/concept.hpp"

#include <atomic>
#include <cstdint>

namespace moat {

/// Not recursive, not fair. The holder must not wait for anything.
template <SyncPolicy Sync>
class MOAT_CAPABILITY("spin lock") SpinLock {
  public:
    void lock() MOAT_ACQUIRE() {
        while (!try_lock())
            Sync::yield();
    }

    void unlock() MOAT_RELEASE() { held_.store(0, std::memory_order_release); }

    [[nodiscard]] bool try_lock() MOAT_TRY_ACQUIRE(true) {
        return held_.exchange(1, std::memory_order_acquire) == 0;
    }

  private:
    typename Sync::template Atomic<std::uint64_t> held_{0};
};

} // namespace moat
