// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The common base of --help, the manual pages and the completion: texts that CLI11 has no
// place for, and the tree of subcommands. Each subcommand describes itself; main.cpp completes
// all of them.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace CLI {
class App;
class Option;
} // namespace CLI

namespace moat::tools {

struct Example {
    std::string command; ///< a test runs it as it stands
    std::string what;
};

/// A subcommand's own texts.
struct Page {
    std::vector<std::string> paragraphs; ///< of the manual; the first also of --help
    std::vector<Example> examples;
};

/// The exit statuses of `moat`, the same for every subcommand.
[[nodiscard]] const std::vector<std::pair<int, std::string_view>>& exit_statuses();

/// Call it once for each subcommand that has a manual page.
void describe(const CLI::App& command, Page page);

/// Empty without a description.
[[nodiscard]] const Page& page_of(const CLI::App& command);

/// Prints texts below the options on a narrow terminal. Call it before adding subcommands, which
/// inherit it.
void fit_help(CLI::App& app);

/// Adds the parts of every subcommand: --color, the examples, the exit status.
void finish_help(CLI::App& app);

/// The visible subcommands, in the order of their addition.
[[nodiscard]] std::vector<const CLI::App*> shown_subcommands(const CLI::App& command);

/// The visible options. Positional ones have no name that begins with "-".
[[nodiscard]] std::vector<const CLI::Option*> shown_options(const CLI::App& command);

/// The values of an option, if they are few: {"soft", "qemu", "vfio"}.
[[nodiscard]] std::vector<std::string> values_of(const CLI::Option& option);

/// The placeholder of an option's value: "TEXT"; empty for a flag.
[[nodiscard]] std::string value_name(const CLI::Option& option);

/// The closest known word to an unknown one: "audit", or nothing.
[[nodiscard]] std::string suggestion(const CLI::App& app);

} // namespace moat::tools
