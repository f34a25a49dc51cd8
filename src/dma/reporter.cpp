// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Writes reports; fault/report.hpp and driver_error.hpp compose them.
#include "dma/reporter.hpp"

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
                [](void* self, const fault::Diagnosis& diagnosis) noexcept {
                    auto& reporter = *static_cast<Reporter*>(self);
                    reporter.write(reporter.form_ == ReportForm::json
                                       ? fault::json_report(diagnosis, reporter.options_) + '\n'
                                       : fault::text_report(diagnosis, reporter.options_));
                },
            .driver_error =
                [](void* self, const DriverError& error) noexcept {
                    auto& reporter = *static_cast<Reporter*>(self);
                    reporter.write(reporter.form_ == ReportForm::json
                                       ? json_report(error) + '\n'
                                       : text_report(error, reporter.options_));
                },
            .context = this};
}

void Reporter::write(const std::string& report) {
    const std::lock_guard lock(mutex_);
    out_ << report << std::flush;
}

std::string text_report(const DriverError& error, const fault::ReportOptions& options) {
    std::string text = "moat: " + summary(error) + '\n';
    if (error.kind == DriverErrorKind::freed)
        text += fault::event_text("freed", error.when, options);
    if (error.block.start != 0)
        text += fault::event_text("allocated", {.stack = error.block.allocated}, options);
    text += fault::event_text("mapped", error.mapping.mapped, options);
    if (error.other)
        text += fault::event_text("other mapping mapped", error.other->mapped, options);
    return text;
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
    line["sampled_of"] = error.mapping.sampled_of;
    line["other_label"] = nullptr;
    if (error.other)
        line["other_label"] = error.other->label;
    line["memory_bytes"] = nullptr;
    line["block_bytes"] = nullptr;
    if (!error.memory.empty())
        line["memory_bytes"] = error.memory.size();
    if (error.block.start != 0)
        line["block_bytes"] = error.block.size.value();
    line["summary"] = summary(error);
    using Json = nlohmann::ordered_json;
    return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}

} // namespace moat::dma
