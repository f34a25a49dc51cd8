// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Mazurkiewicz traces from the definition, and sets of executions to compare strategies by.
// Deliberately independent of the explorer's dependence table and clocks: the tests compare the
// two.
#pragma once

#include "lab/explore/search.hpp"

#include <array>
#include <cstdint>
#include <set>
#include <vector>

namespace moat::explore::testing {

/// Accesses to one location conflict unless both are loads; operations on one lock conflict unless
/// both are failed attempts; all others commute.
[[nodiscard]] inline bool conflict(const Step& a, const Step& b) {
    if (a.touch.location != b.touch.location || a.touch.location == nowhere)
        return false;
    return a.touch.kind != b.touch.kind ||
           (a.touch.kind != Kind::load && a.touch.kind != Kind::try_in_vain);
}

/// Equal for two executions if and only if (but for collisions of 64 bits) one becomes the other by
/// exchanging neighbours that commute: every step with the set of steps that must precede it.
[[nodiscard]] inline std::uint64_t trace_of(const Machine& machine) {
    const auto mixed = [](std::uint64_t a, std::uint64_t b) {
        a = (a * 31 ^ b) * 0xff51afd7ed558ccd + 1;
        return a ^ (a >> 31);
    };
    const std::size_t count = machine.depth();
    std::vector<std::uint64_t> names(count);
    std::vector<std::vector<bool>> before(count, std::vector<bool>(count));
    std::uint64_t sum = 0;
    std::array<std::size_t, most_actors> begins; // the first step of each actor
    begins.fill(count);
    for (std::size_t i = 0; i != count; ++i) {
        const Step& step = machine.step_at(i);
        if (begins[step.actor] == count)
            begins[step.actor] = i;
        const Actor like = begins[step.actor] == i ? machine.begins_after(step.actor) : nobody;
        std::uint64_t number = 0; // among the steps of its actor
        for (std::size_t j = i; j-- != 0;) {
            const Step& earlier = machine.step_at(j);
            number += earlier.actor == step.actor ? 1U : 0U;
            const bool caused = step.cause == static_cast<std::int32_t>(j) ||
                                (earlier.actor == like && begins[like] == j);
            if (earlier.actor == step.actor || caused || conflict(earlier, step)) {
                before[i][j] = true;
                for (std::size_t k = 0; k != j; ++k)
                    before[i][k] = before[i][k] || before[j][k];
            }
        }
        names[i] = mixed(std::uint64_t{step.actor} << 40 | number << 8, step.option + 1U);
        std::uint64_t past = 0;
        for (std::size_t j = 0; j != i; ++j)
            past += before[i][j] ? mixed(names[j], 17) : 0;
        sum += mixed(names[i], past);
    }
    return sum;
}

struct Seen {
    std::uint64_t executions = 0;
    std::uint64_t violating = 0;
    bool exhausted = false;
    std::set<std::uint64_t> traces;
    std::set<std::uint64_t> final_states;
};

enum class Collect : std::uint8_t { states, traces_too };

[[nodiscard]] inline Seen see(const Program& program, Strategy strategy,
                              const MachineOptions& machine_options, Collect collect,
                              std::uint64_t most_executions = UINT64_MAX) {
    Machine machine(program, machine_options);
    Seen seen;
    SearchOptions options;
    options.on_violation = OnViolation::go_on;
    options.most_executions = most_executions;
    options.visit = [&](const Machine& at) {
        seen.final_states.insert(at.fingerprint());
        if (collect == Collect::traces_too)
            seen.traces.insert(trace_of(at));
    };
    const SearchResult result = search(strategy, machine, options);
    seen.executions = result.tally.executions;
    seen.violating = result.tally.violating;
    seen.exhausted = result.exhausted;
    return seen;
}

} // namespace moat::explore::testing
