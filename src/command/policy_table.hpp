// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What `moat replay` prints of a policy: a table beside the recording and policy 0, and JSON.
#pragma once

#include "watch/replay.hpp"

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace moat::tools {

/// "guard 4K, quarantine 64M, right"; "guard 0" without anything.
[[nodiscard]] std::string to_text(const watch::Policy& policy);

/// A column of the table.
struct PolicyColumn {
    std::string heading;
    watch::Exposure exposure;
    const watch::Cost* cost = nullptr; ///< nullptr: unknown
};

/// Lines with line ends, costs first.
[[nodiscard]] std::string policy_table(const std::vector<PolicyColumn>& columns);

[[nodiscard]] nlohmann::ordered_json json_of(const watch::Policy& policy);
[[nodiscard]] nlohmann::ordered_json json_of(const watch::Exposure& exposure);
[[nodiscard]] nlohmann::ordered_json json_of(const watch::Cost& cost);

/// "1.2 us", of nanoseconds.
[[nodiscard]] std::string time_text(double nanoseconds);

} // namespace moat::tools
