// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The command's output: standard output, which may be full, closed or a narrow terminal, and
// files. main.cpp finishes the output once for every subcommand; long runs check it in between.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/text.hpp"

#include "command/subcommands.hpp"

#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <type_traits>
#include <utility>

namespace moat::tools {

/// Ends the command: main.cpp prints `text` to standard error, as a line, and exits.
struct Stop {
    Exit exit;
    std::string text;
};

/// Return: the value of `result`. Stops with `exit`, and `about` before the error's text.
template <class T, class E>
T or_stop(std::expected<T, E> result, Exit exit, const std::string& about) {
    if constexpr (std::is_same_v<E, Error>) {
        if (!result)
            throw Stop{exit, about + ": " + to_string(result.error())};
    } else if (!result) {
        throw Stop{exit, about + ": " + result.error()};
    }
    if constexpr (!std::is_void_v<T>)
        return *std::move(result);
}

/// Call it first, before opening or printing anything. From then on lines for a terminal break
/// between words.
void begin_output();

/// Whether all writes to standard output succeeded so far. A long run ends if not.
[[nodiscard]] bool output_works();

/// Flushes all output. Call it last. Return: `exit`; or `bound`, after a line on standard
/// error, if a write to standard output failed.
[[nodiscard]] Exit finish_output(Exit exit);

/// Stops before a long run, as `who`, if standard output has failed, or if one of `files` cannot be
/// written; it does not change them, and skips empty names.
void require_output(const char* who, std::initializer_list<std::string> files = {});

/// Return: false after reporting, as `who`, that `file` cannot be written completely.
[[nodiscard]] bool write_file(const char* who, const std::string& file, const std::string& text);

/// In one line, with a replacement for what is not UTF-8.
[[nodiscard]] std::string text_of(const nlohmann::ordered_json& data);

} // namespace moat::tools
