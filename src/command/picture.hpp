// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `--html FILE`: data as one page that a browser shows without a network. docs/picture.md has the
// format of the data. Subcommands call it; absent if moat was built without npm.
#pragma once

#include "moat/core/result.hpp"

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace moat::tools {

/// Writes the page that shows `data`. Errors: `io`, after which `file` may be incomplete.
[[nodiscard]] Result<void> write_picture(const std::string& file,
                                         const nlohmann::ordered_json& data);

} // namespace moat::tools
