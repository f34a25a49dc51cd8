// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The Sync policies of the iova scenarios: ExploredSync with small caches, and variants of it that
// break one rule each. Only iova_program.hpp and iova_flush_program.hpp include it.
#pragma once

#include "moat/iova/config.hpp"

#include "lab/explore/explored_sync.hpp"

#include <concepts>

namespace moat::scenarios::iova_syncs {

/// As shipped, except for the sizes.
struct Small : ExploredSync {};

/// Locks that exclude nobody. What a lock guards counts as one plain variable, so that the explorer
/// sees the race.
struct Unlocked : ExploredSync {
    struct MOAT_CAPABILITY("mutex") Mutex : explored::Mutex {
        void lock() MOAT_ACQUIRE() { guarded_.write(guarded_.read() + 1); }

        bool try_lock() MOAT_TRY_ACQUIRE(true) {
            guarded_.write(guarded_.read() + 1);
            return true;
        }

        void unlock() MOAT_RELEASE() {}

      private:
        ExploredSync::Plain<unsigned> guarded_;
    };
};

/// A thread that ends does not return its cache.
struct NoExitHook : ExploredSync {
    template <class T>
    struct ThreadLocal : explored::ThreadLocal<T> {
        ThreadLocal(void (*)(void*, T&), void* context)
            : explored::ThreadLocal<T>([](void*, T&) {}, context) {}
    };
};

/// No thread reaches the caches of others.
struct NobodyVisited : ExploredSync {
    template <class T>
    struct ThreadLocal : explored::ThreadLocal<T> {
        using explored::ThreadLocal<T>::ThreadLocal;

        void for_each(void (*)(void*, T&), void*) {}
    };
};

struct SmallSizes {
    static constexpr std::uint64_t most_cached_pages = 1;
    static constexpr std::uint32_t magazine_capacity = 2;
    static constexpr std::size_t special_sets = 1;
    static constexpr std::uint32_t special_ways = 2;
    static constexpr std::uint32_t bin_capacity = 2;
    static constexpr unsigned shelves = 1;
    static constexpr std::uint32_t lane_capacity = 2;
};

} // namespace moat::scenarios::iova_syncs

namespace moat::iova {

template <SyncPolicy Sync>
    requires std::derived_from<Sync, ExploredSync>
struct Sizes<Sync> : scenarios::iova_syncs::SmallSizes {};

} // namespace moat::iova
