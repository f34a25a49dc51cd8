// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A schedule as a text file: its configuration, the actors in order, and each expected operation.
// A replay stops at the first step that differs. `moat explore --replay` uses it.
#pragma once

#include "moat/core/result.hpp"

#include "lab/explore/machine.hpp"
#include "lab/explore/schedule.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moat::explore {

struct ReplayStep {
    Choice choice;
    std::string expected; ///< "walker load pud"
};

struct Replay {
    static constexpr int version = 1;
    std::string scenario;
    std::string configuration; ///< "variant=old walkers=1"
    MemoryModelKind memory_model = MemoryModelKind::sc;
    unsigned failing_allocations = 0;
    std::size_t most_steps = MachineOptions().most_steps;
    std::string violation; ///< "check: the walker ..."; empty: none
    std::vector<ReplayStep> steps;
};

/// "walker load pud"
[[nodiscard]] std::string describe(const Machine& machine, const Step& step);

/// "W5 F5 W2": runs of steps, by the first letters of the threads' names.
[[nodiscard]] std::string summary(const Machine& machine);

/// The steps that `machine` has taken, and its options.
[[nodiscard]] Replay record_replay(const Machine& machine);

[[nodiscard]] std::string to_text(const Replay& replay, const std::string& summary);

/// Errors: `unsupported` for another version, `mismatch` with the number of the invalid line.
[[nodiscard]] Result<Replay> parse_replay(std::string_view text);

/// The machine's options from a replay.
[[nodiscard]] MachineOptions machine_options(const Replay& replay);

/// Starts `machine` and replays. Return: nothing, or the first difference: "step 7: expected walker
/// load pud, found walker lock pud lock".
[[nodiscard]] std::optional<std::string> follow(Machine& machine, const Replay& replay);

} // namespace moat::explore
