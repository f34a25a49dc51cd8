// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Numbers on the command line: one parser for all options, so that none accepts "nan", "-1", "0x10"
// or a number that overflows. Add options that take a number by the functions here.
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace CLI {
class App;
class Option;
} // namespace CLI

namespace moat::tools {

/// "1 map", "2,000 maps".
[[nodiscard]] std::string counted(std::uint64_t number, std::string_view what);

/// The parts of `text` before and after the first `separator`; the second is nothing without one.
[[nodiscard]] std::pair<std::string_view, std::optional<std::string_view>>
split(std::string_view text, char separator);

/// A time above 0 and at most `most_seconds`, as "0.5".
[[nodiscard]] std::optional<double> seconds_of_time(std::string_view text);

inline constexpr std::uint64_t most_seconds = 1'000'000'000; ///< 31 years

struct NumberRange {
    std::uint64_t least = 0;
    std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
};

/// Makes `option`, whose value is text, accept only whole numbers of `range`.
void accept_numbers(CLI::Option& option, NumberRange range);

/// Clamps a range's end to the largest `T`.
template <std::unsigned_integral T>
CLI::Option* add_number(CLI::App& command, const std::string& name, T& value,
                        const std::string& description, NumberRange range = {});

/// Leaves `value` unchanged without the option.
CLI::Option* add_bytes(CLI::App& command, const std::string& name,
                       std::optional<std::uint64_t>& value, const std::string& description,
                       NumberRange range);

CLI::Option* add_seconds(CLI::App& command, const std::string& name, double& value,
                         const std::string& description);

} // namespace moat::tools
