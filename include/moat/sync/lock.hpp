// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Scoped locks over any policy's mutexes, a spin lock over its atomics, and clang's thread-safety
// annotations for both. Engines lock through these only; other compilers ignore the annotations.
#pragma once

#include "moat/sync/concept.hpp"

#include <atomic>
#include <cstdint>

#if defined(__clang__)
#define MOAT_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define MOAT_THREAD_ANNOTATION(x)
#endif

#define MOAT_CAPABILITY(name) MOAT_THREAD_ANNOTATION(capability(name))
#define MOAT_SCOPED_CAPABILITY MOAT_THREAD_ANNOTATION(scoped_lockable)
#define MOAT_GUARDED_BY(lock) MOAT_THREAD_ANNOTATION(guarded_by(lock))
#define MOAT_REQUIRES(...) MOAT_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define MOAT_REQUIRES_SHARED(...) MOAT_THREAD_ANNOTATION(requires_shared_capability(__VA_ARGS__))
#define MOAT_EXCLUDES(...) MOAT_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define MOAT_ACQUIRE(...) MOAT_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define MOAT_ACQUIRE_SHARED(...) MOAT_THREAD_ANNOTATION(acquire_shared_capability(__VA_ARGS__))
#define MOAT_RELEASE(...) MOAT_THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define MOAT_RELEASE_SHARED(...) MOAT_THREAD_ANNOTATION(release_shared_capability(__VA_ARGS__))
#define MOAT_TRY_ACQUIRE(...) MOAT_THREAD_ANNOTATION(try_acquire_capability(__VA_ARGS__))
#define MOAT_NO_THREAD_SAFETY_ANALYSIS MOAT_THREAD_ANNOTATION(no_thread_safety_analysis)

namespace moat {

/// Holds `mutex` from construction to the end of the scope.
template <class Mutex>
class MOAT_SCOPED_CAPABILITY ExclusiveLock {
  public:
    [[gnu::always_inline]] explicit ExclusiveLock(Mutex& mutex) MOAT_ACQUIRE(mutex)
        : mutex_(mutex) {
        mutex_.lock();
    }

    [[gnu::always_inline]] ~ExclusiveLock() MOAT_RELEASE() { mutex_.unlock(); }

    ExclusiveLock(const ExclusiveLock&) = delete;
    ExclusiveLock& operator=(const ExclusiveLock&) = delete;

  private:
    Mutex& mutex_;
};

/// Holds `mutex` for reading from construction to the end of the scope.
template <class SharedMutex>
class MOAT_SCOPED_CAPABILITY SharedLock {
  public:
    explicit SharedLock(SharedMutex& mutex) MOAT_ACQUIRE_SHARED(mutex) : mutex_(mutex) {
        mutex_.lock_shared();
    }

    ~SharedLock() MOAT_RELEASE() { mutex_.unlock_shared(); }

    SharedLock(const SharedLock&) = delete;
    SharedLock& operator=(const SharedLock&) = delete;

  private:
    SharedMutex& mutex_;
};

/// For sections of a few stores, which a mutex would dominate; unlocking is a plain store. Not
/// recursive, not fair. The holder must not wait for anything.
template <SyncPolicy Sync>
class MOAT_CAPABILITY("spin lock") SpinLock {
  public:
    [[gnu::always_inline]] void lock() MOAT_ACQUIRE() {
        while (!try_lock()) [[unlikely]]
            Sync::yield();
    }

    [[gnu::always_inline]] void unlock() MOAT_RELEASE() {
        held_.store(0, std::memory_order_release);
    }

    [[nodiscard, gnu::always_inline]] bool try_lock() MOAT_TRY_ACQUIRE(true) {
        return held_.exchange(1, std::memory_order_acquire) == 0;
    }

  private:
    typename Sync::template Atomic<std::uint64_t> held_{0};
};

} // namespace moat
