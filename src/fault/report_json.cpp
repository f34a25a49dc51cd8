// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A diagnosis, or an answer, as one line of JSON: docs/report_schema.md.
// Addresses are strings, because many JSON readers hold only 53 bits.
#include "moat/fault/report.hpp"

#include "answer.hpp"
#include "requester.hpp"

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

template <class T>
[[nodiscard]] Json or_null(const std::optional<T>& value) {
    return value ? Json(*value) : Json(nullptr);
}

[[nodiscard]] Json source_json(const Source& source) {
    return {{"kind", name(source.kind())},
            {"id", source.id()},
            {"segment", or_null(source.segment())},
            {"text", to_string(source)}};
}

[[nodiscard]] Json addresses_json(const AddressSet& addresses) {
    Json runs = Json::array();
    for (const AddressRun& run : addresses.runs())
        runs.push_back({{"first", hexadecimal(run.first)},
                        {"last", hexadecimal(run.last)},
                        {"stride", run.stride},
                        {"count", run.count}});
    return runs;
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
    json["domain"] = or_null(record.domain);
    json["pasid"] = or_null(record.pasid);
    json["suppressed"] = record.suppressed;
    json["time_ns"] = or_null(record.time_ns);
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
    json["side"] = fault::name(diagnosis.side);
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

std::string json_answer(const LogGroup& group, const LogContext& context) {
    const LogEvent& event = group.first;
    const KnownCause& cause = likeliest_cause(group, context);
    const std::optional<Source> function = context.function_of(event);
    Json json;
    json["schema"] = "moat.group/1";
    json["kind"] = name(event.kind);
    json["summary"] = what_happened(group, context);
    json["origin"] = name(event.origin);
    json["unit"] = event.unit;
    json["device"] = event.record.source.kind() == Source::Kind::unknown
                         ? event.device
                         : to_string(event.record.source);
    json["requester"] = requester_note(event, context);
    json["driver"] = driver_of(group, context);
    const DeviceFacts* const facts = function ? context.device(*function) : nullptr;
    json["description"] = facts == nullptr ? "" : facts->description;
    json["access"] = name(event.record.access);
    json["reason"] = name(event.record.reason);
    json["code"] = event.record.code ? Json(hexadecimal(*event.record.code)) : Json(nullptr);
    json["pasid"] = or_null(event.record.pasid);
    json["error"] = or_null(event.error);
    json["bytes"] = or_null(event.bytes);
    json["count"] = group.count;
    json["suppressed"] = group.suppressed;
    json["begin_ns"] = or_null(group.begin_ns);
    json["end_ns"] = or_null(group.end_ns);
    json["addresses"] = addresses_json(group.addresses);
    json["lies_in"] = what_lies_there(group, context);
    json["line"] = event.line_number;
    json["text"] = event.text;
    json["verdict"] = name(cause.verdict);
    json["cause"] = {
        {"id", cause.id},       {"text", cause.cause}, {"next", next_step(cause, event)},
        {"helps", cause.helps}, {"fix", cause.fix},    {"source", cause.source}};
    return one_line(json);
}

} // namespace moat::fault
