// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The words are fault/report.hpp's and driver_error.hpp's; here they only find their way out.
#include "moat/dma/reporter.hpp"

#include "moat/core/text.hpp"

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <ostream>

namespace moat::dma {

std::expected<Options, std::string> options_from_environment(std::ostream& out,
                                                             const Options& defaults) {
    const char* const text = std::getenv("MOAT_OPTIONS");
    if (text == nullptr)
        return defaults;
    auto options = parse_options(text, defaults);
    if (options && options->help)
        out << options_help();
    return options;
}

Listener Reporter::listener() {
    return {.fault =
                [](void* self, const fault::Diagnosis& diagnosis) {
                    auto& reporter = *static_cast<Reporter*>(self);
                    reporter.write(reporter.form_ == ReportForm::json
                                       ? fault::json_report(diagnosis, reporter.options_) + '\n'
                                       : fault::text_report(diagnosis, reporter.options_));
                },
            .driver_error =
                [](void* self, const DriverError& error) {
                    auto& reporter = *static_cast<Reporter*>(self);
                    reporter.write(reporter.form_ == ReportForm::json
                                       ? json_report(error) + '\n'
                                       : "moat: " + summary(error) + '\n');
                },
            .context = this};
}

void Reporter::write(const std::string& report) {
    const std::lock_guard lock(mutex_);
    out_ << report << std::flush;
}

std::string json_report(const DriverError& error) {
    const auto range = [](IovaRange what) -> nlohmann::ordered_json {
        if (what.empty())
            return nullptr;
        return {{"start", hexadecimal(what.start().value())}, {"bytes", what.size().value()}};
    };
    nlohmann::ordered_json line;
    line["schema"] = "moat.driver_error/1";
    line["kind"] = name(error.kind);
    line["range"] = range(error.range);
    line["mapping"] = range(error.mapping.range);
    line["label"] = error.past ? error.past->mapping.label : error.mapping.label;
    line["unmaps_since"] = nullptr;
    if (error.past)
        line["unmaps_since"] = error.past->unmaps_since;
    line["summary"] = summary(error);
    using Json = nlohmann::ordered_json;
    return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

} // namespace moat::dma
