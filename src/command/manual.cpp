// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The language is mdoc(7).
#include "command/manual.hpp"

#include "command/terminal/help.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>

namespace moat::tools {

namespace {

constexpr const char* revised = "November 21, 2026";

[[nodiscard]] std::string escaped(const std::string& word) {
    if (word == "--")
        return "\\-\\-"; // mandoc takes two hyphens for a dash
    std::string out;
    for (const char c : word)
        out += c == '\\' ? std::string("\\e") : std::string(1, c);
    return out;
}

/// Text lines without requests: one for each sentence, wrapped to a terminal's width.
[[nodiscard]] std::string plain(const std::string& text) {
    constexpr std::size_t most_columns = 78;
    std::istringstream words(text);
    std::string out;
    std::string line;
    for (std::string word; words >> word;) {
        const bool ends_sentence = line.ends_with('.');
        if (!line.empty() && (ends_sentence || line.size() + 1 + word.size() > most_columns)) {
            out += line + '\n';
            line.clear();
        }
        if (line.empty() && (word.front() == '.' || word.front() == '\''))
            line = "\\&";
        else if (!line.empty())
            line += ' ';
        line += escaped(word);
    }
    return out + line;
}

[[nodiscard]] std::string upper(std::string text) {
    std::ranges::transform(text, text.begin(), [](char c) {
        return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    });
    return text;
}

/// "-h, --help", "--device TEXT ...", or the name of a positional argument.
[[nodiscard]] std::string head_of(const CLI::Option& option) {
    std::string line;
    for (const std::string& name : option.get_snames())
        line += std::string(line.empty() ? "" : " , ") + "Fl " + name;
    for (const std::string& name : option.get_lnames())
        line += std::string(line.empty() ? "" : " , ") + "Fl -" + name;
    if (line.empty())
        line = "Ar " + option.get_name();
    else if (const std::string value = value_name(option); !value.empty())
        line += " Ar " + value;
    return line;
}

[[nodiscard]] std::string body_of(const CLI::Option& option) {
    std::string text = option.get_description();
    std::string values;
    for (const std::string& each : values_of(option))
        values += (values.empty() ? "" : ", ") + each;
    if (!values.empty())
        text += ": " + values;
    if (!option.get_default_str().empty())
        text += " (default " + option.get_default_str() + ")";
    return text + ".";
}

/// A list of what item(each) returns: a head and a body.
[[nodiscard]] std::string list_of(const auto& all, const auto& item) {
    std::string text = ".Bl -tag -width Ds\n";
    for (const auto& each : all) {
        const std::pair<std::string, std::string> made = item(each);
        text += ".It " + made.first + "\n" + plain(made.second) + "\n";
    }
    return text + ".El\n";
}

[[nodiscard]] std::string list_of(const std::vector<const CLI::Option*>& options) {
    return list_of(
        options, [](const CLI::Option* each) { return std::pair(head_of(*each), body_of(*each)); });
}

/// The options that several commands share.
[[nodiscard]] std::vector<const CLI::Option*>
common_options(const std::vector<const CLI::App*>& commands) {
    std::vector<const CLI::Option*> common;
    for (const CLI::Option* each : shown_options(*commands.front()))
        if (std::ranges::all_of(commands, [&](const CLI::App* command) {
                const CLI::Option* const same = command->get_option_no_throw(each->get_name());
                return same != nullptr && same->get_description() == each->get_description();
            }))
            common.push_back(each);
    return common;
}

/// The shared options of a command's subcommands, then each subcommand with its own.
[[nodiscard]] std::string subcommand_sections(const CLI::App& command) {
    const std::vector<const CLI::App*> all = shown_subcommands(command);
    if (all.empty())
        return "";
    const std::vector<const CLI::Option*> common = common_options(all);
    std::string text = ".Ss Options of each\n" + list_of(common);
    for (const CLI::App* each : all) {
        text += ".Ss " + each->get_name() + "\n" + plain(each->get_description()) + ".\n";
        std::vector<const CLI::Option*> own;
        for (const CLI::Option* option : shown_options(*each))
            if (std::ranges::none_of(common, [&](const CLI::Option* other) {
                    return other->get_name() == option->get_name();
                }))
                own.push_back(option);
        if (!own.empty())
            text += list_of(own);
    }
    return text;
}

[[nodiscard]] std::string see_also(const CLI::App& app, const CLI::App& command) {
    std::set<std::string> others = {"moat"};
    for (const CLI::App* each : shown_subcommands(app))
        others.insert("moat-" + each->get_name());
    others.erase(&command == &app ? "moat" : "moat-" + command.get_name());
    std::string text = ".Sh SEE ALSO\n";
    for (const std::string& each : others)
        text += ".Xr " + each + (each == *others.rbegin() ? " 1\n" : " 1 ,\n");
    return text;
}

} // namespace

std::string manual_page(const CLI::App& app, const CLI::App& command) {
    const bool is_app = &command == &app;
    const std::string name = is_app ? "moat" : "moat-" + command.get_name();
    std::string text = std::string(".Dd ") + revised + "\n.Dt " + upper(name) + " 1\n.Os\n";
    text += ".Sh NAME\n.Nm " + name + "\n.Nd " +
            (is_app ? "catch devices that DMA outside their buffers" : command.get_description()) +
            "\n.Sh SYNOPSIS\n.Nm moat\n";
    text += is_app ? ".Ar command\n" : ".Cm " + command.get_name() + "\n";
    const std::vector<const CLI::App*> below = shown_subcommands(command);
    if (!is_app && !below.empty())
        text += ".Op Ar what\n";
    text += ".Op Ar option ...\n";
    for (const CLI::Option* each : shown_options(command))
        if (each->get_positional())
            text += (each->get_required() ? ".Ar " : ".Op Ar ") + each->get_name() + "\n";
    text += ".Sh DESCRIPTION\n";
    for (std::size_t at = 0; at != page_of(command).paragraphs.size(); ++at)
        text += (at == 0 ? "" : ".Pp\n") + plain(page_of(command).paragraphs[at]) + "\n";
    if (is_app)
        text += "The commands are:\n" + list_of(shown_subcommands(app), [](const CLI::App* each) {
                    return std::pair("Xr moat-" + each->get_name() + " 1",
                                     each->get_description() + ".");
                });
    text += ".Sh OPTIONS\n" + list_of(shown_options(command));
    if (!is_app)
        text += subcommand_sections(command);
    text += ".Sh ENVIRONMENT\n.Bl -tag -width Ds\n.It Ev NO_COLOR\n"
            "If set and not empty, output has no colours unless\n.Fl -color\nasks for them.\n.El\n";
    text += ".Sh EXIT STATUS\n" + list_of(exit_statuses(), [](const auto& each) {
                return std::pair(std::to_string(each.first), std::string(each.second) + ".");
            });
    if (!page_of(command).examples.empty())
        text += ".Sh EXAMPLES\n";
    for (const Example& each : page_of(command).examples)
        text += plain(upper(each.what.substr(0, 1)) + each.what.substr(1)) + ":\n.Pp\n.Dl " +
                plain(each.command) + "\n.Pp\n";
    if (text.ends_with(".Pp\n"))
        text.resize(text.size() - 4);
    return text + see_also(app, command);
}

namespace {

void write_all(const CLI::App& app, const std::string& folder) {
    const auto write = [&](const std::string& name, const std::string& text) {
        std::ofstream out(folder + "/" + name);
        out << text;
        out.close();
        if (!out)
            throw CLI::ValidationError("cannot write " + folder + "/" + name);
    };
    write("moat.1", manual_page(app, app));
    for (const CLI::App* each : shown_subcommands(app))
        write("moat-" + each->get_name() + ".1", manual_page(app, *each));
}

} // namespace

void add_manual(CLI::App& app) {
    static std::string folder;
    CLI::App* const manual = app.add_subcommand("manual", "write the manual pages");
    manual->group("");
    manual->add_option("folder", folder, "an existing folder")
        ->required()
        ->check(CLI::ExistingDirectory);
    manual->callback([&app] { write_all(app, folder); });
    CLI::App* const completion = app.add_subcommand("completion", "print a shell's completion");
    completion->group("");
    static std::string shell;
    completion->add_option("shell", shell, "which")->required()->check(CLI::IsMember({"bash"}));
    completion->callback([&app] { std::cout << bash_completion(app); });
}

} // namespace moat::tools
