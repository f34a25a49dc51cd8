// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A decoded line in plain words: what happened, and what to look at. No mappings are known here;
// where they are, diagnose.hpp knows more. Called by `moat explain`.
#pragma once

#include "moat/fault/decode.hpp"

#include <string>
#include <vector>

namespace moat::fault {

struct Explanation {
    /// A sentence or two.
    std::string happened;
    /// Each a thing to check, the likeliest first.
    std::vector<std::string> look_at;
};

/// `decoded` is a fault or a memory limit.
[[nodiscard]] Explanation explain(const Decoded& decoded);

} // namespace moat::fault
