// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The operation that a thread announces before it moves, and the record of a step.
// No behaviour: memory models perform operations, dependence.hpp relates them.
#pragma once

#include "lab/explore/actor.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

namespace moat::explore {

enum class Kind : std::uint8_t {
    load,
    store,
    exchange,
    compare_exchange,
    fetch_add,
    fetch_sub,
    fetch_or,
    fetch_and,
    buffer, ///< a store or an unlock enters the thread's store buffer (tso)
    flush,  ///< a store leaves the store buffer and is seen by all
    lock,
    try_lock,
    try_in_vain, ///< a `try_lock` that did not get the lock, in the record of a step
    unlock,
    lock_shared,
    unlock_shared,
    wait_begin, ///< joins the waiters of a condition
    wait_end,   ///< was notified, or its time ran out
    notify_one,
    notify_all,
    read_begin,  ///< enters an outermost RCU read section
    read_end,    ///< leaves it
    grace_begin, ///< notes who is inside
    grace_end,   ///< all those have left
    defer,
    reclaim, ///< the reclaimer takes a deferred call
    barrier, ///< all calls deferred before have run
    allocate,
    free,
    arm,
    cancel,
    fire,    ///< the timer service begins a due callback
    fired,   ///< the callback is done
    advance, ///< time passes because a bounded wait ran out
    read_time,
    choose,
    pause, ///< waits for others to change something
};

inline constexpr std::size_t kinds = static_cast<std::size_t>(Kind::pause) + 1;

/// As replay files and timelines print it.
[[nodiscard]] constexpr std::string_view name(Kind kind) {
    constexpr std::array<std::string_view, kinds> names = {
        "load",        "store",     "exchange",    "compare_exchange",
        "fetch_add",   "fetch_sub", "fetch_or",    "fetch_and",
        "buffer",      "flush",     "lock",        "try_lock",
        "try_in_vain", "unlock",    "lock_shared", "unlock_shared",
        "wait_begin",  "wait_end",  "notify_one",  "notify_all",
        "read_begin",  "read_end",  "grace_begin", "grace_end",
        "defer",       "reclaim",   "barrier",     "allocate",
        "free",        "arm",       "cancel",      "fire",
        "fired",       "advance",   "read_time",   "choose",
        "pause"};
    return names[static_cast<std::size_t>(kind)];
}

/// Lies on the announcing thread's stack until the step is taken.
struct Operation {
    Kind kind = Kind::load;
    std::uint8_t size = 8; ///< bytes of the value
    std::memory_order order = std::memory_order_seq_cst;
    void* address = nullptr;    ///< of the word, the lock, the condition, ...; nullptr: of nothing
    std::uint64_t operand = 0;  ///< value to store, right-hand side, or number of alternatives
    std::uint64_t expected = 0; ///< compare_exchange
    std::uint64_t result = 0;   ///< returned to the thread
};

/// The part of an operation that others can observe. Locations are offsets within the arena,
/// so they are the same in every run and every process.
struct Touch {
    Kind kind = Kind::choose;
    std::uint32_t location = 0; ///< `nowhere`: commutes with everything
    std::uint32_t extent = 0;   ///< bytes from `location` on, for a `free`; else 0
    /// `read_end`: whose grace periods have waited for it. `grace_end`: whose it is.
    ActorSet who;
};

/// The location of operations that touch nothing shared.
inline constexpr std::uint32_t nowhere = 0;

inline constexpr std::int32_t no_step = -1;

/// The actor that moves, and the option it takes.
struct Choice {
    std::uint8_t actor = 0;
    std::uint8_t option = 0;

    friend bool operator==(const Choice&, const Choice&) = default;
};

/// A step that was taken.
struct Step {
    Touch touch;
    std::uint8_t actor = 0;
    std::uint8_t option = 0; ///< which of the alternatives of the operation
    std::uint8_t options = 1;
    std::uint8_t size = 0;
    std::memory_order order = std::memory_order_seq_cst;
    std::uint64_t operand = 0;
    std::uint64_t result = 0;
    /// A step that must come before although they share no location: the store of a flush.
    std::int32_t cause = no_step;
    /// The step whose value a load returned, where the memory model chooses; else `no_step`.
    std::int32_t reads_from = no_step;
};

} // namespace moat::explore
