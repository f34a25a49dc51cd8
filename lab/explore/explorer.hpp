// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The façade: explores a program, and returns a report with a claim of what was shown.
// No strategy and no printing of its own; `moat explore` and the tests call it.
#pragma once

#include "lab/explore/machine.hpp"
#include "lab/explore/program.hpp"
#include "lab/explore/search.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace moat::explore {

/// One part of a search that is divided among processes; 0 of 1 is all of it.
struct Shard {
    unsigned index = 0;
    unsigned count = 1;
};

struct ExploreOptions {
    Strategy strategy = Strategy::dpor;
    MachineOptions machine;
    std::uint64_t most_executions = UINT64_MAX;
    unsigned preemptions = 2;
    std::uint64_t seed = 1;
    unsigned pct_depth = 3;
    std::uint64_t random_executions = 100000;
    unsigned jobs = 1;
    Shard shard;
    /// Whether to minimise a violation's schedule.
    bool minimises = true;
    /// Called every few milliseconds by one of the jobs; `explore` ends when it returns false,
    /// during minimisation too.
    std::function<bool(const Tally&)> progress;
};

struct Report {
    Tally tally;
    bool exhausted = false;
    std::optional<Found> found;
    double seconds = 0; ///< of searching, without minimisation
};

/// If `options.machine.allocated_bytes` is set, runs a sample of random schedules first, to detect
/// memory kept from outside the arena.
[[nodiscard]] Report explore(const Program& program, const ExploreOptions& options);

/// The claim of a report in one line: "proved: ..." or what is missing for that. `scope` names the
/// bounds of the program: threads, iterations, retries.
[[nodiscard]] std::string claim(const ExploreOptions& options, const Report& report,
                                const std::string& scope);

inline constexpr std::uint64_t most_minimising_executions = 400000;

/// The shortest schedule to the same violation: fewest preemptions, then threads, then steps.
/// Searches with a preemption bound from 0 upwards, at most `most_executions` executions and while
/// `goes_on` returns true; keeps `found` where that is not enough.
[[nodiscard]] Found minimise(const Program& program, const MachineOptions& options, Found found,
                             std::uint64_t most_executions = most_minimising_executions,
                             const std::function<bool()>& goes_on = {});

} // namespace moat::explore
