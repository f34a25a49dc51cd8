// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "command/terminal/help.hpp"

#include "command/subcommands.hpp"
#include "command/terminal/terminal.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <unistd.h>

namespace moat::tools {

namespace {

std::map<const CLI::App*, Page>& pages() {
    static std::map<const CLI::App*, Page> all;
    return all;
}

void add_color_option(CLI::App& command) {
    command
        .add_option_function<std::string>(
            "--color", [](const std::string& text) { choose_colour(text); },
            "colour the output; auto: on a terminal, unless NO_COLOR is set")
        ->check(CLI::IsMember({"auto", "always", "never"}))
        ->default_str("auto")
        ->trigger_on_parse();
}

/// The number of letters to add, remove, change or swap with their neighbour.
[[nodiscard]] std::size_t distance(const std::string& left, const std::string& right) {
    std::vector<std::vector<std::size_t>> least(left.size() + 1,
                                                std::vector<std::size_t>(right.size() + 1));
    for (std::size_t i = 0; i <= left.size(); ++i)
        for (std::size_t j = 0; j <= right.size(); ++j) {
            if (i == 0 || j == 0) {
                least[i][j] = i + j;
                continue;
            }
            const std::size_t change = left[i - 1] == right[j - 1] ? 0 : 1;
            least[i][j] =
                std::min({least[i - 1][j] + 1, least[i][j - 1] + 1, least[i - 1][j - 1] + change});
            if (i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1])
                least[i][j] = std::min(least[i][j], least[i - 2][j - 2] + 1);
        }
    return least[left.size()][right.size()];
}

[[nodiscard]] std::string help_footer(const CLI::App& command) {
    std::string text = command.get_footer();
    if (!text.empty())
        text += "\n\n";
    const Page& page = page_of(command);
    if (!page.examples.empty())
        text += "Examples:\n";
    for (const Example& each : page.examples)
        text += "  # " + each.what + "\n  " + each.command + "\n";
    if (!page.examples.empty())
        text += "\n";
    text += "Exit status:\n";
    for (const auto& [status, meaning] : exit_statuses())
        text += "  " + std::to_string(status) + "  " + std::string(meaning) + "\n";
    return text;
}

} // namespace

const std::vector<std::pair<int, std::string_view>>& exit_statuses() {
    static const std::vector<std::pair<int, std::string_view>> all = {
        {static_cast<int>(Exit::success), "success, nothing found"},
        {static_cast<int>(Exit::found), "found a stray access, a violation or a fault"},
        {static_cast<int>(Exit::usage),
         "invalid command line, or it names a file or device that does not exist"},
        {static_cast<int>(Exit::bound),
         "no answer: it could not run or write its output, or it reached a limit"},
    };
    return all;
}

void describe(const CLI::App& command, Page page) {
    pages()[&command] = std::move(page);
}

const Page& page_of(const CLI::App& command) {
    static const Page none;
    const auto found = pages().find(&command);
    return found == pages().end() ? none : found->second;
}

void fit_help(CLI::App& app) {
    constexpr std::size_t narrow = 72;
    constexpr std::size_t below_the_option = 8;
    if (const std::size_t columns = terminal_columns(STDOUT_FILENO);
        columns != 0 && columns < narrow)
        app.get_formatter()->column_width(below_the_option);
}

void finish_help(CLI::App& app) {
    for (CLI::App* const each : app.get_subcommands([](CLI::App*) { return true; })) {
        each->footer(help_footer(*each));
        add_color_option(*each);
        finish_help(*each);
    }
}

std::vector<const CLI::App*> shown_subcommands(const CLI::App& command) {
    return command.get_subcommands([](const CLI::App* each) { return !each->get_group().empty(); });
}

std::vector<const CLI::Option*> shown_options(const CLI::App& command) {
    return command.get_options([](const CLI::Option* each) { return !each->get_group().empty(); });
}

std::vector<std::string> values_of(const CLI::Option& option) {
    std::vector<std::string> values;
    const std::string type = option.get_type_name();
    const std::size_t open = type.find('{');
    const std::size_t close = type.find('}');
    if (open == std::string::npos || close == std::string::npos)
        return values;
    for (std::size_t at = open + 1; at < close;) {
        const std::size_t end = std::min(type.find(',', at), close);
        values.push_back(type.substr(at, end - at));
        at = end + 1;
    }
    return values;
}

std::string value_name(const CLI::Option& option) {
    const std::string type = option.get_type_name();
    return option.get_items_expected_max() == 0 ? "" : type.substr(0, type.find_first_of(":{ ["));
}

std::string suggestion(const CLI::App& app) {
    const CLI::App* command = &app;
    while (!command->get_subcommands().empty())
        command = command->get_subcommands().front();
    const std::vector<std::string> unknown = command->remaining();
    if (unknown.empty())
        return "";
    const std::string word = unknown.front().substr(0, unknown.front().find('='));
    std::string nearest;
    std::size_t least = 1 + word.size() / 3;
    const auto consider = [&](const std::string& name) {
        if (const std::size_t far = distance(word, name); far <= least && far < name.size()) {
            nearest = name;
            least = far;
        }
    };
    for (const CLI::App* each : shown_subcommands(*command))
        consider(each->get_name());
    for (const CLI::Option* each : shown_options(*command))
        for (const std::string& name : each->get_lnames())
            consider("--" + name);
    return nearest;
}

} // namespace moat::tools
