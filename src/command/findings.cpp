// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "findings.hpp"

#include "fault/answer.hpp"
#include "output.hpp"
#include "terminal.hpp"
#include "watch_table.hpp"

#include <nlohmann/json.hpp>

namespace moat::tools {

std::string Findings::add(const watch::Finding& found) {
    const fault::ReportOptions options{
        .colour = output_colour(), .device = found.driver, .symbolise = symbolise_};
    const bool is_new = ++times_[summary(found.diagnosis)] == 1;
    if (json_) {
        auto report = nlohmann::ordered_json::parse(json_report(found.diagnosis, options));
        report["address_of_device"] = found.device;
        report["notes"] = found.notes;
        return text_of(report) + '\n';
    }
    if (!is_new)
        return {};
    std::string text = text_report(found.diagnosis, options);
    for (const std::string& note : found.notes)
        text += "NOTE: " + note + '\n';
    return text + '\n';
}

std::string Findings::repeated() const {
    std::string lines;
    for (const auto& [line, times] : times_)
        if (times != 1)
            lines += fault::with_commas(times) + " times: " + line + '\n';
    return lines;
}

nlohmann::ordered_json json_of(const watch::DeviceCounts& device) {
    return {{"device", device.device},         {"driver", device.driver},
            {"translated", device.translated}, {"live", device.live},
            {"live_bytes", device.live_bytes}, {"maps", device.maps},
            {"unmaps", device.unmaps},         {"unknown_unmaps", device.unknown_unmaps},
            {"faults", faults_of(device)}};
}

} // namespace moat::tools
