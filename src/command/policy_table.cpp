// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "command/policy_table.hpp"

#include "moat/core/text.hpp"

#include "fault/answer.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>

namespace moat::tools {

namespace {

using fault::with_commas;
using nlohmann::ordered_json;
using watch::Cost;
using watch::Exposure;
using watch::Spread;

constexpr std::size_t label_width = 40;
constexpr std::size_t column_width = 13;

[[nodiscard]] std::string one_decimal(double value) {
    std::array<char, 64> text{};
    const int size = std::snprintf(text.data(), text.size(), "%.1f", value);
    return {text.data(), static_cast<std::size_t>(size)};
}

[[nodiscard]] std::string percent(std::uint64_t part, std::uint64_t whole) {
    return whole == 0
               ? "-"
               : one_decimal(100.0 * static_cast<double>(part) / static_cast<double>(whole)) + " %";
}

[[nodiscard]] std::string median(const Spread& spread) {
    return spread.count == 0 ? "-" : with_commas(spread.median);
}

[[nodiscard]] std::string median_time(const Spread& spread) {
    return spread.count == 0 ? "never" : time_text(static_cast<double>(spread.median));
}

struct CostRow {
    const char* label;
    std::string (*value)(const Cost& cost);
};

struct ExposureRow {
    const char* label;
    std::string (*value)(const Exposure& exposure);
};

constexpr std::array cost_rows = {
    CostRow{"address space at the peak",
            [](const Cost& cost) { return to_string(cost.peak_addresses); }},
    CostRow{"page tables at the peak",
            [](const Cost& cost) { return with_commas(cost.peak_tables); }},
    CostRow{"maps that no cache served",
            [](const Cost& cost) { return percent(cost.searched, cost.maps); }},
    CostRow{"maps without a free address",
            [](const Cost& cost) { return with_commas(cost.failed_maps); }},
    CostRow{"bytes copied by placement", [](const Cost& cost) { return to_string(cost.copied); }},
    CostRow{"time of a map and its unmap",
            [](const Cost& cost) { return time_text(cost.ns_per_pair); }},
};

constexpr std::array exposure_rows = {
    ExposureRow{"neighbours without an unmapped page",
                [](const Exposure& of) { return with_commas(of.adjacent_pairs); }},
    ExposureRow{"overruns refused at the first byte",
                [](const Exposure& of) { return percent(of.overruns_refused_at_once, of.maps); }},
    ExposureRow{"underruns refused at the first byte",
                [](const Exposure& of) { return percent(of.underruns_refused_at_once, of.maps); }},
    ExposureRow{"silent bytes after a buffer, median",
                [](const Exposure& of) { return median(of.silent_bytes_after); }},
    ExposureRow{"silent bytes before a buffer, median",
                [](const Exposure& of) { return median(of.silent_bytes_before); }},
    ExposureRow{"maps of an address that was used before",
                [](const Exposure& of) { return percent(of.reused_after_ns.count, of.maps); }},
    ExposureRow{"unmaps before it is used again, median",
                [](const Exposure& of) { return median(of.reused_after_unmaps); }},
    ExposureRow{"time before it is used again, median",
                [](const Exposure& of) { return median_time(of.reused_after_ns); }},
    ExposureRow{"recorded faults: refused and attributed",
                [](const Exposure& of) { return with_commas(of.faults_attributed); }},
    ExposureRow{"  attributed to another mapping",
                [](const Exposure& of) { return with_commas(of.faults_attributed_elsewhere); }},
    ExposureRow{"  silent", [](const Exposure& of) { return with_commas(of.faults_silent); }},
};

[[nodiscard]] std::string line(std::string label, const std::vector<std::string>& cells) {
    label.resize(std::max(label.size(), label_width), ' ');
    for (const std::string& cell : cells)
        label += std::string(column_width - std::min(column_width, cell.size()), ' ') + cell;
    return label + '\n';
}

[[nodiscard]] ordered_json spread_json(const Spread& spread) {
    return {{"count", spread.count}, {"least", spread.least}, {"median", spread.median}};
}

} // namespace

std::string time_text(double nanoseconds) {
    constexpr std::array<const char*, 4> units = {" ns", " us", " ms", " s"};
    std::size_t unit = 0;
    while (nanoseconds >= 1000 && unit + 1 != units.size()) {
        nanoseconds /= 1000;
        ++unit;
    }
    return one_decimal(nanoseconds) + units.at(unit);
}

std::string to_text(const watch::Policy& policy) {
    const auto size = [](ByteCount bytes) {
        return bytes == ByteCount() ? std::string("0") : to_string(bytes);
    };
    std::string text = "guard " + size(policy.guard);
    if (policy.guard_before != ByteCount())
        text += ", guard before " + size(policy.guard_before);
    if (policy.quarantine != ByteCount())
        text += ", quarantine " + size(policy.quarantine);
    if (policy.placement)
        text += *policy.placement == dma::Placement::right ? ", placed right" : ", placed left";
    return text;
}

std::string policy_table(const std::vector<PolicyColumn>& columns) {
    std::vector<std::string> cells;
    const auto row = [&](const char* label, auto value) {
        cells.clear();
        for (const PolicyColumn& column : columns)
            cells.push_back(value(column));
        return line(label, cells);
    };
    std::string text = row("", [](const PolicyColumn& column) { return column.heading; });
    for (const CostRow& each : cost_rows)
        text += row(each.label, [&](const PolicyColumn& column) {
            return column.cost == nullptr ? std::string("-") : each.value(*column.cost);
        });
    for (const ExposureRow& each : exposure_rows)
        text += row(each.label,
                    [&](const PolicyColumn& column) { return each.value(column.exposure); });
    return text;
}

ordered_json json_of(const watch::Policy& policy) {
    ordered_json json = {{"guard", policy.guard.value()},
                         {"guard_before", policy.guard_before.value()},
                         {"quarantine", policy.quarantine.value()},
                         {"placement", nullptr}};
    if (policy.placement)
        json["placement"] = *policy.placement == dma::Placement::right ? "right" : "left";
    return json;
}

ordered_json json_of(const Exposure& exposure) {
    return {{"maps", exposure.maps},
            {"unmaps", exposure.unmaps},
            {"adjacent_pairs", exposure.adjacent_pairs},
            {"overruns_refused_at_once", exposure.overruns_refused_at_once},
            {"underruns_refused_at_once", exposure.underruns_refused_at_once},
            {"silent_bytes_after", spread_json(exposure.silent_bytes_after)},
            {"silent_bytes_before", spread_json(exposure.silent_bytes_before)},
            {"reused_after_unmaps", spread_json(exposure.reused_after_unmaps)},
            {"reused_after_ns", spread_json(exposure.reused_after_ns)},
            {"faults_attributed", exposure.faults_attributed},
            {"faults_attributed_elsewhere", exposure.faults_attributed_elsewhere},
            {"faults_silent", exposure.faults_silent}};
}

ordered_json json_of(const Cost& cost) {
    return {{"maps", cost.maps},
            {"failed_maps", cost.failed_maps},
            {"peak_addresses", cost.peak_addresses.value()},
            {"peak_tables", cost.peak_tables},
            {"searched", cost.searched},
            {"copied", cost.copied.value()},
            {"ns_per_pair", cost.ns_per_pair}};
}

} // namespace moat::tools
