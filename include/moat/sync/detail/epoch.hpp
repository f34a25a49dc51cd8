// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RCU by epochs: readers announce the epoch of their entry, reclaimers wait for older readers.
// The slots of threads and the deferred calls; readers.hpp has the protocol between both sides.
// docs/decisions/0002-rcu.md: why not liburcu. Only sync/real.hpp uses this file.
#pragma once

#include "moat/core/check.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/detail/standard_mutex.hpp"
#include "moat/sync/detail/thread_end.hpp"
#include "moat/sync/lock.hpp"
#include "moat/sync/readers.hpp"

#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>

namespace moat::epoch {

using Lock = ExclusiveLock<StandardMutex>;

struct StandardSync {
    template <class T>
    using Atomic = std::atomic<T>;
    using Mutex = StandardMutex;

    static void yield() { std::this_thread::yield(); }
};

/// Listing a slot again costs as much as ten looks at it: at 64 neither a thread that idles nor one
/// that reads now and then costs much.
using ProcessReaders = Readers<StandardSync, 32, 64>;

/// One thread's announcement. Slots are never freed: the next thread reuses that of one that ended.
struct alignas(128) Slot : ProcessReaders::Slot {
    std::atomic<bool> taken{true};
    unsigned depth = 0;
    Slot* next = nullptr;
};

/// The process-wide state; all members are constant-initialised.
struct Domain {
    ProcessReaders readers;
    std::atomic<Slot*> slots{nullptr};
    std::atomic<unsigned> threads_that_wait{0};
    /// Deferred calls in order, each batch with the epoch that it must outlive.
    StandardMutex deferred_mutex;
    RcuHead* deferred_first MOAT_GUARDED_BY(deferred_mutex) = nullptr;
    RcuHead** deferred_last MOAT_GUARDED_BY(deferred_mutex) = &deferred_first;
    /// Held while a batch waits for its grace period and runs.
    StandardMutex reclaim_mutex;
};

inline constinit Domain domain{};

[[gnu::noinline, gnu::cold]] inline Slot* take_slot() {
    for (Slot* each = domain.slots.load(std::memory_order_acquire); each != nullptr;
         each = each->next)
        if (!each->taken.load(std::memory_order_relaxed) &&
            !each->taken.exchange(true, std::memory_order_acquire))
            return each;
    Slot* fresh = new Slot;
    fresh->next = domain.slots.load(std::memory_order_relaxed);
    while (!domain.slots.compare_exchange_weak(fresh->next, fresh, std::memory_order_acq_rel,
                                               std::memory_order_relaxed)) {
    }
    return fresh;
}

/// The calling thread's slot; a raw pointer, so that reading it needs no initialisation guard.
inline constinit thread_local Slot* own_slot = nullptr;

[[gnu::noinline, gnu::cold]] inline Slot* register_thread() {
    own_slot = take_slot();
    at_thread_end([](void*) {
        // An open section belongs to a frame that exit() abandoned; nobody reads in it.
        if (std::exchange(own_slot->depth, 0) != 0)
            ProcessReaders::leave(*own_slot);
        own_slot->taken.store(false, std::memory_order_release);
        own_slot = nullptr;
    });
    return own_slot;
}

/// Nothing reachable at its start is freed before its end. Nests. The outermost one costs a locked
/// instruction, so hold it across a batch.
class ReadSection {
  public:
    ReadSection() : slot_(own_slot) {
        if (slot_ == nullptr) [[unlikely]]
            slot_ = register_thread();
        if (slot_->depth++ == 0)
            domain.readers.enter(*slot_);
    }

    ~ReadSection() {
        if (--slot_->depth == 0)
            ProcessReaders::leave(*slot_);
    }

    ReadSection(const ReadSection&) = delete;
    ReadSection& operator=(const ReadSection&) = delete;

  private:
    Slot* slot_;
};

[[nodiscard]] inline bool inside_section() {
    return own_slot != nullptr && own_slot->depth != 0;
}

/// 1 more than the place where the calling thread meets readers; 0 before its first grace period,
/// which thus allocates nothing.
inline constinit thread_local unsigned own_place = 0;

[[gnu::noinline, gnu::cold]] inline void choose_place() {
    const unsigned before = domain.threads_that_wait.fetch_add(1, std::memory_order_relaxed);
    own_place = before % ProcessReaders::places + 1;
}

/// Waits for the end of every section open at the call.
[[gnu::always_inline]] inline void synchronize() {
    MOAT_CHECK(!inside_section(), "a read section does not wait for its own end");
    if (own_place == 0) [[unlikely]]
        choose_place();
    domain.readers.wait(own_place - 1);
}

/// Queues a call. Return: whether the queue was empty, so that nobody is about to run it.
inline bool enqueue(RcuHead* head, void (*call)(RcuHead*)) {
    head->call = call;
    head->next = nullptr;
    const Lock lock(domain.deferred_mutex);
    const bool was_empty = domain.deferred_first == nullptr;
    *domain.deferred_last = head;
    domain.deferred_last = &head->next;
    return was_empty;
}

/// Takes all queued calls, waits for a grace period and runs them in order. Not from inside a
/// section or a deferred call.
inline void run_deferred() {
    MOAT_CHECK(!inside_section(), "a read section does not wait for its own end");
    const Lock reclaiming(domain.reclaim_mutex);
    RcuHead* batch = nullptr;
    {
        const Lock lock(domain.deferred_mutex);
        batch = domain.deferred_first;
        domain.deferred_first = nullptr;
        domain.deferred_last = &domain.deferred_first;
    }
    if (batch == nullptr)
        return;
    synchronize();
    while (batch != nullptr) {
        RcuHead* next = batch->next;
        batch->call(batch);
        batch = next;
    }
}

} // namespace moat::epoch
