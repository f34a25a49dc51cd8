// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The readers that a grace period waits for: a list of their slots, which omits idle ones. Threads
// and memory are in detail/epoch.hpp, RealSync's RCU; `moat explore readers` has the proof.
//
// A slot that a grace period visits: it holds 0 outside a section and the epoch of its entry
// inside. Entering is a read-modify-write of the slot, and a grace period reads the slot by
// read-modify-writes, the last read included. The slot's modification order decides: either the
// grace period comes second and sees the reader, or the reader comes second and, by acquire, sees
// everything that the reclaimer unlinked.
//
// A slot that it does not visit: an idle one is dormant and not listed. A dormant slot's reader
// lists it, then does a read-modify-write of every meeting place; a grace period does one of its
// thread's place, then reads the list. That place's modification order decides in the same way.
// Without fences, ThreadSanitizer and the C++ memory model both cover it.
#pragma once

#include "moat/sync/lock.hpp"

#include <array>
#include <atomic>
#include <cstdint>

namespace moat::epoch {

/// `Sync` has Atomic, Mutex and yield. A slot that `MostLooks` grace periods found outside a
/// section becomes dormant. Thread-safe; one thread at a time uses a slot.
template <class Sync, unsigned Places, std::uint64_t MostLooks>
class Readers {
    template <class T>
    using Atomic = typename Sync::template Atomic<T>;
    using Lock = ExclusiveLock<typename Sync::Mutex>;

    static constexpr std::uint64_t outside = 0;
    static constexpr std::uint64_t dormant = ~std::uint64_t{0};

  public:
    static constexpr unsigned places = Places;

    /// One reader's announcement. Once entered, it outlives the Readers.
    struct Slot {
        Atomic<std::uint64_t> entered{dormant};
        Atomic<std::uint64_t> looks{0};
        /// The next listed slot. Also valid after this one has left the list: from it a grace
        /// period reaches every slot that was behind this one and is still listed.
        Atomic<Slot*> behind{nullptr};
    };

    /// Opens the section of a slot that has none.
    void enter(Slot& slot) {
        const std::uint64_t now = epoch_.load(std::memory_order_acquire);
        if (slot.entered.exchange(now, std::memory_order_acq_rel) == dormant) [[unlikely]]
            list(slot);
    }

    static void leave(Slot& slot) { slot.entered.store(outside, std::memory_order_release); }

    /// Waits for the end of every section open at the call. `place` is below `places`; threads
    /// that share one contend.
    [[gnu::always_inline]] void wait(unsigned place) {
        meet(place);
        if (Slot* const first = first_.load(std::memory_order_acquire))
            visit(*first);
    }

    /// It changes when a grace period finds an open section.
    [[nodiscard]] std::uint64_t epoch() const { return epoch_.load(std::memory_order_relaxed); }

  private:
    struct alignas(64) Place {
        Atomic<std::uint64_t> word{0};
    };

    static std::uint64_t look(Slot& slot) {
        return slot.entered.fetch_add(0, std::memory_order_acq_rel);
    }

    [[gnu::noinline]] void visit(Slot& first) {
        std::uint64_t after = 0;
        for (Slot* each = &first; each != nullptr;
             each = each->behind.load(std::memory_order_acquire))
            if (look(*each) == outside) [[likely]]
                count_look(*each);
            else
                wait_for(*each, after);
    }

    void meet(unsigned place) { places_[place].word.fetch_add(1, std::memory_order_acq_rel); }

    [[gnu::noinline, gnu::cold]] void list(Slot& slot) {
        {
            const Lock lock(mutex_); // so that `remove_idle` has unlinked it
            slot.looks.store(0, std::memory_order_relaxed);
            slot.behind.store(first_.load(std::memory_order_relaxed), std::memory_order_release);
            first_.store(&slot, std::memory_order_release);
        }
        for (unsigned place = 0; place != places; ++place)
            meet(place);
    }

    /// Sections that begin after a grace period's first call, which sets `after`, count as younger
    /// and do not delay it.
    [[gnu::noinline]] void wait_for(Slot& slot, std::uint64_t& after) {
        if (after == 0)
            after = epoch_.fetch_add(1, std::memory_order_acq_rel) + 1;
        for (std::uint64_t entered = look(slot); entered != outside && entered < after;
             entered = look(slot)) // the last look comes after the end of the section
            while (slot.entered.load(std::memory_order_relaxed) == entered)
                Sync::yield();
    }

    void count_look(Slot& slot) {
        const std::uint64_t looks = slot.looks.load(std::memory_order_relaxed) + 1;
        slot.looks.store(looks, std::memory_order_relaxed);
        if (looks >= MostLooks) [[unlikely]]
            remove_idle();
    }

    /// Of the slots that were idle for half as long, too, since threads mostly idle together.
    [[gnu::noinline, gnu::cold]] void remove_idle() {
        if (!mutex_.try_lock())
            return;
        Atomic<Slot*>* link = &first_;
        while (Slot* const each = link->load(std::memory_order_relaxed)) {
            std::uint64_t expected = outside;
            if (each->looks.load(std::memory_order_relaxed) >= (MostLooks + 1) / 2 &&
                each->entered.compare_exchange_strong(expected, dormant, std::memory_order_acq_rel,
                                                      std::memory_order_relaxed))
                link->store(each->behind.load(std::memory_order_relaxed),
                            std::memory_order_release);
            else
                link = &each->behind;
        }
        mutex_.unlock();
    }

    Atomic<std::uint64_t> epoch_{1};
    std::array<Place, Places> places_{};
    /// Changed under the mutex.
    Atomic<Slot*> first_{nullptr};
    typename Sync::Mutex mutex_;
};

} // namespace moat::epoch
