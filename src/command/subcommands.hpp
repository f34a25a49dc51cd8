// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The subcommands of `moat`: each adds itself to the command line and leaves its exit code.
// One .cpp file each; only main.cpp calls them.
#pragma once

namespace CLI {
class App;
} // namespace CLI

namespace moat::tools {

/// What the command ends with; a script may rely on it. help.cpp has it in words.
enum class Exit : int {
    success = 0,
    found = 1, ///< what was looked for is there: a violation, a stray access
    usage = 2,
    bound = 3, ///< could not run or print, or ended before the question was answered
};

/// `exit` must outlive the parsing of the command line.
void add_audit(CLI::App& app, Exit& exit);
void add_devices(CLI::App& app, Exit& exit);
void add_explain(CLI::App& app, Exit& exit);
void add_explore(CLI::App& app, Exit& exit);
void add_stress(CLI::App& app, Exit& exit);

} // namespace moat::tools
