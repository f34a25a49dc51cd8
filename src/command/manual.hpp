// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The manual pages and the shell's completion, generated from the command line itself, so that they
// stay current. The build runs `moat manual FOLDER` and installs its output.
#pragma once

#include <string>

namespace CLI {
class App;
} // namespace CLI

namespace moat::tools {

/// The page of `command` in mdoc; of `moat` itself if `command` is `app`.
[[nodiscard]] std::string manual_page(const CLI::App& app, const CLI::App& command);

/// A script for bash that completes commands, options and the values of options.
[[nodiscard]] std::string bash_completion(const CLI::App& app);

/// The subcommands `manual` and `completion`, which --help does not list.
void add_manual(CLI::App& app);

} // namespace moat::tools
