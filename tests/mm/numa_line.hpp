// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A strict parser of numa_maps' lines, both moat's and the kernel's.
#pragma once

#include <cctype>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace moat::mm::tests {

struct NumaLine {
    std::uint64_t start = 0;
    std::string policy;
    std::string name; ///< heap, stack, file=...
    bool huge = false;
    std::map<std::string, std::uint64_t> fields; ///< anon, dirty, mapped, N0, ...
};

/// Nothing if the line has another format.
[[nodiscard]] inline std::optional<NumaLine> parse_numa_line(std::string_view text) {
    NumaLine line;
    unsigned position = 0;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(' '), text.size());
        const std::string word(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
        if (word.empty())
            return std::nullopt;
        const std::size_t equals = word.find('=');
        if (position == 0) {
            if (word.size() < 8 || word.find_first_not_of("0123456789abcdef") != std::string::npos)
                return std::nullopt;
            line.start = std::stoull(word, nullptr, 16);
        } else if (position == 1) {
            if (!word.starts_with("default") && !word.starts_with("prefer") &&
                !word.starts_with("bind") && !word.starts_with("interleave"))
                return std::nullopt;
            line.policy = word;
        } else if (word == "heap" || word == "stack" || word.starts_with("file=")) {
            line.name = word;
        } else if (word == "huge") {
            line.huge = true;
        } else if (equals == std::string::npos || equals + 1 == word.size() ||
                   word.find_first_not_of("0123456789", equals + 1) != std::string::npos) {
            return std::nullopt;
        } else {
            line.fields[word.substr(0, equals)] = std::stoull(word.substr(equals + 1));
        }
        ++position;
    }
    return position >= 2 ? std::optional(line) : std::nullopt;
}

/// Fields that a line may have; any other is not of the kernel's format.
[[nodiscard]] inline bool is_known_field(const std::string& name) {
    static const std::map<std::string, int> known = {
        {"anon", 0},      {"dirty", 0},  {"mapped", 0},    {"mapmax", 0},
        {"swapcache", 0}, {"active", 0}, {"writeback", 0}, {"kernelpagesize_kB", 0}};
    return known.contains(name) || (name.size() > 1 && name[0] == 'N' &&
                                    name.find_first_not_of("0123456789", 1) == std::string::npos);
}

} // namespace moat::mm::tests
