// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Parts of an exploration: their names, and the sum of their output. `moat explore` uses both.
#pragma once

#include "command/subcommands.hpp"
#include "lab/explore/explorer.hpp"

#include <string>
#include <vector>

namespace moat::tools {

/// Parses "0/3", the first of three. Return: whether `text` is a part.
[[nodiscard]] bool parse_shard(const std::string& text, explore::Shard& shard);

/// Adds the --json output of shards; requires each part of one exploration exactly once.
[[nodiscard]] Exit merge_results(const std::vector<std::string>& files);

} // namespace moat::tools
