// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What --help, the manual pages and the completion have in common: the texts that CLI11 has no
// place for, and the tree of subcommands. Each subcommand describes itself; main.cpp finishes them
// all.
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
    std::string command; ///< runs as it stands, and a test does that
    std::string what;
};

/// A subcommand's own texts.
struct Page {
    std::vector<std::string> paragraphs; ///< of the manual; the first also of --help
    std::vector<Example> examples;
};

/// The meanings of what `moat` ends with, the same for every subcommand.
[[nodiscard]] const std::vector<std::pair<int, std::string_view>>& exit_statuses();

/// Once for each subcommand that has a manual page.
void describe(const CLI::App& command, Page page);

/// Empty where nothing was described.
[[nodiscard]] const Page& page_of(const CLI::App& command);

/// Before subcommands are added, which inherit it: on a narrow terminal, texts go below the
/// options.
void fit_help(CLI::App& app);

/// Adds what every subcommand has: --color, the examples, the exit status.
void finish_help(CLI::App& app);

/// Those that are shown, in the order in which they were added.
[[nodiscard]] std::vector<const CLI::App*> shown_subcommands(const CLI::App& command);

/// Those that are shown. Positional ones have no name that begins with "-".
[[nodiscard]] std::vector<const CLI::Option*> shown_options(const CLI::App& command);

/// The values that an option takes, where they are few: {"soft", "qemu", "vfio"}.
[[nodiscard]] std::vector<std::string> values_of(const CLI::Option& option);

/// What stands for an option's value: "TEXT"; empty for a flag.
[[nodiscard]] std::string value_name(const CLI::Option& option);

/// What the user may have meant by a word that was not understood: "audit", or nothing.
[[nodiscard]] std::string suggestion(const CLI::App& app);

} // namespace moat::tools
