// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Parts of an option's text: numbers, sizes, and what precedes a mark.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace moat::run {

template <class Number>
[[nodiscard]] std::optional<Number> number_in(std::string_view text, int base = 10) {
    Number value{};
    const char* const start = text.data();
    const char* const end = start + text.size();
    const auto [stopped, error] = std::from_chars(start, end, value, base);
    return error == std::errc() && stopped == end ? std::optional(value) : std::nullopt;
}

/// "4096", "64K", "1G".
[[nodiscard]] inline std::optional<std::uint64_t> bytes_in(std::string_view text) {
    constexpr std::string_view units = "KMGT";
    unsigned shift = 0;
    if (!text.empty())
        if (const auto unit = units.find(text.back()); unit != std::string_view::npos) {
            shift = 10 * (static_cast<unsigned>(unit) + 1);
            text.remove_suffix(1);
        }
    const auto value = number_in<std::uint64_t>(text);
    if (!value || *value << shift >> shift != *value)
        return std::nullopt;
    return *value << shift;
}

/// Removes and returns what precedes `mark`, or all.
inline std::string_view take_until(std::string_view& text, char mark) {
    const std::size_t at = text.find(mark);
    const std::string_view part = text.substr(0, at);
    text = at == std::string_view::npos ? std::string_view() : text.substr(at + 1);
    return part;
}

} // namespace moat::run
