// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `--trace FILE`: the data of pictures (docs/picture.md) in the Trace Event Format, which Perfetto
// and chrome://tracing show. audit_picture and schedule_picture produce the data.
#pragma once

#include "moat/core/result.hpp"

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

namespace moat::tools {

/// The events of `pictures`, a process each, in the order of their times.
[[nodiscard]] nlohmann::ordered_json trace_events(std::span<const nlohmann::ordered_json> pictures);

/// Writes them to `file`. Errors: `io`, after which `file` may be incomplete.
[[nodiscard]] Result<void> write_trace(const std::string& file,
                                       std::span<const nlohmann::ordered_json> pictures);

} // namespace moat::tools
