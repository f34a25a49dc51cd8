// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// MutatedSync: the Sync policy of mutated headers, which keeps their instantiations apart from
// those of the shipped headers.
#pragma once

#include "lab/explore/explored_sync.hpp"

#include <string_view>

namespace moat::scenarios {

struct MutatedSync : ExploredSync {
    /// The one mutation in force. A program's set-up sets it, on the thread that explores; the text
    /// must outlive the exploration.
    static inline thread_local std::string_view broken;
};

} // namespace moat::scenarios
