// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The command's output: standard output, which may be full, closed or a narrow terminal, and
// files. main.cpp finishes the output once for every subcommand; long runs check it in between.
#pragma once

#include "subcommands.hpp"

#include <initializer_list>
#include <string>

namespace moat::tools {

/// Call it first, before opening or printing anything. From then on lines for a terminal break
/// between words.
void begin_output();

/// Whether all writes to standard output succeeded so far. A long run ends if not.
[[nodiscard]] bool output_works();

/// Flushes all output. Call it last. Return: `exit`; or `bound`, after a line on standard
/// error, if a write to standard output failed.
[[nodiscard]] Exit finish_output(Exit exit);

/// Whether all `files` can be written, without changing them; skips empty names. `who` begins
/// the line on standard error about the first one that cannot.
[[nodiscard]] bool are_writable(const char* who, std::initializer_list<std::string> files);

} // namespace moat::tools
