// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Scoped locks over any policy's mutexes, annotated for clang's thread-safety analysis. Engines
// lock through these only.
#pragma once

#include "moat/sync/annotations.hpp"

namespace moat {

/// Holds `mutex` from construction to the end of the scope.
template <class Mutex>
class MOAT_SCOPED_CAPABILITY ExclusiveLock {
  public:
    explicit ExclusiveLock(Mutex& mutex) MOAT_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }

    ~ExclusiveLock() MOAT_RELEASE() { mutex_.unlock(); }

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

} // namespace moat
