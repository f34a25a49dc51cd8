// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The dependence relation: which two steps of different actors do not commute.
// One table, the only input of sleep sets and race reversal.
#pragma once

#include "lab/explore/operation.hpp"

#include <array>
#include <cstdint>

namespace moat::explore {

/// Of two steps on one location, in the order in which they happened.
enum class Dependence : std::uint8_t {
    none,    ///< they commute
    ordered, ///< the first enables the second, so their order cannot be reversed
    race,    ///< the second could have come first, with another outcome
    /// A race, unless the first step enabled the second: then the second races with an earlier
    /// step, which this must not hide.
    either,
};

namespace detail {

class DependenceTable {
  public:
    constexpr DependenceTable() {
        memory();
        locks();
        conditions();
        rcu();
        time();
        both(Kind::allocate, Kind::allocate, Dependence::race);
    }

    [[nodiscard]] constexpr Dependence of(Kind first, Kind second) const {
        return cells_[static_cast<std::size_t>(first)][static_cast<std::size_t>(second)];
    }

  private:
    constexpr void set(Kind first, Kind second, Dependence value) {
        cells_[static_cast<std::size_t>(first)][static_cast<std::size_t>(second)] = value;
    }

    constexpr void both(Kind a, Kind b, Dependence value) {
        set(a, b, value);
        set(b, a, value);
    }

    constexpr void memory() {
        constexpr std::array writes = {Kind::store,     Kind::exchange,  Kind::compare_exchange,
                                       Kind::fetch_add, Kind::fetch_sub, Kind::fetch_or,
                                       Kind::fetch_and, Kind::flush};
        for (Kind write : writes) {
            both(Kind::load, write, Dependence::race);
            for (Kind other : writes)
                set(write, other, Dependence::race);
        }
    }

    /// A lock cannot precede the unlock that enables it, so lock races with lock. Neither can it
    /// precede a `try_lock` in vain, which found the lock held. A `try_lock` can precede any step,
    /// with another result.
    constexpr void locks() {
        for (Kind taking : {Kind::lock, Kind::try_lock}) {
            for (Kind other : {Kind::lock, Kind::try_lock, Kind::lock_shared})
                both(taking, other, Dependence::race);
            set(taking, Kind::try_in_vain, Dependence::race);
        }
        set(Kind::lock_shared, Kind::try_in_vain, Dependence::race);
        for (Kind release : {Kind::unlock, Kind::unlock_shared}) {
            set(release, Kind::lock, Dependence::ordered);
            set(release, Kind::try_lock, Dependence::race);
            both(release, Kind::try_in_vain, Dependence::race);
        }
        set(Kind::unlock, Kind::lock_shared, Dependence::ordered);
    }

    constexpr void conditions() {
        for (Kind notify : {Kind::notify_one, Kind::notify_all}) {
            both(notify, Kind::wait_begin, Dependence::race);
            set(notify, Kind::wait_end, Dependence::either);
            set(Kind::wait_end, notify, Dependence::race);
            both(notify, Kind::notify_one, Dependence::race);
            both(notify, Kind::notify_all, Dependence::race);
        }
    }

    /// A section delays the grace periods that begin inside it; its end only enables their end.
    constexpr void rcu() {
        both(Kind::read_begin, Kind::grace_begin, Dependence::race);
        set(Kind::read_end, Kind::grace_end, Dependence::ordered);
        both(Kind::defer, Kind::defer, Dependence::race);
        set(Kind::defer, Kind::reclaim, Dependence::ordered);
        both(Kind::defer, Kind::barrier, Dependence::race);
    }

    constexpr void time() {
        constexpr std::array changes = {Kind::arm, Kind::cancel, Kind::fire, Kind::advance};
        for (Kind a : changes) {
            for (Kind b : changes)
                set(a, b, Dependence::race);
            both(a, Kind::read_time, Dependence::race);
        }
        set(Kind::arm, Kind::fire, Dependence::either);
        set(Kind::fired, Kind::cancel, Dependence::ordered);
        set(Kind::fired, Kind::fire, Dependence::ordered);
    }

    std::array<std::array<Dependence, kinds>, kinds> cells_{};
};

inline constexpr DependenceTable dependence_table;

[[nodiscard]] constexpr bool within(std::uint32_t location, const Touch& range) {
    return location - range.location < range.extent;
}

} // namespace detail

/// A `free` races with whatever touches the freed bytes.
[[nodiscard]] constexpr Dependence dependence(const Touch& first, const Touch& second) {
    if (first.location == second.location && first.location != nowhere &&
        (first.extent | second.extent) == 0) {
        // Only the sections that a grace period waits for enable its end.
        if (first.kind == Kind::read_end && second.kind == Kind::grace_end &&
            (first.who & second.who).empty())
            return Dependence::none;
        return detail::dependence_table.of(first.kind, second.kind);
    }
    if ((second.extent != 0 && detail::within(first.location, second)) ||
        (first.extent != 0 && detail::within(second.location, first)))
        return Dependence::race;
    return Dependence::none;
}

/// Whether a step of this kind is ordered after all earlier steps at its location, so that a search
/// backwards may stop here.
[[nodiscard]] constexpr bool orders_all_before(Kind kind) {
    switch (kind) {
    case Kind::store:
    case Kind::exchange:
    case Kind::compare_exchange:
    case Kind::fetch_add:
    case Kind::fetch_sub:
    case Kind::fetch_or:
    case Kind::fetch_and:
    case Kind::flush:
    case Kind::lock:
    case Kind::try_lock:
        return true;
    default:
        return false;
    }
}

} // namespace moat::explore
