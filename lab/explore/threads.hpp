// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The program's threads as its setup made them, and its final check. Filled in by Setup.
#pragma once

#include "lab/explore/actor.hpp"

#include <array>
#include <cstddef>
#include <string>

namespace moat::explore {

struct Threads {
    struct Body {
        void (*run)(void*) = nullptr;
        void* it = nullptr;
    };

    std::array<Body, most_threads> bodies{};
    std::array<std::string, most_threads> names;
    std::size_t count = 0;
    ActorSet alike; ///< threads that are like the one before them, where symmetry matters
    Body end;

    /// "walker", or the name of a service, a store buffer or the final check.
    [[nodiscard]] std::string name(Actor actor) const;
};

} // namespace moat::explore
