// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Explains a decoded line: what happened, and what to check. Without mappings; with them,
// diagnose.hpp finds more. `moat explain` calls it.
#pragma once

#include "moat/fault/decode.hpp"

#include <string>
#include <vector>

namespace moat::fault {

struct Explanation {
    /// A sentence or two.
    std::string happened;
    /// Things to check, the likeliest first.
    std::vector<std::string> look_at;
};

/// `decoded` is a problem or a number of suppressed lines.
[[nodiscard]] Explanation explain(const LogEvent& decoded);

} // namespace moat::fault
