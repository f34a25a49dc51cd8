// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A schedule as a text file: what it was made with, who moves, and what is expected at every step.
// Following one stops at the first step that differs. `moat explore --replay` uses it.
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

/// "W5 F5 W2": who moves how often, by the first letters of the threads' names.
[[nodiscard]] std::string summary(const Machine& machine);

/// What `machine` has done, with the machine's part of the configuration.
[[nodiscard]] Replay record_replay(const Machine& machine);

[[nodiscard]] std::string to_text(const Replay& replay, const std::string& summary);

/// Return: `unsupported` for another version, `mismatch` with the number of the line that is wrong.
[[nodiscard]] Result<Replay> parse_replay(std::string_view text);

/// What of the machine's options a replay carries.
[[nodiscard]] MachineOptions machine_options(const Replay& replay);

/// Starts `machine` and follows. Return: nothing, or what differs first: "step 7: expected walker
/// load pud, found walker lock pud lock".
[[nodiscard]] std::optional<std::string> follow(Machine& machine, const Replay& replay);

} // namespace moat::explore
