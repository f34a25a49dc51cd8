// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `--trace FILE`: the data of pictures (docs/picture.md) in the Trace Event Format, which Perfetto
// and chrome://tracing show. audit_picture and schedule_picture produce the data.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>

namespace moat::tools {

/// The events of `pictures`, a process each, in the order of their times.
[[nodiscard]] nlohmann::ordered_json trace_events(std::span<const nlohmann::ordered_json> pictures);

} // namespace moat::tools
