// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Each validator rewrites a valid text in a form that CLI11 reads without loss: CLI11
// itself reads "010" as 8 and "-1" as 2^64 - 1.
#include "command/terminal/numbers.hpp"

#include "core/parse.hpp"
#include "fault/answer.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>

namespace moat::tools {

namespace {

[[nodiscard]] std::string in_quotes(const std::string& text) {
    return '"' + text + '"';
}

[[nodiscard]] std::string range_text(NumberRange range) {
    return std::to_string(range.least) + " to " + std::to_string(range.most);
}

/// Replaces the text by the number that `parse` finds in it. `what` names the expected value.
template <class Parse>
[[nodiscard]] CLI::Validator number_validator(NumberRange range, const char* what, Parse parse) {
    const std::string shown = range.most != NumberRange{}.most ? range_text(range)
                              : range.least != 0 ? "from " + std::to_string(range.least)
                                                 : "";
    return CLI::Validator(
        [range, what, parse](std::string& text) {
            const std::optional<std::uint64_t> number = parse(text);
            if (!number || *number < range.least || *number > range.most)
                return in_quotes(text) + " is not " + what + " from " + range_text(range);
            text = std::to_string(*number);
            return std::string();
        },
        shown);
}

} // namespace

std::string counted(std::uint64_t number, std::string_view what) {
    return fault::with_commas(number) + ' ' + std::string(what) + (number == 1 ? "" : "s");
}

std::pair<std::string_view, std::optional<std::string_view>> split(std::string_view text,
                                                                   char separator) {
    const std::size_t at = text.find(separator);
    if (at == text.npos)
        return {text, std::nullopt};
    return {text.substr(0, at), text.substr(at + 1)};
}

std::optional<double> seconds_of_time(std::string_view text) {
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(number) ||
        number <= 0 || number > static_cast<double>(most_seconds))
        return std::nullopt;
    return number;
}

void accept_numbers(CLI::Option& option, NumberRange range) {
    option.type_name("UINT")->transform(number_validator(
        range, "a whole number", [](std::string_view text) { return number_in(text); }));
}

template <std::unsigned_integral T>
CLI::Option* add_number(CLI::App& command, const std::string& name, T& value,
                        const std::string& description, NumberRange range) {
    range.most = std::min<std::uint64_t>(range.most, std::numeric_limits<T>::max());
    CLI::Option* const option = command.add_option(name, value, description);
    accept_numbers(*option, range);
    return option;
}

template CLI::Option* add_number(CLI::App&, const std::string&, unsigned&, const std::string&,
                                 NumberRange);
template CLI::Option* add_number(CLI::App&, const std::string&, std::uint64_t&, const std::string&,
                                 NumberRange);

CLI::Option* add_bytes(CLI::App& command, const std::string& name,
                       std::optional<std::uint64_t>& value, const std::string& description,
                       NumberRange range) {
    return command.add_option(name, value, description)
        ->type_name("SIZE")
        ->transform(number_validator(range, "a size in bytes, as 64k,", bytes_in));
}

CLI::Option* add_seconds(CLI::App& command, const std::string& name, double& value,
                         const std::string& description) {
    return command.add_option(name, value, description)
        ->type_name("SECONDS")
        ->check(CLI::Validator(
            [](std::string& text) {
                return seconds_of_time(text)
                           ? std::string()
                           : in_quotes(text) + " is not a number of seconds above 0 and up to " +
                                 std::to_string(most_seconds);
            },
            ""));
}

} // namespace moat::tools
