// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// fault: the decoders, with every number of every known line; History; diagnosis and reports of any
// record. Programmer's errors by contract, so not rows: Source::pci of numbers that no PCI function
// has (`requester` is for untrusted numbers), bus, device and function of another kind of source,
// and History::around before catch_up.
#include "moat/core/text.hpp"
#include "moat/fault/decode.hpp"
#include "moat/fault/diagnose.hpp"
#include "moat/fault/mapping.hpp"
#include "moat/fault/report.hpp"

#include "contract.hpp"
#include "fault/answer.hpp"

#include <array>
#include <cctype>
#include <fstream>
#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using fault::LogEvent;
using fault::Record;

/// The log lines of the golden file, without their decoded records.
std::vector<std::string> known_lines() {
    std::vector<std::string> lines;
    std::ifstream file(MOAT_TEST_DATA "/golden_lines.txt");
    for (std::string line; std::getline(file, line);)
        if (!line.empty() && !line.starts_with('@') && !line.starts_with('#') &&
            !line.starts_with("->"))
            lines.push_back(line);
    EXPECT_GT(lines.size(), 40U);
    return lines;
}

void use(const LogEvent& decoded) {
    fault::LogContext context;
    fault::LogGroups groups;
    context.event(decoded);
    groups.add(decoded);
    for (const fault::LogGroup& group : groups.all()) {
        EXPECT_FALSE(fault::text_answer(group, context, fault::Colour::none).empty());
        EXPECT_FALSE(fault::json_answer(group, context).empty());
    }
    const fault::NoHistory past;
    const fault::SortedMappings live(std::span<const fault::Mapping>{});
    (void)fault::text_report(fault::diagnose(live, past, decoded.record));
}

/// Reads `line` with each of its numbers replaced by `value` in turn, in both bases.
void read_with(const std::string& line, std::uint64_t value) {
    for (std::size_t at = 0; at != line.size();) {
        std::size_t end = at;
        while (end != line.size() && std::isxdigit(static_cast<unsigned char>(line[end])) != 0)
            ++end;
        if (end == at) {
            ++at;
            continue;
        }
        for (const std::string& number : {std::to_string(value), hexadecimal(value).substr(2)}) {
            std::string changed = line;
            changed.replace(at, end - at, number);
            fault::Decoder decoder;
            const auto sink = [](const LogEvent& decoded) { use(decoded); };
            decoder.line(changed, sink);
            decoder.line(line, sink);
            decoder.end(sink);
        }
        at = end;
    }
}

std::vector<Row> lines() {
    std::vector<Row> rows;
    for (const std::string& line : known_lines())
        rows.push_back({.name = line,
                        .arguments = {{.name = "a number of the line", .good = 0x1000}},
                        .call = [=](Values v) -> Outcome {
                            read_with(line, v[0]);
                            return returned;
                        }});
    return rows;
}

fault::Mapping mapping(Iova start, std::uint64_t size, std::uint64_t guard = 0) {
    return {.range = IovaRange(start, ByteCount(size)),
            .guard_before = ByteCount(guard),
            .guard_after = ByteCount(guard),
            .label = "buffer"};
}

/// A record of these numbers, whether or not a device could cause it.
Record record_of(IovaRange where, std::uint64_t precision, std::uint64_t reason) {
    return {.source = fault::Source::requester(0x10),
            .access = fault::Access::write,
            .precision = static_cast<fault::Precision>(precision & 3),
            .reason = static_cast<fault::Reason>(reason % 15),
            .where = where};
}

const std::vector<Argument> record_arguments = {{.name = "start", .good = 0x11000},
                                                {.name = "size", .good = 0x40},
                                                {.name = "precision", .good = 1, .bits = 2},
                                                {.name = "reason", .good = 1, .bits = 4}};

/// Diagnoses the record and renders the result.
Outcome diagnose(Values v, const fault::Mapping& live, const fault::ReportOptions& options = {},
                 ByteCount reach = ByteCount(1 << 20)) {
    const auto where = IovaRange::make(Iova(v[0]), ByteCount(v[1]));
    if (!where)
        return where.error();
    const std::array mappings = {mapping(Iova(0), 0x40), live};
    fault::History past(4);
    past.note(mapping(Iova(0x8000), 0x100), {});
    past.note(mapping(Iova(~std::uint64_t{0} - 0xff), 0x100), {});
    past.catch_up();
    past.verify();
    const auto found = fault::diagnose(fault::SortedMappings(mappings), past,
                                       record_of(*where, v[2], v[3]), {.reach = reach});
    EXPECT_FALSE(fault::summary(found).empty());
    EXPECT_FALSE(fault::text_report(found, options).empty());
    EXPECT_FALSE(fault::json_report(found, options).empty());
    EXPECT_LT(fault::neighbourhood(found, options).size(), 16384U);
    return returned;
}

std::vector<Row> diagnoses() {
    const auto with = [](std::vector<Argument> more) {
        more.insert(more.begin(), record_arguments.begin(), record_arguments.end());
        return more;
    };
    return {
        {.name = "diagnose",
         .arguments = with({{.name = "mapped", .good = 0x10000},
                            {.name = "mapped_size", .good = 0x1000},
                            {.name = "guard", .good = 0x1000},
                            {.name = "reach", .good = 1 << 20}}),
         .call =
             [](Values v) {
                 const auto live = IovaRange::make(Iova(v[4]), ByteCount(v[5]));
                 if (!live)
                     return outcome(live);
                 if (live->empty() || v[4] <= 0x40)
                     return Outcome(); // mappings have bytes, and are sorted
                 return diagnose(v, mapping(live->start(), v[5], v[6]), {}, ByteCount(v[7]));
             }},
        {.name = "reports",
         .arguments = with({{.name = "process_id", .good = 7},
                            {.name = "most_frames", .good = 16, .bits = 32},
                            {.name = "map_columns", .good = 64, .bits = 32},
                            {.name = "page_bytes", .good = 4096}}),
         .call =
             [](Values v) {
                 return diagnose(v, mapping(Iova(0x10000), 0x1000, 0x1000),
                                 {.process_id = v[4],
                                  .most_frames = static_cast<unsigned>(v[5]),
                                  .map_columns = static_cast<unsigned>(v[6]),
                                  .page_bytes = v[7]});
             }},
    };
}

std::vector<Row> histories() {
    return {
        {.name = "History",
         .arguments = {{.name = "capacity", .good = 4},
                       {.name = "start", .good = 0x1000},
                       {.name = "size", .good = 0x1000},
                       {.name = "asked", .good = 0x1000},
                       {.name = "asked_size", .good = 0x1000}},
         .call =
             [](Values v) {
                 const auto range = IovaRange::make(Iova(v[1]), ByteCount(v[2]));
                 const auto asked = IovaRange::make(Iova(v[3]), ByteCount(v[4]));
                 if (!range || !asked)
                     return outcome(range ? asked : range);
                 fault::History history(v[0]);
                 for (const IovaRange& each : {IovaRange(Iova(0x1800), ByteCount(0x1000)), *range,
                                               IovaRange(Iova(0x1800), ByteCount(1))}) {
                     history.note({.range = each}, {});
                     history.catch_up();
                     history.verify();
                 }
                 fault::SearchSteps steps;
                 (void)history.around(*asked, steps);
                 return Outcome();
             }},
    };
}

TEST(FaultContracts, lines_take_any_number) {
    expect_contracts(lines);
}

TEST(FaultContracts, diagnoses_take_any_number) {
    expect_contracts(diagnoses);
}

TEST(FaultContracts, histories_take_any_number) {
    expect_contracts(histories);
}

} // namespace
} // namespace moat::tests
