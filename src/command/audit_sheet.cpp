// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "command/audit_sheet.hpp"

#include "moat/core/text.hpp"

#include "command/terminal/output.hpp"
#include "command/terminal/terminal.hpp"

#include <algorithm>
#include <array>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <tuple>
#include <vector>

namespace moat::tools {

namespace {

using audit::Cell;
using audit::Measure;
using nlohmann::ordered_json;

constexpr std::string_view sheet_schema = "moat.sheet/1";

[[nodiscard]] std::string_view name_of(audit::Unit unit) {
    constexpr std::array<std::string_view, 3> names = {"bytes", "microseconds", "word"};
    return names.at(static_cast<std::size_t>(unit));
}

[[nodiscard]] ordered_json json_of_cell(const Cell& cell) {
    ordered_json object;
    object["measure"] = name(cell.what);
    object["unit"] = name_of(unit_of(cell.what));
    object["value"] = nullptr;
    if (cell.value)
        object["value"] = *cell.value;
    object["resolution"] = cell.resolution;
    object["word"] = nullptr;
    if (!cell.word.empty())
        object["word"] = cell.word;
    object["cannot_see"] = nullptr;
    if (!cell.cannot_see.empty())
        object["cannot_see"] = cell.cannot_see;
    return object;
}

/// "64", "64-67" for a range, "65536+" if there may be more, "?" if it cannot be seen.
[[nodiscard]] std::string cell_text(const Cell& cell) {
    if (!cell.word.empty())
        return cell.word;
    if (!cell.value)
        return "?";
    std::string text = std::to_string(*cell.value);
    if (!cell.cannot_see.empty())
        return text + "+";
    if (cell.resolution != 0)
        text += "-" + std::to_string(*cell.value + cell.resolution);
    return text;
}

[[nodiscard]] const Cell* find_cell(const audit::Row& row, Measure what) {
    const auto found = std::ranges::find(row.cells, what, &Cell::what);
    return found == row.cells.end() ? nullptr : &*found;
}

struct Column {
    std::string_view title;
    Measure what;
};

constexpr std::array<Column, 5> reach_columns = {{{"read before", Measure::read_before},
                                                  {"read after", Measure::read_after},
                                                  {"written before", Measure::write_before},
                                                  {"written after", Measure::write_after},
                                                  {"in its page", Measure::rest_of_page}}};

constexpr std::array<Column, 4> time_columns = {{{"late", Measure::late},
                                                 {"driver ended", Measure::late_after_stop},
                                                 {"mastering off", Measure::late_after_master},
                                                 {"reset", Measure::late_after_reset}}};

constexpr std::array<Column, 4> word_columns = {{{"granularity", Measure::granularity},
                                                 {"order", Measure::order},
                                                 {"if blocked", Measure::says_if_blocked},
                                                 {"recovery", Measure::recovery}}};

/// The rows that have the first column.
void print_table(std::ostream& out, const audit::Sheet& sheet, std::string_view title,
                 std::span<const Column> columns) {
    out << "  " << std::left << std::setw(32) << title << std::right;
    for (const Column& column : columns)
        out << std::setw(16) << column.title;
    out << '\n';
    for (const audit::Row& row : sheet.rows) {
        if (find_cell(row, columns.front().what) == nullptr)
            continue;
        out << "  " << std::left << std::setw(32) << row.operation + ", " + row.buffer
            << std::right;
        for (const Column& column : columns) {
            const Cell* const cell = find_cell(row, column.what);
            out << std::setw(16) << (cell != nullptr ? cell_text(*cell) : "");
        }
        out << '\n';
    }
}

[[nodiscard]] std::string escaped(std::string_view text) {
    std::string made;
    for (const char each : text)
        if (each == '<' || each == '>' || each == '&' || each == '"')
            made += "&#" + std::to_string(static_cast<int>(each)) + ";";
        else
            made += each;
    return made;
}

/// A cell of a sheet in a file.
struct ReadCell {
    std::optional<std::uint64_t> value;
    std::uint64_t resolution = 0;
    std::string word;
};

struct ReadSheet {
    std::string device;
    std::map<std::tuple<std::string, std::string, std::string>, ReadCell> cells;
};

[[nodiscard]] const ordered_json* field(const ordered_json& object, const char* name) {
    const auto found = object.is_object() ? object.find(name) : object.end();
    return found == object.end() ? nullptr : &*found;
}

[[nodiscard]] std::optional<std::string> text_in(const ordered_json& object, const char* name) {
    const ordered_json* const found = field(object, name);
    if (found == nullptr || !found->is_string())
        return std::nullopt;
    return found->get<std::string>();
}

[[nodiscard]] std::optional<std::uint64_t> number_at(const ordered_json& object, const char* name) {
    const ordered_json* const found = field(object, name);
    if (found == nullptr || !found->is_number_unsigned())
        return std::nullopt;
    return found->get<std::uint64_t>();
}

[[nodiscard]] std::optional<ReadSheet> parse_sheet(const ordered_json& data) {
    const auto device = text_in(data, "device");
    const auto machine = text_in(data, "machine");
    const ordered_json* const rows = field(data, "rows");
    if (text_in(data, "schema") != sheet_schema || !device || !machine || rows == nullptr ||
        !rows->is_array())
        return std::nullopt;
    ReadSheet sheet{.device = *device + " (" + *machine + ")", .cells = {}};
    for (const ordered_json& row : *rows) {
        const auto operation = text_in(row, "operation");
        const auto buffer = text_in(row, "buffer");
        const ordered_json* const cells = field(row, "cells");
        if (!operation || !buffer || cells == nullptr || !cells->is_array())
            return std::nullopt;
        for (const ordered_json& cell : *cells) {
            const auto measure = text_in(cell, "measure");
            const auto resolution = number_at(cell, "resolution");
            if (!measure || !resolution)
                return std::nullopt;
            sheet.cells[{*operation, *buffer, *measure}] = {number_at(cell, "value"), *resolution,
                                                            text_in(cell, "word").value_or("")};
        }
    }
    return sheet;
}

[[nodiscard]] ReadSheet read_sheet(const std::string& path) {
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    if (!file)
        throw Stop{Exit::usage, "moat audit: --compare: " + path + ": cannot be read"};
    auto sheet = parse_sheet(ordered_json::parse(text.str(), nullptr, false));
    if (!sheet)
        throw Stop{Exit::usage, "moat audit: --compare: " + path +
                                    ": not a data sheet in JSON; write one with moat audit "
                                    "--sheet FILE.json"};
    return *std::move(sheet);
}

/// From good to bad.
[[nodiscard]] std::optional<std::size_t> rank_of(std::string_view word) {
    constexpr std::array<std::string_view, 9> words = {
        "data-first", "completion-first", "failure",     "no-answer", "success",
        "next-works", "needs-restart",    "needs-reset", "dead"};
    const auto found = std::ranges::find(words, word);
    return found == words.end() ? std::nullopt : std::optional<std::size_t>(found - words.begin());
}

/// Numbers grew only if their ranges do not overlap.
[[nodiscard]] bool is_worse(std::string_view measure, const ReadCell& before,
                            const ReadCell& after) {
    const auto old_rank = rank_of(before.word);
    const auto new_rank = rank_of(after.word);
    if (old_rank && new_rank)
        return *new_rank > *old_rank;
    const bool is_reach = measure != audit::name(Measure::granularity);
    return is_reach && before.value && after.value && *after.value > *before.value &&
           *after.value - *before.value > before.resolution;
}

[[nodiscard]] std::string cell_text(const ReadCell& cell) {
    return cell_text(Cell{.value = cell.value, .resolution = cell.resolution, .word = cell.word});
}

} // namespace

ordered_json sheet_json(const audit::Kind& kind, const machine::FunctionInfo& function,
                        const audit::Sheet& sheet) {
    ordered_json line;
    line["schema"] = sheet_schema;
    line["machine"] = kind.machine;
    line["device"] = kind.name;
    line["driver"] = sheet.driver;
    line["pci_vendor"] = hexadecimal(function.vendor);
    line["pci_device"] = hexadecimal(function.device);
    line["ats"] = sheet.caches_translations;
    line["reach"] = audit::sheet_reach;
    line["rows"] = ordered_json::array();
    for (const audit::Row& row : sheet.rows) {
        ordered_json cells = ordered_json::array();
        for (const Cell& cell : row.cells)
            cells.push_back(json_of_cell(cell));
        line["rows"].push_back(
            {{"operation", row.operation}, {"buffer", row.buffer}, {"cells", std::move(cells)}});
    }
    return line;
}

void print_sheet(std::ostream& out, const audit::Sheet& sheet) {
    print_table(out, sheet, "bytes outside of the buffer", reach_columns);
    print_table(out, sheet, "last access, in us after", time_columns);
    print_table(out, sheet, "behaviour", word_columns);
    out << "  A range is what the measurement cannot tell apart; ? cannot be seen.\n";
    if (sheet.caches_translations)
        out << "  The device caches translations (ATS).\n";
}

std::string sheet_page(const audit::Kind& kind, const audit::Sheet& sheet,
                       const std::string& command) {
    const std::string title =
        "Data sheet: " + escaped(kind.name) + " (" + escaped(kind.machine) + ")";
    std::string page = "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>" +
                       title +
                       "</title>\n<style>body{font:15px sans-serif;margin:2em}"
                       "table{border-collapse:collapse}td,th{border:1px solid #bbb;"
                       "padding:.3em .6em;text-align:right}td:first-child,td:nth-child(2)"
                       "{text-align:left}td[title]{color:#777}</style>\n<h1>" +
                       title + "</h1>\n<p><code>" + escaped(command) +
                       "</code></p>\n<table><tr><th>operation<th>buffer";
    for (std::size_t each = 0; each != audit::measures; ++each)
        page += "<th>" + std::string(name(static_cast<Measure>(each)));
    page += '\n';
    for (const audit::Row& row : sheet.rows) {
        page += "<tr><td>" + escaped(row.operation) + "<td>" + escaped(row.buffer);
        for (std::size_t each = 0; each != audit::measures; ++each) {
            const Cell* const cell = find_cell(row, static_cast<Measure>(each));
            page += "<td";
            if (cell != nullptr && !cell->cannot_see.empty())
                page += " title=\"cannot see: " + escaped(cell->cannot_see) + "\"";
            page += '>';
            if (cell != nullptr)
                page += escaped(cell_text(*cell));
        }
        page += '\n';
    }
    return page +
           "</table>\n<p>Bytes and microseconds; a range is what the measurement cannot tell "
           "apart. Hover over a grey cell for what cannot be seen.</p></html>\n";
}

Exit compare_sheets(const std::string& old_file, const std::string& new_file) {
    const ReadSheet before = read_sheet(old_file);
    const ReadSheet after = read_sheet(new_file);
    if (before.device != after.device)
        std::cout << "different devices: " << before.device << ", " << after.device << '\n';
    std::size_t worse = 0;
    std::size_t compared = 0;
    for (const auto& [key, old_cell] : before.cells) {
        const auto& [operation, buffer, measure] = key;
        const std::string where = operation + ", " + buffer + ", " + measure + ": ";
        const auto found = after.cells.find(key);
        const bool was_seen = old_cell.value || !old_cell.word.empty();
        if (found == after.cells.end() ||
            (was_seen && !found->second.value && found->second.word.empty())) {
            if (was_seen)
                std::cout << where << cell_text(old_cell) << ", and not measured in " << new_file
                          << '\n';
            continue;
        }
        ++compared;
        if (!is_worse(measure, old_cell, found->second))
            continue;
        ++worse;
        std::cout << toned(Tone::bad,
                           where + cell_text(old_cell) + ", now " + cell_text(found->second))
                  << '\n';
    }
    std::cout << compared << " cells compared, " << worse << " worse\n";
    return worse != 0 ? Exit::found : Exit::success;
}

} // namespace moat::tools
