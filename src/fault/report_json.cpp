// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A diagnosis, or a decoded line, as one line of JSON: docs/report_schema.md.
// Addresses are strings, because many JSON readers hold only 53 bits.
#include "moat/fault/report.hpp"
#include "moat/fault/text.hpp"

#include <nlohmann/json.hpp>

namespace moat::fault {

namespace {

using Json = nlohmann::ordered_json;

[[nodiscard]] std::string_view name(Source::Kind kind) {
    constexpr std::array<std::string_view, 5> names = {"unknown", "pci", "stream", "endpoint",
                                                       "device_id"};
    return names[static_cast<std::size_t>(kind)];
}

[[nodiscard]] std::string_view name(Precision precision) {
    constexpr std::array<std::string_view, 4> names = {"none", "exact", "start", "page"};
    return names[static_cast<std::size_t>(precision)];
}

[[nodiscard]] std::string_view name(Side side) {
    constexpr std::array<std::string_view, 3> names = {"inside", "left", "right"};
    return names[static_cast<std::size_t>(side)];
}

template <class T>
[[nodiscard]] Json optional_number(const std::optional<T>& value) {
    return value ? Json(*value) : Json(nullptr);
}

[[nodiscard]] Json source_json(const Source& source) {
    return {{"kind", name(source.kind())},
            {"id", source.id()},
            {"segment", optional_number(source.segment())},
            {"text", to_string(source)}};
}

void add_record(Json& json, const Record& record) {
    json["source"] = source_json(record.source);
    json["access"] = fault::name(record.access);
    json["precision"] = name(record.precision);
    const bool has_address = record.precision != Precision::none;
    json["address"] = has_address ? Json(hexadecimal(record.where.start().value())) : Json(nullptr);
    json["bytes"] = record.where.size().value();
    json["reason"] = fault::name(record.reason);
    json["code"] = record.code ? Json(hexadecimal(*record.code)) : Json(nullptr);
    json["domain"] = optional_number(record.domain);
    json["pasid"] = optional_number(record.pasid);
    json["suppressed"] = record.suppressed;
    json["time_ns"] = optional_number(record.time_ns);
}

[[nodiscard]] Json event_json(const Event& event, const ReportOptions& options) {
    Json stack = Json::array();
    const auto add = [&](const StackFrame& frame) {
        if (stack.size() != options.most_frames)
            stack.push_back({{"address", hexadecimal(frame.address)},
                             {"function", frame.function},
                             {"file", frame.file},
                             {"line", frame.line},
                             {"module", frame.module}});
    };
    for (const std::uintptr_t address : event.stack)
        options.symbolise(address, add);
    return {{"time_ns", event.time_ns}, {"thread", event.thread}, {"stack", stack}};
}

[[nodiscard]] Json mapping_json(const Mapping& mapping, const ReportOptions& options) {
    return {{"start", hexadecimal(mapping.range.start().value())},
            {"bytes", mapping.range.size().value()},
            {"guard_before", mapping.guard_before.value()},
            {"guard_after", mapping.guard_after.value()},
            {"allows", fault::name(mapping.allows)},
            {"label", mapping.label},
            {"sampled_of", mapping.sampled_of},
            {"mapped", event_json(mapping.mapped, options)}};
}

[[nodiscard]] Json optional_mapping(const std::optional<Mapping>& mapping,
                                    const ReportOptions& options) {
    return mapping ? mapping_json(*mapping, options) : Json(nullptr);
}

[[nodiscard]] std::string one_line(const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

} // namespace

std::string json_report(const Diagnosis& diagnosis, const ReportOptions& options) {
    Json json;
    json["schema"] = "moat.fault/1";
    json["kind"] = fault::name(diagnosis.kind);
    add_record(json, diagnosis.record);
    json["device"] = options.device;
    json["process_id"] = options.process_id;
    json["side"] = name(diagnosis.side);
    json["distance"] = {{"least", diagnosis.distance.least}, {"most", diagnosis.distance.most}};
    json["bytes_outside"] = diagnosis.bytes_outside;
    json["mapping"] = optional_mapping(diagnosis.mapping, options);
    json["past"] = nullptr;
    if (diagnosis.past) {
        json["past"] = mapping_json(diagnosis.past->mapping, options);
        json["past"]["unmapped"] = event_json(diagnosis.past->unmapped, options);
        json["past"]["unmaps_since"] = diagnosis.past->unmaps_since;
    }
    json["next"] = optional_mapping(diagnosis.next, options);
    json["left"] = optional_mapping(diagnosis.left, options);
    json["right"] = optional_mapping(diagnosis.right, options);
    json["summary"] = summary(diagnosis);
    return one_line(json);
}

} // namespace moat::fault
