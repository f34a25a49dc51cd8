// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Violations: what can be wrong with an execution, and where.
// Found by the machine and the race detector; printed by the timeline.
#pragma once

#include "lab/explore/actor.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moat::explore {

enum class ViolationKind : std::uint8_t {
    check,          ///< the program's own condition does not hold
    deadlock,       ///< threads remain and none can move
    livelock,       ///< all enabled threads move for ever and return to the same state
    data_race,      ///< two accesses to a plain variable, unordered, one of them a write
    use_after_free, ///< a shared word, a lock, ... of memory that was freed
    misuse,         ///< of the policy: an unlock without a lock, a wait inside a read section
    memory,         ///< of the explorer: outside the arena, or more than it holds
};

[[nodiscard]] constexpr std::string_view name(ViolationKind kind) {
    constexpr std::array<std::string_view, 7> names = {
        "check", "deadlock", "livelock", "data race", "use after free", "misuse", "memory"};
    return names[static_cast<std::size_t>(kind)];
}

/// Whether it is a safety property, rather than a liveness property.
[[nodiscard]] constexpr bool is_safety(ViolationKind kind) {
    return kind != ViolationKind::livelock;
}

struct Violation {
    ViolationKind kind = ViolationKind::check;
    std::string text;
    Actor actor = 0;
    /// The number of steps taken when it was found.
    std::size_t depth = 0;
    /// The other step involved: the free, the other access; or -1.
    std::int32_t other_step = -1;
    /// Which of the accesses to plain variables are the two sides, by number; or -1.
    std::int32_t access = -1;
    std::int32_t other_access = -1;

    /// Whether both are the same mistake, found by two schedules.
    [[nodiscard]] bool same_as(const Violation& other) const {
        return kind == other.kind && text == other.text;
    }
};

} // namespace moat::explore
