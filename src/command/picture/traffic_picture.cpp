// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "command/picture/traffic_picture.hpp"

#include "moat/core/text.hpp"

#include "command/picture/picture_texts.hpp"
#include "watch/group_mappings.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

namespace moat::tools {

using nlohmann::ordered_json;

void TrafficPicture::began(const watch::GroupMappings& group, const watch::LiveMapping& mapping) {
    const fault::Mapping& mapped = mapping.mapping;
    last_ns_ = std::max(last_ns_, mapped.mapped.time_ns);
    if (first_ns_ == 0)
        first_ns_ = last_ns_;
    Group& into = groups_[&group];
    if (into.rows.size() == most_rows) {
        const auto oldest = into.newest.find(into.rows.front().range.start().value());
        if (oldest != into.newest.end() && oldest->second == into.dropped)
            into.newest.erase(oldest);
        into.rows.pop_front();
        ++into.dropped;
    }
    into.newest[mapped.range.start().value()] = into.dropped + into.rows.size();
    into.rows.push_back({.range = mapped.range,
                         .mapped_ns = mapped.mapped.time_ns,
                         .label = std::string(mapped.label),
                         .device = std::string(mapping.device),
                         .mapped_by = frames_of(mapped.mapped.stack)});
}

void TrafficPicture::ended(const watch::GroupMappings& group, const watch::LiveMapping& mapping,
                           const fault::Event& unmapped) {
    last_ns_ = std::max(last_ns_, unmapped.time_ns);
    Group& of = groups_[&group];
    if (const auto row = row_of(of, mapping.mapping))
        of.rows[*row].unmapped_ns = unmapped.time_ns;
}

/// The mapping in it is drawn in its place.
void TrafficPicture::refined(const watch::GroupMappings& group,
                             const watch::LiveMapping& allocation) {
    ended(group, allocation, {.time_ns = last_ns_});
}

void TrafficPicture::faulted(const watch::GroupMappings& group, const watch::Finding& finding) {
    Group& of = groups_[&group];
    const fault::Diagnosis& diagnosis = finding.diagnosis;
    last_ns_ = std::max(last_ns_, diagnosis.record.time_ns.value_or(0));
    if (of.marks.size() == most_marks || diagnosis.record.where.empty())
        return;
    const fault::Mapping* const blamed = diagnosis.mapping ? &*diagnosis.mapping
                                         : diagnosis.past  ? &diagnosis.past->mapping
                                                           : nullptr;
    of.marks.push_back(
        {.record = diagnosis.record,
         .row = blamed == nullptr ? std::nullopt : row_of(of, *blamed),
         .device = std::string(finding.device),
         .report = text_report(diagnosis, {.device = finding.driver, .symbolise = symbolise_})});
    if (of.marks.back().row)
        *of.marks.back().row += of.dropped;
}

std::optional<std::size_t> TrafficPicture::row_of(const Group& group,
                                                  const fault::Mapping& mapping) {
    const auto newest = group.newest.find(mapping.range.start().value());
    if (newest == group.newest.end())
        return std::nullopt;
    const std::size_t row = newest->second - group.dropped;
    return group.rows[row].mapped_ns == mapping.mapped.time_ns ? std::optional(row) : std::nullopt;
}

std::string TrafficPicture::frames_of(fault::StackView stack) const {
    constexpr std::size_t most_frames = 6;
    std::string text;
    std::size_t frames = 0;
    const auto add = [&](const StackFrame& frame) {
        if (frames++ < most_frames && !frame.function.empty())
            text += (text.empty() ? "" : "\n") + std::string(frame.function);
    };
    for (const std::uintptr_t address : stack)
        symbolise_(address, add);
    return text;
}

std::vector<ordered_json> TrafficPicture::take() const {
    std::vector<const Group*> drawn;
    for (const auto& [key, group] : groups_)
        if (!group.rows.empty())
            drawn.push_back(&group);
    const auto strays_more = [](const Group* one, const Group* other) {
        return std::pair(one->marks.size(), one->rows.size()) >
               std::pair(other->marks.size(), other->rows.size());
    };
    std::sort(drawn.begin(), drawn.end(), strays_more);
    std::vector<ordered_json> pictures;
    for (const Group* const group : drawn)
        pictures.push_back(picture_of(*group));
    return pictures;
}

ordered_json TrafficPicture::picture_of(const Group& group) const {
    PictureTexts texts;
    std::set<std::string> devices;
    std::uint64_t low = ~std::uint64_t{0};
    std::uint64_t high = 0;
    const auto since_begin = [this](std::uint64_t time) {
        return static_cast<std::int64_t>(time - std::min(time, first_ns_));
    };
    ordered_json mappings = ordered_json::array();
    for (const Row& row : group.rows) {
        low = std::min(low, row.range.start().value());
        high = std::max(high, row.range.last().value());
        devices.insert(row.device);
        mappings.push_back(
            {hexadecimal(row.range.start().value()), row.range.size().value(), 0, 0,
             since_begin(row.mapped_ns), row.unmapped_ns ? since_begin(*row.unmapped_ns) : -1, -1,
             texts.number(row.label), texts.number(row.device), texts.number(row.mapped_by), -1});
    }
    ordered_json faults = ordered_json::array();
    for (const Mark& mark : group.marks) {
        const IovaRange& where = mark.record.where;
        low = std::min(low, where.start().value());
        high = std::max(high, where.last().value());
        const bool is_kept = mark.row && *mark.row >= group.dropped;
        faults.push_back(
            {{"address", hexadecimal(where.start().value())},
             {"size", where.size().value()},
             {"access", fault::name(mark.record.access)},
             {"device", mark.device},
             {"time", since_begin(mark.record.time_ns.value_or(0))},
             {"mapping", is_kept ? ordered_json(*mark.row - group.dropped) : ordered_json()},
             {"report", mark.report}});
    }
    std::string title;
    for (const std::string& device : devices)
        title += (title.empty() ? "" : ", ") + device;
    return {{"moat", 1},
            {"kind", "space"},
            {"title", title},
            {"page", 4096},
            {"end", since_begin(last_ns_) + 1},
            {"aperture", {hexadecimal(low), hexadecimal(high + 1)}},
            {"mappings", mappings},
            {"reserved", ordered_json::array()},
            {"faults", faults},
            {"strings", texts.all()}};
}

} // namespace moat::tools
