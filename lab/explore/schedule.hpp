// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A schedule is plain data: the actors that moved, and their options.
// Strategies produce schedules, replay follows them.
#pragma once

#include "lab/explore/machine.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace moat::explore {

using Schedule = std::vector<Choice>;

/// The schedule that led to the machine's present state.
[[nodiscard]] inline Schedule schedule_of(const Machine& machine) {
    Schedule schedule(machine.depth());
    for (std::size_t at = 0; at != schedule.size(); ++at)
        schedule[at] = {machine.step_at(at).actor, machine.step_at(at).option};
    return schedule;
}

/// Switches away from a thread that could have continued.
[[nodiscard]] constexpr bool is_preemption(Actor before, Actor next, ActorSet enabled) {
    return before != most_actors && next != before && next < first_buffer &&
           enabled.contains(before);
}

} // namespace moat::explore
