// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The script determines the command from the words before the cursor, and has a table of the words
// that may follow each command and each option.
#include "command/manual.hpp"
#include "command/terminal/help.hpp"

#include <CLI/CLI.hpp>

namespace moat::tools {

namespace {

constexpr const char* head = R"sh(# bash completion for moat; made by `moat completion bash`.
_moat() {
    local word command='' words='' current=${COMP_WORDS[COMP_CWORD]} at
    local previous=${COMP_WORDS[COMP_CWORD - 1]}
    for ((at = 1; at < COMP_CWORD; ++at)); do
        word=${COMP_WORDS[at]}
        case " $(_moat_commands "$command") " in
        *" $word "*) command+=${command:+ }$word ;;
        esac
    done
    COMPREPLY=()
    case "$command $previous" in
)sh";

constexpr const char* middle = R"sh(    esac
    if [[ $words == FILE ]]; then
        compopt -o default 2>/dev/null
        return
    elif [[ -n $words ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
        return
    fi
    case "$command" in
)sh";

constexpr const char* tail = R"sh(    esac
    [[ $current == -* ]] || words=$(_moat_commands "$command")
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    [[ ${#COMPREPLY[@]} != 0 || $current == -* ]] || compopt -o default 2>/dev/null
}
complete -F _moat moat
)sh";

void each_command(const CLI::App& command, const std::string& path, const auto& use) {
    use(path, command);
    for (const CLI::App* below : shown_subcommands(command))
        each_command(*below, path + (path.empty() ? "" : " ") + below->get_name(), use);
}

[[nodiscard]] std::string joined(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& each : words)
        text += (text.empty() ? "" : " ") + each;
    return text;
}

} // namespace

std::string bash_completion(const CLI::App& app) {
    std::string commands = "_moat_commands() {\n    case $1 in\n";
    std::string values;
    std::string options;
    each_command(app, "", [&](const std::string& path, const CLI::App& command) {
        std::vector<std::string> below;
        for (const CLI::App* each : shown_subcommands(command))
            below.push_back(each->get_name());
        if (!below.empty())
            commands += "    '" + path + "') echo '" + joined(below) + "' ;;\n";
        std::vector<std::string> names;
        for (const CLI::Option* each : shown_options(command)) {
            for (const std::string& name : each->get_lnames()) {
                names.push_back("--" + name);
                const std::string follows =
                    value_name(*each) == "FILE" ? "FILE" : joined(values_of(*each));
                if (!follows.empty())
                    values.append("    '").append(path).append(" --").append(name).append(
                        "') words='" + follows + "' ;;\n");
            }
        }
        options += "    '" + path + "') words='" + joined(names) + "' ;;\n";
    });
    commands += "    esac\n}\n";
    return commands + head + values + middle + options + tail;
}

} // namespace moat::tools
