// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "command/findings.hpp"

#include "command/terminal/output.hpp"
#include "command/terminal/terminal.hpp"
#include "command/watch_table.hpp"
#include "fault/answer.hpp"

#include <nlohmann/json.hpp>

namespace moat::tools {

namespace {

using nlohmann::ordered_json;

[[nodiscard]] ordered_json mapping_json(const std::optional<fault::Mapping>& mapping,
                                        const fault::ReportOptions& options) {
    return ordered_json::parse(json_report({.mapping = mapping}, options))["mapping"];
}

/// "The last mapping before it: 512 bytes at 0x1000, "nvme: dma_map_page"", and its stack.
[[nodiscard]] std::string last_mapped_text(const fault::Mapping& mapping,
                                           const fault::ReportOptions& options) {
    return "The device's last mapping before it: " + to_string(mapping.range.size()) + " at " +
           hexadecimal(mapping.range.start().value()) + ", \"" + std::string(mapping.label) +
           "\"\n" + event_text("mapped", mapping.mapped, options);
}

} // namespace

std::string Findings::add(const watch::Finding& found) {
    const fault::ReportOptions options{
        .colour = output_colour(), .device = found.driver, .symbolise = symbolise_};
    const bool is_new = ++times_[summary(found.diagnosis)] == 1;
    if (json_) {
        auto report = ordered_json::parse(json_report(found.diagnosis, options));
        report["address_of_device"] = found.device;
        report["last_mapped"] = mapping_json(found.last_mapped, options);
        report["notes"] = found.notes;
        return text_of(report) + '\n';
    }
    if (!is_new)
        return {};
    std::string text = text_report(found.diagnosis, options);
    if (found.last_mapped)
        text += last_mapped_text(*found.last_mapped, options);
    for (const std::string& note : found.notes)
        text += "NOTE: " + note + '\n';
    return text + '\n';
}

std::string Findings::add_note(const fault::DmaEvent& event) {
    if (event.kind != fault::DmaEvent::Kind::note)
        return {};
    warnings_ += event.count;
    const std::string text = fault::printable(std::string(event.call));
    if (!notes_.insert(text).second)
        return {};
    if (!json_)
        return (event.count == 0 ? "NOTE: " : "WARNING: ") + text + '\n';
    return text_of({{"schema", "moat.note/1"},
                    {"warning", event.count != 0},
                    {"device", event.device},
                    {"time_ns", event.time_ns},
                    {"text", text}}) +
           '\n';
}

std::string Findings::repeated() const {
    std::string lines;
    for (const auto& [line, times] : times_)
        if (times != 1)
            lines += fault::with_commas(times) + " times: " + line + '\n';
    return lines;
}

ordered_json json_of(const watch::DeviceCounts& device) {
    return {{"device", device.device},         {"driver", device.driver},
            {"translated", device.translated}, {"live", device.live},
            {"live_bytes", device.live_bytes}, {"maps", device.maps},
            {"unmaps", device.unmaps},         {"unknown_unmaps", device.unknown_unmaps},
            {"faults", faults_of(device)}};
}

} // namespace moat::tools
