// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Arbitrary bytes as a log: each decoded line or none, never a crash; and what came out of it is
// diagnosed and reported, because a record of a log is hostile input too.
#include "moat/fault/decode.hpp"
#include "moat/fault/diagnose.hpp"
#include "moat/fault/explain.hpp"
#include "moat/fault/report.hpp"
#include "moat/fault/text.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace {

using namespace moat;

void require(bool condition) {
    if (!condition)
        __builtin_trap();
}

void use(const fault::LogEvent& decoded) {
    const fault::Record& record = decoded.record;
    require((record.precision == fault::Precision::none) == record.where.empty());
    require(!fault::json_report(decoded).empty());
    if (decoded.kind != fault::LogEvent::Kind::fault)
        return;
    const std::array<fault::Mapping, 2> live = {
        fault::Mapping{.range = {Iova(0x1000000), ByteCount(0x1000)}, .label = "a"},
        fault::Mapping{.range = {Iova(0xffff0000), ByteCount(100)}, .label = "b"},
    };
    const auto diagnosis = fault::diagnose(fault::SortedMappings(live), fault::NoHistory{}, record);
    require(!fault::text_report(diagnosis).empty());
    require(fault::json_report(diagnosis).find('\n') == std::string::npos);
    require(!fault::explain(decoded).happened.empty());
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view log(reinterpret_cast<const char*>(data), size);
    const auto sink = [](const fault::LogEvent& decoded) { use(decoded); };
    fault::Decoder decoder;
    while (!log.empty()) {
        const std::string_view line = log.substr(0, log.find('\n'));
        log.remove_prefix(line.size() == log.size() ? line.size() : line.size() + 1);
        decoder.line(line, sink);
    }
    decoder.end(sink);
    return 0;
}
