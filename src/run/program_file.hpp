// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a program's file says of how it makes system calls.
#pragma once

#include <string>
#include <string_view>

namespace moat::run {

/// "static" or "Go" if a preloaded library has no effect on `program`, a path or a name in PATH;
/// empty if it has one, or if the file cannot be read.
[[nodiscard]] std::string_view why_not_preloaded(const std::string& program);

} // namespace moat::run
