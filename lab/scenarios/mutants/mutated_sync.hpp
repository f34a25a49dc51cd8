// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// MutatedSync: the Sync policy of mutated headers, which keeps their instantiations apart from
// those of the shipped headers.
#pragma once

#include "lab/explore/explored_sync.hpp"
#include "lab/explore/program.hpp"

#include <optional> // for a mutation
#include <string>
#include <string_view>
#include <utility>

namespace moat::scenarios {

struct MutatedSync : ExploredSync {
    /// The one mutation in force. A program's set-up sets it, on the thread that explores; the text
    /// must outlive the exploration.
    static inline thread_local std::string_view broken;
};

/// `program`, which uses MutatedSync, with the mutation `name` in force.
[[nodiscard]] inline explore::Program with_mutation(std::string name, explore::Program program) {
    return [name = std::move(name), program = std::move(program)](explore::Setup& setup) {
        MutatedSync::broken = name;
        program(setup);
    };
}

} // namespace moat::scenarios
