// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `--trace FILE`: the data of pictures (docs/picture.md) in the Trace Event Format, which Perfetto
// and chrome://tracing show. What is in the data, audit_picture and schedule_picture decide.
#pragma once

#include "moat/core/result.hpp"

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

namespace moat::tools {

/// The events of `pictures`, a process each, in the order of their times.
[[nodiscard]] nlohmann::ordered_json trace_events(std::span<const nlohmann::ordered_json> pictures);

/// Writes them to `file`. Errors: `io`, and then `file` holds what was written so far.
[[nodiscard]] Result<void> write_trace(const std::string& file,
                                       std::span<const nlohmann::ordered_json> pictures);

} // namespace moat::tools
