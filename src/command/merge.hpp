// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Parts of an exploration: their names, and the sum of what they printed. `moat explore` uses both.
#pragma once

#include "lab/explore/explorer.hpp"
#include "subcommands.hpp"

#include <string>
#include <vector>

namespace moat::tools {

/// "0/3": the first of three. Return: whether `text` is one.
[[nodiscard]] bool parse_shard(const std::string& text, explore::Shard& shard);

/// Adds up what shards printed with --json; all parts of one exploration must be there, once.
[[nodiscard]] Exit merge_results(const std::vector<std::string>& files);

} // namespace moat::tools
