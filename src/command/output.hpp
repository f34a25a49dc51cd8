// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Where the command writes: standard output, which may be full, closed or a narrow terminal, and
// files. main.cpp finishes the output once for every subcommand; long runs ask in between.
#pragma once

#include "subcommands.hpp"

#include <initializer_list>
#include <string>

namespace moat::tools {

/// To be called first, before anything is opened or printed. From then on a terminal gets lines
/// that are broken between words.
void begin_output();

/// Whether standard output took all that was printed so far. A long run ends where it did not.
[[nodiscard]] bool output_works();

/// Writes what is buffered. To be called last. Return: `exit`; or `bound`, after a line on standard
/// error, where standard output did not take everything.
[[nodiscard]] Exit finish_output(Exit exit);

/// Whether all `files` can be written; empty names are skipped. Changes none of them. `who` begins
/// the line on standard error that names the first one that cannot.
[[nodiscard]] bool are_writable(const char* who, std::initializer_list<std::string> files);

} // namespace moat::tools
