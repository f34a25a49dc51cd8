// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Data races on plain variables, and the synchronises-with relation.
// Analyses a finished execution. Plain accesses are no steps, because an execution in which their
// order matters has a race in any order. Called by every strategy.
#pragma once

#include "lab/explore/machine.hpp"

#include <optional>

namespace moat::explore {

/// Channels by which operations other than memory accesses synchronise. The end of a read section
/// happens before the grace periods that begin later, and those that waited for it (Touch::who).
enum class Channel : std::uint8_t { none, lock, grace, reader, awaited, deferred, condition, time };

[[nodiscard]] constexpr Channel publishes_to(Kind kind) {
    switch (kind) {
    case Kind::unlock:
    case Kind::unlock_shared:
        return Channel::lock;
    case Kind::grace_begin:
        return Channel::grace;
    case Kind::read_end:
        return Channel::reader;
    case Kind::defer:
        return Channel::deferred;
    case Kind::notify_one:
    case Kind::notify_all:
        return Channel::condition;
    case Kind::arm:
    case Kind::fired:
        return Channel::time;
    default:
        return Channel::none;
    }
}

[[nodiscard]] constexpr Channel learns_from(Kind kind) {
    switch (kind) {
    case Kind::lock:
    case Kind::try_lock:
    case Kind::lock_shared:
        return Channel::lock;
    case Kind::read_begin:
        return Channel::grace;
    case Kind::grace_begin:
        return Channel::reader;
    case Kind::reclaim:
        return Channel::deferred;
    case Kind::wait_end:
        return Channel::condition;
    case Kind::fire:
    case Kind::cancel:
        return Channel::time;
    default:
        return Channel::none;
    }
}

[[nodiscard]] constexpr bool is_acquire(std::memory_order order) {
    return order != std::memory_order_relaxed && order != std::memory_order_release;
}

[[nodiscard]] constexpr bool is_release(std::memory_order order) {
    return order == std::memory_order_release || order == std::memory_order_acq_rel ||
           order == std::memory_order_seq_cst;
}

/// Under sc and tso every write synchronises with its readers; under c11 only a release that an
/// acquire reads from.
[[nodiscard]] std::optional<Violation> find_data_race(const Machine& machine);

/// Call it when no actor is enabled. Looks for deadlocks, a failed final check, data races.
void judge(Machine& machine);

} // namespace moat::explore
