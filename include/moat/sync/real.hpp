// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RealSync: the Sync policy of production. Atomics are the standard's; RCU is detail/epoch.hpp,
// timers detail/background.hpp, thread-local state detail/thread_slots.hpp.
#pragma once

#include "moat/sync/concept.hpp"
#include "moat/sync/detail/background.hpp"
#include "moat/sync/detail/epoch.hpp"
#include "moat/sync/detail/node.hpp"
#include "moat/sync/detail/standard_mutex.hpp"
#include "moat/sync/detail/thread_slots.hpp"

#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>

namespace moat {

struct RealSync {
    template <class T>
    using Atomic = std::atomic<T>;
    template <class T>
    using AtomicRef = std::atomic_ref<T>;

    template <class T>
    class Plain {
      public:
        Plain() = default;

        constexpr explicit Plain(T value) : value_(value) {}

        [[nodiscard]] T read() const { return value_; }

        void write(T value) { value_ = value; }

      private:
        T value_{};
    };

    using Mutex = StandardMutex;
    using SharedMutex = StandardSharedMutex;
    using Condition = StandardCondition;
    using ReadSection = epoch::ReadSection;
    using Timer = BackgroundTimer;
    template <class T>
    using ThreadLocal = thread_slots::ThreadLocal<T>;

    [[gnu::always_inline]] static void synchronize() { epoch::synchronize(); }

    static void defer(RcuHead* head, void (*call)(RcuHead*)) {
        if (epoch::enqueue(head, call))
            Background::instance().reclaim_soon();
    }

    static void barrier() { epoch::run_deferred(); }

    static std::uint64_t now() { return steady_nanoseconds(); }

    template <class T, class... Args>
    [[nodiscard]] static T* make(Args&&... args) {
        return RetirableNode<T>::make(std::forward<Args>(args)...);
    }

    template <class T>
    static void destroy(T* value) {
        RetirableNode<T>::destroy(value);
    }

    template <class T>
    static void retire(T* value) {
        defer(RetirableNode<T>::head(value), RetirableNode<T>::destroy_head);
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }

    static void yield() { std::this_thread::yield(); }
};

static_assert(SyncPolicy<RealSync>);

} // namespace moat
