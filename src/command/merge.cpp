// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "command/merge.hpp"

#include "command/terminal/numbers.hpp"
#include "command/terminal/output.hpp"
#include "core/parse.hpp"

#include <algorithm>
#include <array>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

namespace moat::tools {

namespace {

using nlohmann::ordered_json;

constexpr std::uint64_t most_shards = 1'000'000;

/// Whether a line has the fields that `to_json` writes.
[[nodiscard]] bool is_result(const ordered_json& line) {
    const auto has = [&](const char* field, auto is_right) {
        return line.contains(field) && (line[field].*is_right)();
    };
    if (!line.is_object() || !has("exhausted", &ordered_json::is_boolean) ||
        !has("symmetry", &ordered_json::is_boolean) || !has("seconds", &ordered_json::is_number) ||
        !line.contains("violation"))
        return false;
    for (const char* text : {"shard", "scenario", "configuration", "strategy", "memory_model"})
        if (!has(text, &ordered_json::is_string))
            return false;
    return std::ranges::all_of(
        std::array{"executions", "blocked", "cut", "steps"},
        [&](const char* number) { return has(number, &ordered_json::is_number_unsigned); });
}

} // namespace

bool parse_shard(const std::string& text, explore::Shard& shard) {
    const auto [part, of] = split(text, '/');
    const auto index = number_in(part);
    const auto count = number_in(of.value_or(""));
    if (!index || !count || *index >= *count || *count > most_shards)
        return false;
    shard = {static_cast<unsigned>(*index), static_cast<unsigned>(*count)};
    return true;
}

Exit merge_results(const std::vector<std::string>& files) {
    std::map<unsigned, ordered_json> parts;
    unsigned count = 0;
    for (const std::string& path : files) {
        std::ifstream file(path);
        for (std::string line; std::getline(file, line);) {
            const ordered_json part = ordered_json::parse(line, nullptr, false);
            explore::Shard shard;
            if (!is_result(part) || !parse_shard(part["shard"].get<std::string>(), shard))
                throw Stop{Exit::usage, path + ": a line is not a shard's JSON result"};
            count = shard.count;
            if (!parts.emplace(shard.index, part).second)
                throw Stop{Exit::usage,
                           path + ": shard " + std::to_string(shard.index) + " occurs twice"};
        }
    }
    if (parts.empty() || parts.size() != count)
        throw Stop{Exit::usage, "moat explore --merge: the files hold " +
                                    std::to_string(parts.size()) + " of " + std::to_string(count) +
                                    " shards; give all of them"};
    ordered_json sum = parts.begin()->second;
    for (const auto& [index, part] : parts) {
        for (const char* same :
             {"scenario", "configuration", "strategy", "memory_model", "symmetry"})
            if (part[same] != sum[same] || part["shard"].get<std::string>() !=
                                               std::to_string(index) + "/" + std::to_string(count))
                throw Stop{Exit::usage,
                           "moat explore --merge: the shards are of different explorations"};
        if (index == parts.begin()->first)
            continue;
        for (const char* number : {"executions", "blocked", "cut", "steps"})
            sum[number] = sum[number].get<std::uint64_t>() + part[number].get<std::uint64_t>();
        sum["seconds"] = sum["seconds"].get<double>() + part["seconds"].get<double>();
        sum["exhausted"] = sum["exhausted"].get<bool>() && part["exhausted"].get<bool>();
        if (sum["violation"].is_null())
            sum["violation"] = part["violation"];
    }
    sum["shard"] = "0/1";
    const bool proved = sum["violation"].is_null() && sum["exhausted"].get<bool>();
    sum["claim"] = std::string(proved                       ? "proved"
                               : sum["violation"].is_null() ? "not proved"
                                                            : "refuted") +
                   " by " + std::to_string(count) +
                   " shards: " + sum["configuration"].get<std::string>();
    std::cout << sum << '\n';
    return !sum["violation"].is_null() ? Exit::found : proved ? Exit::success : Exit::bound;
}

} // namespace moat::tools
