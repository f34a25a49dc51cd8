// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Runs a program under the supervisor: `moat run --supervise`.
#pragma once

#include "run/program.hpp"

#include <expected>
#include <string>
#include <vector>

namespace moat::run {

/// Runs `program` with the soft devices of `options`, which a Launch prepared, and waits for its
/// end. Processes that it leaves are ended. Error: why it did not start.
[[nodiscard]] std::expected<ProgramEnd, std::string>
supervise(const Options& options, const std::vector<std::string>& program);

} // namespace moat::run
