// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The state of locks, conditions, RCU, timers and freed memory, as it lies in the arena.
// Plain data, which only explore/world.hpp changes, when it performs an operation.
#pragma once

#include "moat/sync/concept.hpp"

#include "lab/explore/actor.hpp"
#include "lab/explore/operation.hpp"

#include <array>
#include <cstdint>

namespace moat::explore {

struct LockState {
    std::uint32_t owner = 0; ///< 1 + actor; 0: nobody
    std::uint32_t readers = 0;
};

struct ConditionState {
    ActorSet waiting;
    ActorSet notified;
};

struct TimerState {
    void (*callback)(void*) = nullptr;
    void* context = nullptr;
    TimerState* next = nullptr;
    std::uint64_t deadline = 0;
    bool armed = false;
};

struct FreedRange {
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
    std::int32_t step = no_step;
    const FreedRange* next = nullptr;
};

/// Small, because the journal compares it with a copy after each step. Operations without an
/// address of their own use the addresses of members as locations.
struct Services {
    struct Rcu {
        ActorSet inside;
        std::array<std::uint8_t, most_fibers> depth{};
        /// By fiber, the readers that its grace period still waits for.
        std::array<ActorSet, most_fibers> waits_for{};
    } rcu;

    struct Deferred {
        RcuHead* first = nullptr;
        RcuHead* last = nullptr;
    } deferred;

    struct Time {
        std::uint64_t now = 0;
        TimerState* timers = nullptr;
        TimerState* running = nullptr;
    } time;

    struct Memory {
        std::uint32_t failures_left = 0;
        const FreedRange* freed = nullptr; ///< the latest first
    } memory;

    /// Runs at the end of a thread; set by the first thread-local slot.
    void (*thread_exit)(Actor) = nullptr;
    void* thread_locals = nullptr;
    LockState thread_locals_lock;
};

} // namespace moat::explore
