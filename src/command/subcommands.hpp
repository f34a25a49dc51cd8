// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The subcommands of `moat`: each adds itself to the command line and sets its exit code.
// One .cpp file each; only main.cpp calls them.
#pragma once

namespace CLI {
class App;
} // namespace CLI

namespace moat::tools {

/// Exit statuses, stable for scripts. help.cpp describes them.
enum class Exit : int {
    success = 0,
    found = 1, ///< it found a violation or a stray access
    usage = 2,
    bound = 3, ///< could not run or print, or ended without an answer
};

/// `exit` must outlive the parsing of the command line.
void add_audit(CLI::App& app, Exit& exit);
void add_devices(CLI::App& app, Exit& exit);
void add_explain(CLI::App& app, Exit& exit);
void add_explore(CLI::App& app, Exit& exit);
void add_guard(CLI::App& app, Exit& exit);
void add_replay(CLI::App& app, Exit& exit);
void add_run(CLI::App& app, Exit& exit);
void add_serve(CLI::App& app, Exit& exit);
void add_stress(CLI::App& app, Exit& exit);
void add_watch(CLI::App& app, Exit& exit);

} // namespace moat::tools
