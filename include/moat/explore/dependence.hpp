// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The dependence relation: which two steps of different actors may not change places.
// One table; sleep sets and race reversal read it, and nothing else decides.
#pragma once

#include "moat/explore/operation.hpp"

#include <array>
#include <cstdint>

namespace moat::explore {

/// Of two steps on one location, in the order in which they happened.
enum class Dependence : std::uint8_t {
    none,    ///< they commute
    ordered, ///< the first enables the second, so they cannot change places
    race,    ///< the second could have come first, with another outcome
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

    /// A lock cannot come before the unlock that lets it in, so lock races with lock. A `try_lock`
    /// can come before anything, and then fails or succeeds instead.
    constexpr void locks() {
        for (Kind taking : {Kind::lock, Kind::lock_shared}) {
            both(Kind::lock, taking, Dependence::race);
            set(Kind::unlock, taking, Dependence::ordered);
        }
        set(Kind::unlock_shared, Kind::lock, Dependence::ordered);
        for (Kind each :
             {Kind::lock, Kind::lock_shared, Kind::try_lock, Kind::unlock, Kind::unlock_shared})
            both(Kind::try_lock, each, Dependence::race);
    }

    constexpr void conditions() {
        for (Kind notify : {Kind::notify_one, Kind::notify_all}) {
            both(notify, Kind::wait_begin, Dependence::race);
            both(notify, Kind::wait_end, Dependence::race);
            both(notify, Kind::notify_one, Dependence::race);
            both(notify, Kind::notify_all, Dependence::race);
        }
    }

    /// A section matters to a grace period if it begins before; its end only lets that one end.
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
        (first.extent | second.extent) == 0)
        return detail::dependence_table.of(first.kind, second.kind);
    if ((second.extent != 0 && detail::within(first.location, second)) ||
        (first.extent != 0 && detail::within(second.location, first)))
        return Dependence::race;
    return Dependence::none;
}

/// Whether all that happened at this location before is known to whoever sees a step of this kind,
/// so that a search backwards may end here.
[[nodiscard]] constexpr bool orders_all_before(Kind kind) {
    return detail::dependence_table.of(kind, kind) == Dependence::race && kind != Kind::try_lock &&
           kind != Kind::defer && kind != Kind::allocate && kind != Kind::free;
}

} // namespace moat::explore
