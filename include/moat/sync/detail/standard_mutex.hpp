// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The standard library's locks with thread-safety annotations, which libstdc++'s lack. Only sync/
// uses them.
#pragma once

#include "moat/sync/lock.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <mutex>
#include <shared_mutex>

namespace moat {

class MOAT_CAPABILITY("mutex") StandardMutex {
  public:
    constexpr StandardMutex() = default;

    void lock() MOAT_ACQUIRE() { mutex_.lock(); }

    bool try_lock() MOAT_TRY_ACQUIRE(true) { return mutex_.try_lock(); }

    void unlock() MOAT_RELEASE() { mutex_.unlock(); }

  private:
    friend class StandardCondition;

    std::mutex mutex_;
};

class MOAT_CAPABILITY("shared mutex") StandardSharedMutex {
  public:
    void lock() MOAT_ACQUIRE() { mutex_.lock(); }

    bool try_lock() MOAT_TRY_ACQUIRE(true) { return mutex_.try_lock(); }

    void unlock() MOAT_RELEASE() { mutex_.unlock(); }

    void lock_shared() MOAT_ACQUIRE_SHARED() { mutex_.lock_shared(); }

    void unlock_shared() MOAT_RELEASE_SHARED() { mutex_.unlock_shared(); }

  private:
    std::shared_mutex mutex_;
};

class StandardCondition {
  public:
    void wait(StandardMutex& mutex) MOAT_REQUIRES(mutex) {
        std::unique_lock lock(mutex.mutex_, std::adopt_lock);
        condition_.wait(lock);
        lock.release();
    }

    bool wait_for(StandardMutex& mutex, std::uint64_t nanoseconds) MOAT_REQUIRES(mutex) {
        std::unique_lock lock(mutex.mutex_, std::adopt_lock);
        // A clock of signed nanoseconds holds 292 years; half of that serves as forever.
        constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max() / 2;
        const std::chrono::nanoseconds bounded(std::min(nanoseconds, most));
        const std::cv_status status =
            condition_.wait_until(lock, std::chrono::steady_clock::now() + bounded);
        lock.release();
        return status == std::cv_status::no_timeout;
    }

    void notify_one() { condition_.notify_one(); }

    void notify_all() { condition_.notify_all(); }

  private:
    std::condition_variable condition_;
};

} // namespace moat
