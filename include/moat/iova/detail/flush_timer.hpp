// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Starts a flush some time after a range was queued. The thread that queues it compares one flag,
// without a barrier between its store to the queue and that load. So a range may be queued while
// the flag is cleared, by a thread that still sees it set, and be too late for the flush that
// follows. The timer therefore fires once more, a delay later, when that store has long been
// visible.
#pragma once

#include "moat/sync/concept.hpp"

#include <atomic>
#include <cstdint>

namespace moat::iova {

template <SyncPolicy Sync>
class FlushTimer {
  public:
    using Flush = void (*)(void* context);

    FlushTimer(std::uint64_t delay_nanoseconds, Flush flush, void* context)
        : delay_(delay_nanoseconds), flush_(flush), context_(context), timer_(&fires, this) {}

    FlushTimer(const FlushTimer&) = delete;
    FlushTimer& operator=(const FlushTimer&) = delete;

    /// After a range was queued: it is flushed within two delays, within one unless the timer fires
    /// meanwhile.
    [[gnu::always_inline]] void arm() {
        if (!armed_.load(std::memory_order_relaxed)) [[unlikely]]
            arm_slowly();
    }

    /// See OneShotTimer.
    void cancel() { timer_.cancel(); }

  private:
    [[gnu::noinline]] void arm_slowly() {
        if (!armed_.exchange(true, std::memory_order_seq_cst))
            timer_.arm(delay_);
    }

    static void fires(void* timer) {
        auto& self = *static_cast<FlushTimer*>(timer);
        if (self.armed_.exchange(false, std::memory_order_seq_cst))
            self.timer_.arm(self.delay_);
        self.flush_(self.context_);
    }

    const std::uint64_t delay_;
    const Flush flush_;
    void* const context_;
    typename Sync::template Atomic<bool> armed_{false};
    typename Sync::Timer timer_;
};

} // namespace moat::iova
