// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Parts of a text: numbers, sizes, and what precedes a mark. For options and the kernel's files.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace moat {

/// All of `text` as a number; nothing if it is none or does not fit.
template <class Number = std::uint64_t>
[[nodiscard]] std::optional<Number> number_in(std::string_view text, int base = 10) {
    Number value{};
    const char* const start = text.data();
    const char* const end = start + text.size();
    const auto [stopped, error] = std::from_chars(start, end, value, base);
    return error == std::errc() && stopped == end ? std::optional(value) : std::nullopt;
}

/// The same, perhaps with a unit of 1024: "64k", "128G", "4096b", "1MiB".
[[nodiscard]] inline std::optional<std::uint64_t> bytes_in(std::string_view text) {
    const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    const auto number = number_in(text.substr(0, digits));
    std::string unit;
    for (const char each : text.substr(digits))
        unit += each >= 'A' && each <= 'Z' ? static_cast<char>(each - 'A' + 'a') : each;
    if (!number || unit.empty() || unit == "b")
        return number;
    const std::size_t power = std::string_view("kmgtpe").find(unit.front());
    const std::string_view rest = std::string_view(unit).substr(1);
    if (power == std::string_view::npos ||
        !(rest.empty() || rest == "b" || rest == "ib" || rest == "i"))
        return std::nullopt;
    const unsigned shift = 10 * (static_cast<unsigned>(power) + 1);
    if (*number > std::numeric_limits<std::uint64_t>::max() >> shift)
        return std::nullopt;
    return *number << shift;
}

/// Removes and returns what precedes `mark`, or all; removes the mark as well.
inline std::string_view take_until(std::string_view& text, char mark) {
    const std::size_t at = std::min(text.find(mark), text.size());
    const std::string_view part = text.substr(0, at);
    text.remove_prefix(std::min(at + 1, text.size()));
    return part;
}

} // namespace moat
