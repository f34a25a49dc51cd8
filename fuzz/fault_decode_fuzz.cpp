// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Arbitrary bytes as a log, as it is and broken at a column: events or none, never a crash. What
// came out is diagnosed and reported, because a record of a log is hostile input too. The seeds are
// the tests' logs, so that crossing them over mixes all dialects.
#include "moat/fault/decode.hpp"
#include "moat/fault/diagnose.hpp"
#include "moat/fault/report.hpp"

#include "fault/answer.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string_view>

namespace {

using namespace moat;

/// Prints at the end how much was read.
class ReadBytes {
  public:
    ReadBytes() = default;
    ReadBytes(const ReadBytes&) = delete;
    ReadBytes& operator=(const ReadBytes&) = delete;

    ~ReadBytes() { std::fprintf(stderr, "stat::bytes_of_logs: %zu\n", bytes_); }

    void add(std::size_t bytes) { bytes_ += bytes; }

  private:
    std::size_t bytes_ = 0;
};

ReadBytes read_bytes;

void require(bool condition) {
    if (!condition)
        __builtin_trap();
}

void use(const fault::LogEvent& decoded) {
    const fault::Record& record = decoded.record;
    require((record.precision == fault::Precision::none) == record.where.empty());
    require(decoded.numbers.size() <= 16 &&
            decoded.text.size() <= 3 * fault::Decoder::longest_line);
    if (decoded.kind != fault::LogEvent::Kind::fault)
        return;
    const std::array<fault::Mapping, 2> live = {
        fault::Mapping{.range = {Iova(0x1000000), ByteCount(0x1000)}, .label = "a"},
        fault::Mapping{.range = {Iova(0xffff0000), ByteCount(100)}, .label = "b"},
    };
    const auto diagnosis = fault::diagnose(fault::SortedMappings(live), fault::NoHistory{}, record);
    require(!fault::text_report(diagnosis).empty());
    require(fault::json_report(diagnosis).find('\n') == std::string::npos);
}

/// Breaks lines after `columns` bytes; 0: where they are.
void decode(std::string_view log, std::size_t columns) {
    fault::LogContext context;
    fault::LogGroups groups;
    const auto sink = [&](const fault::LogEvent& decoded) {
        use(decoded);
        context.event(decoded);
        groups.add(decoded);
    };
    fault::Decoder decoder;
    std::uint64_t lines = 0;
    while (!log.empty()) {
        std::string_view line = log.substr(0, log.find('\n'));
        const bool broken = columns != 0 && line.size() > columns;
        if (broken)
            line = line.substr(0, columns);
        log.remove_prefix(line.size() + (broken || line.size() == log.size() ? 0 : 1));
        context.line(line);
        decoder.line(line, sink);
        ++lines;
    }
    decoder.end(sink);
    require(decoder.counts().lines == lines);
    require(decoder.counts().unknown <= decoder.counts().lines);
    for (const fault::LogGroup& group : groups.all()) {
        require(fault::text_answer(group, context, fault::Colour::none).find('\033') ==
                std::string::npos);
        require(fault::json_answer(group, context).find('\n') == std::string::npos);
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view log(reinterpret_cast<const char*>(data), size);
    read_bytes.add(size);
    decode(log, 0);
    if (size != 0)
        decode(log, 1 + data[0] % 120);
    return 0;
}
