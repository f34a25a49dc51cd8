// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The follower's counters in Prometheus' text format, for the textfile collector of node_exporter.
#pragma once

#include "moat/core/result.hpp"

#include "watch/follower.hpp"

#include <filesystem>
#include <string>

namespace moat::watch {

/// The metrics as text ("Exposition formats", version 0.0.4, prometheus.io).
[[nodiscard]] std::string textfile(const Follower& follower);

/// Replaces `file` by rename, so that a reader sees the old or the new text. `io` if `file` or the
/// file beside it cannot be written; `file` is unchanged then.
[[nodiscard]] Result<void> replace_file(const std::filesystem::path& file, const std::string& text);

} // namespace moat::watch
