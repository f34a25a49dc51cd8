// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The strategies: each drives a machine through some or all of its schedules.
// No memory model, no output. explore/explorer.hpp chooses one by name.
#pragma once

#include "lab/explore/machine.hpp"
#include "lab/explore/schedule.hpp"
#include "lab/explore/violation.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

namespace moat::explore {

enum class Strategy : std::uint8_t { dpor, sleep, naive, bound, pct, random };

[[nodiscard]] constexpr std::string_view name(Strategy strategy) {
    constexpr std::array<std::string_view, 6> names = {"dpor",  "sleep", "naive",
                                                       "bound", "pct",   "random"};
    return names[static_cast<std::size_t>(strategy)];
}

/// Whether the strategy ends by itself once it has covered its whole space.
[[nodiscard]] constexpr bool is_exhaustive(Strategy strategy) {
    return strategy <= Strategy::bound;
}

struct Found {
    Violation violation;
    Schedule schedule;
};

/// Counts so far.
struct Tally {
    std::uint64_t executions = 0; ///< that ran to their end without a violation
    std::uint64_t blocked = 0;    ///< abandoned because other branches cover the continuations
    std::uint64_t cut = 0;        ///< that took too many steps
    std::uint64_t violating = 0;
    std::uint64_t steps = 0;    ///< taken, without those that snapshots saved
    std::uint64_t subtrees = 0; ///< below the depth at which shards divide
    /// The explored part of the whole, 0 .. 1, estimated from the remaining branches.
    double fraction = 0;

    void add(const Tally& other) {
        executions += other.executions;
        blocked += other.blocked;
        cut += other.cut;
        violating += other.violating;
        steps += other.steps;
    }
};

enum class OnViolation : std::uint8_t { stop, go_on };

/// How to divide a tree of schedules: the first `depth` steps branch fully, and the subtrees below
/// are numbered in the order of the walk. All shards use the same numbers, since no subtree
/// adds branches above it.
struct Division {
    std::size_t depth = 0;
    /// Whether to search subtree `number` here; empty: all of them.
    std::function<bool(std::uint64_t number)> is_mine;
};

struct SearchOptions {
    std::uint64_t most_executions = UINT64_MAX;
    std::uint64_t most_ended = UINT64_MAX; ///< executions, those that violate included
    OnViolation on_violation = OnViolation::stop;
    unsigned preemptions = 2;                 ///< `bound`
    std::uint64_t seed = 1;                   ///< `pct`, `random`
    unsigned pct_depth = 3;                   ///< `pct`: 1 + the number of priority changes
    std::uint64_t random_executions = 100000; ///< `pct`, `random`
    Division division;
    /// Called at each complete execution, with the machine at its end.
    std::function<void(const Machine&)> visit;
    /// Called with every violation, and the machine where it showed.
    std::function<void(const Machine&, const Violation&)> visit_violation;
    /// Called every few milliseconds; the search ends when it returns false.
    std::function<bool(const Tally&)> progress;
};

struct SearchResult {
    Tally tally;
    bool exhausted = false; ///< the strategy has covered its whole space
    std::optional<Found> found;
};

/// All schedules.
[[nodiscard]] SearchResult search_naive(Machine& machine, const SearchOptions& options);
/// One schedule, at least, of each Mazurkiewicz trace, by sleep sets alone (Godefroid 1996).
[[nodiscard]] SearchResult search_sleep(Machine& machine, const SearchOptions& options);
/// The same by source sets and sleep sets (Abdulla, Aronis, Jonsson, Sagonas, POPL 2014).
[[nodiscard]] SearchResult search_dpor(Machine& machine, const SearchOptions& options);
/// All schedules with at most so many preemptions; no reduction, which would be unsound.
[[nodiscard]] SearchResult search_bound(Machine& machine, const SearchOptions& options);
/// Every enabled actor moves with equal probability.
[[nodiscard]] SearchResult search_random(Machine& machine, const SearchOptions& options);
/// Random priorities that change at few random steps (Burckhardt and others, ASPLOS 2010).
[[nodiscard]] SearchResult search_pct(Machine& machine, const SearchOptions& options);

[[nodiscard]] SearchResult search(Strategy strategy, Machine& machine,
                                  const SearchOptions& options);

} // namespace moat::explore
