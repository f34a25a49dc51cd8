// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Vector clocks: the number of steps of each actor that happen before.
// Used by race reversal (dpor), by the detector of data races and by the c11 model.
#pragma once

#include "lab/explore/actor.hpp"

#include <array>
#include <cstdint>

namespace moat::explore {

/// Of actors below `Actors`.
template <Actor Actors>
struct alignas(16) ClockOf {
    /// Signed, because baseline x86-64 has a vector maximum for signed 16-bit lanes only.
    std::array<std::int16_t, Actors> steps{};

    constexpr void join(const ClockOf& other) {
        for (Actor actor = 0; actor != Actors; ++actor)
            steps[actor] = steps[actor] < other.steps[actor] ? other.steps[actor] : steps[actor];
    }

    /// Whether step number `step` (from 1) of `actor` happens before.
    [[nodiscard]] constexpr bool covers(Actor actor, int step) const {
        return steps[actor] >= step;
    }

    /// Whether it covers some actor's step of `other`.
    [[nodiscard]] constexpr bool covers_any(const ClockOf& other) const {
        std::int16_t any = 0;
        for (Actor actor = 0; actor != Actors; ++actor)
            any |= steps[actor] >= other.steps[actor] ? std::int16_t{-1} : std::int16_t{0};
        return any != 0;
    }

    friend constexpr bool operator==(const ClockOf&, const ClockOf&) = default;
};

using Clock = ClockOf<most_actors>;

} // namespace moat::explore
