// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Vector clocks: the number of steps of each actor that happen before.
// Used by race reversal (dpor), by the detector of data races and by the c11 model.
#pragma once

#include "lab/explore/actor.hpp"

#include <array>
#include <cstdint>

namespace moat::explore {

struct alignas(16) Clock {
    /// Signed, because baseline x86-64 has a vector maximum for signed 16-bit lanes only.
    std::array<std::int16_t, most_actors> steps{};

    constexpr void join(const Clock& other) {
        for (Actor actor = 0; actor != most_actors; ++actor)
            steps[actor] = steps[actor] < other.steps[actor] ? other.steps[actor] : steps[actor];
    }

    /// Whether step number `step` (from 1) of `actor` happens before.
    [[nodiscard]] constexpr bool covers(Actor actor, int step) const {
        return steps[actor] >= step;
    }

    friend constexpr bool operator==(const Clock&, const Clock&) = default;
};

} // namespace moat::explore
