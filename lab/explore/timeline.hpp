// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An execution as text: one column a thread, values decoded, and where it went wrong marked.
// Pure functions of what the machine did. `moat explore` prints it for a violation.
#pragma once

#include "lab/explore/machine.hpp"

#include <cstddef>
#include <optional>
#include <string>

namespace moat::explore {

/// Why a thread was wrong about a location: what it last knew, who changed it, where it looked
/// again.
struct StaleRead {
    std::size_t knew = 0;    ///< its last step there before the change
    std::size_t changed = 0; ///< the other's step
    std::size_t looked = 0;  ///< its next step there
};

/// The last change behind the back of the thread that is to blame; nothing when there is none.
[[nodiscard]] std::optional<StaleRead> find_stale_read(const Machine& machine);

/// "load pud = PUD LEAF special pfn=0x40000"
[[nodiscard]] std::string describe_effect(const Machine& machine, const Step& step);

/// All that `machine` has done, and its violation.
[[nodiscard]] std::string timeline(const Machine& machine);

} // namespace moat::explore
