// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Lines of tracefs. decode.cpp, the only caller, reads all other dialects from tables.
#pragma once

#include "moat/fault/decode.hpp"

#include <optional>
#include <string_view>

namespace moat::fault {

/// Return: nothing for lines of others.
[[nodiscard]] std::optional<LogEvent> decode_tracepoint(std::string_view line);

} // namespace moat::fault
