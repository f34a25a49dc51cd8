// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RCU by epochs: readers announce the epoch of their entry, reclaimers wait for older readers.
// docs/decisions/0002-rcu.md: why not liburcu. Only sync/real.hpp uses this file.
//
// Protocol. A reader's slot holds 0 outside a section and the epoch of its entry inside. Entering
// is a read-modify-write of the slot, and a grace period reads every slot by read-modify-writes,
// the last read included. The slot's modification order decides: either the reclaimer comes second
// and sees the reader, or the reader comes second and, by acquire, sees everything that the
// reclaimer unlinked. A new slot and a grace period meet at the epoch in the same way. Without
// fences, ThreadSanitizer and the C++ memory model both cover it.
#pragma once

#include "moat/core/check.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/detail/standard_mutex.hpp"
#include "moat/sync/detail/thread_end.hpp"
#include "moat/sync/lock.hpp"

#include <atomic>
#include <cstdint>
#include <thread>

namespace moat::epoch {

using Lock = ExclusiveLock<StandardMutex>;

/// One thread's announcement. Slots are never freed: the next thread reuses that of one that ended.
struct alignas(128) Slot {
    std::atomic<std::uint64_t> entered{0};
    std::atomic<bool> taken{true};
    unsigned depth = 0;
    Slot* next = nullptr;
};

/// The process-wide state; all members are constant-initialised.
struct Domain {
    std::atomic<std::uint64_t> epoch{1};
    std::atomic<Slot*> slots{nullptr};
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
    domain.epoch.fetch_add(0, std::memory_order_acq_rel);
    return fresh;
}

/// The calling thread's slot; a raw pointer, so that reading it needs no initialisation guard.
inline constinit thread_local Slot* own_slot = nullptr;

[[gnu::noinline, gnu::cold]] inline Slot* register_thread() {
    own_slot = take_slot();
    at_thread_end([](void*) {
        // An open section belongs to a frame that exit() abandoned; nobody reads in it.
        own_slot->depth = 0;
        own_slot->entered.store(0, std::memory_order_release);
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
            slot_->entered.exchange(domain.epoch.load(std::memory_order_acquire),
                                    std::memory_order_acq_rel);
    }

    ~ReadSection() {
        if (--slot_->depth == 0)
            slot_->entered.store(0, std::memory_order_release);
    }

    ReadSection(const ReadSection&) = delete;
    ReadSection& operator=(const ReadSection&) = delete;

  private:
    Slot* slot_;
};

[[nodiscard]] inline bool inside_section() {
    return own_slot != nullptr && own_slot->depth != 0;
}

/// Waits for the end of every section open at the call.
inline void synchronize() {
    MOAT_CHECK(!inside_section(), "a read section does not wait for its own end");
    const std::uint64_t after = domain.epoch.fetch_add(1, std::memory_order_acq_rel) + 1;
    const auto is_older = [&](Slot& slot) {
        const std::uint64_t entered = slot.entered.fetch_add(0, std::memory_order_acq_rel);
        return entered != 0 && entered < after;
    };
    for (Slot* each = domain.slots.load(std::memory_order_acquire); each != nullptr;
         each = each->next)
        while (is_older(*each))
            std::this_thread::yield();
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
