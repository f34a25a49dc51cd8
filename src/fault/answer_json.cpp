// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An answer as JSON: docs/report_schema.md. Addresses are strings, because many JSON readers hold
// only 53 bits.
#include "moat/fault/text.hpp"

#include "answer.hpp"
#include "requester.hpp"

#include <nlohmann/json.hpp>

namespace moat::fault {

namespace {

using Json = nlohmann::ordered_json;

[[nodiscard]] Json addresses_json(const AddressSet& addresses) {
    Json runs = Json::array();
    for (const AddressRun& run : addresses.runs())
        runs.push_back({{"first", hexadecimal(run.first)},
                        {"last", hexadecimal(run.last)},
                        {"stride", run.stride},
                        {"count", run.count}});
    return runs;
}

template <class T>
[[nodiscard]] Json or_null(const std::optional<T>& value) {
    return value ? Json(*value) : Json(nullptr);
}

} // namespace

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
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

} // namespace moat::fault
