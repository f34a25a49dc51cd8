// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The promises of the engine that no type checks, by name. A trait of the Sync policy: the explorer
// breaks one at a time and must catch it. As shipped all hold, and nothing is left of them in code.
#pragma once

#include "moat/sync/concept.hpp"

namespace moat {

template <SyncPolicy Sync>
struct Rules {
    /// finish() invalidates what an edit changed.
    static constexpr bool invalidates = true;
    /// A removed table is invalidated before it is handed over to be freed.
    static constexpr bool invalidates_before_free = true;
    /// A split replaces the leaf that it looked at, and no other entry.
    static constexpr bool split_is_compared = true;
};

} // namespace moat
