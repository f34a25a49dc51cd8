// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Finds the schedule to a violation that is easiest to read.
#include "lab/explore/explorer.hpp"

#include <tuple>
#include <utility>

namespace moat::explore {

namespace {

/// Smaller is easier to read.
using Length = std::tuple<unsigned, unsigned, std::size_t>;

/// Of the steps that `machine` has taken, whose preemptions were `preemptions`.
[[nodiscard]] Length length_of(const Machine& machine, unsigned preemptions) {
    ActorSet threads;
    for (std::size_t at = 0; at != machine.depth(); ++at)
        threads.add(machine.step_at(at).actor);
    return {preemptions, threads.count(), machine.depth()};
}

/// The preemptions of a schedule, by running it.
[[nodiscard]] unsigned count_preemptions(Machine& machine, const Schedule& schedule) {
    machine.start();
    unsigned preemptions = 0;
    Actor last = most_actors;
    for (const Choice& choice : schedule) {
        preemptions += is_preemption(last, choice.actor, machine.enabled()) ? 1 : 0;
        if (choice.actor < first_buffer)
            last = choice.actor;
        machine.step(choice.actor, choice.option);
    }
    return preemptions;
}

} // namespace

Found minimise(const Program& program, const MachineOptions& options, Found found,
               std::uint64_t most_executions, const std::function<bool()>& goes_on) {
    Machine machine(program, options);
    const unsigned most = count_preemptions(machine, found.schedule);
    Length best = length_of(machine, most);
    std::uint64_t executions = 0;
    bool is_over = false;
    for (unsigned bound = 0; bound <= most && executions < most_executions && !is_over; ++bound) {
        bool improved = false;
        SearchOptions search;
        search.preemptions = bound;
        search.on_violation = OnViolation::go_on;
        search.most_ended = most_executions - executions;
        search.progress = [&](const Tally&) {
            is_over = goes_on && !goes_on();
            return !is_over;
        };
        search.visit_violation = [&](const Machine& at, const Violation& violation) {
            const Length length = length_of(at, bound);
            if (!violation.same_as(found.violation) || length >= best)
                return;
            best = length;
            found = {violation, schedule_of(at)};
            improved = true;
        };
        const SearchResult result = search_bound(machine, search);
        executions += result.tally.executions + result.tally.violating;
        if (improved)
            break;
    }
    return found;
}

} // namespace moat::explore
