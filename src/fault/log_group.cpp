// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "log_group.hpp"

#include "moat/fault/record.hpp"

#include "core/parse.hpp"

#include <algorithm>

namespace moat::fault {

namespace {

/// The number `text` in hexadecimal, all of it, at most `most`.
[[nodiscard]] std::optional<unsigned> hex_number(std::string_view text, unsigned most) {
    const auto value = number_in<unsigned>(text, 16);
    return value && *value <= most ? value : std::nullopt;
}

[[nodiscard]] std::string device_key(const LogEvent& event) {
    if (const std::optional<Source> function = pci_function(event))
        return to_string(Source::requester(static_cast<std::uint16_t>(function->id()),
                                           function->segment().value_or(0)));
    if (event.record.source.kind() != Source::Kind::unknown)
        return to_string(event.record.source);
    return event.device;
}

/// What must be equal in the events of a group.
[[nodiscard]] std::string key_of(const LogEvent& event) {
    std::string key;
    for (const std::string_view part :
         {name(event.kind), name(event.origin), std::string_view(event.unit),
          name(event.record.access), name(event.record.reason)})
        key.append(part).push_back('\n');
    key += device_key(event) + '\n' + std::to_string(event.error.value_or(0));
    if (event.kind != LogEvent::Kind::fault)
        key += '\n' + event.text;
    return key;
}

} // namespace

std::optional<Source> parse_pci_function(std::string_view text) {
    const std::size_t dot = text.rfind('.');
    const std::size_t colon = text.rfind(':', dot);
    if (dot == std::string_view::npos || colon == std::string_view::npos || dot < colon)
        return std::nullopt;
    const std::size_t segment_colon =
        colon == 0 ? std::string_view::npos : text.rfind(':', colon - 1);
    const bool has_segment = segment_colon != std::string_view::npos;
    const std::size_t bus_begin = has_segment ? segment_colon + 1 : 0;
    const auto bus = hex_number(text.substr(bus_begin, colon - bus_begin), 0xff);
    const auto device = hex_number(text.substr(colon + 1, dot - colon - 1), 0x1f);
    const auto function = hex_number(text.substr(dot + 1), 7);
    const auto segment = has_segment ? hex_number(text.substr(0, segment_colon), 0xffff) : 0U;
    if (!bus || !device || !function || !segment)
        return std::nullopt;
    if (!has_segment)
        return Source::pci(*bus, *device, *function);
    return Source::pci(*bus, *device, *function, static_cast<std::uint16_t>(*segment));
}

std::optional<Source> pci_function(const LogEvent& event) {
    if (event.record.source.kind() == Source::Kind::pci)
        return event.record.source;
    if (event.record.source.kind() == Source::Kind::unknown)
        return parse_pci_function(event.device);
    return std::nullopt;
}

void AddressSet::add(std::uint64_t address) {
    if (kept_.size() < most)
        kept_.insert(address);
    else if (!kept_.contains(address))
        ++left_out_;
}

std::vector<AddressRun> AddressSet::runs() const {
    std::vector<AddressRun> runs;
    const std::vector<std::uint64_t> sorted(kept_.begin(), kept_.end());
    for (std::size_t at = 0; at < sorted.size();) {
        std::size_t end = at + 1;
        const std::uint64_t stride = end < sorted.size() ? sorted[end] - sorted[at] : 0;
        while (end < sorted.size() && sorted[end] - sorted[end - 1] == stride)
            ++end;
        if (end - at < 3)
            end = at + 1;
        runs.push_back({.first = sorted[at],
                        .last = sorted[end - 1],
                        .stride = end - at == 1 ? 0 : stride,
                        .count = end - at});
        at = end;
    }
    return runs;
}

void LogGroups::add(const LogEvent& event) {
    const bool has_owner = !active_.empty() || !is_problem(event.kind);
    if (has_owner)
        add_suppressed(event.record.suppressed);
    if (is_problem(event.kind))
        add_problem(event);
    if (!has_owner)
        add_suppressed(event.record.suppressed);
}

void LogGroups::add_problem(const LogEvent& event) {
    std::string key = key_of(event);
    auto found = index_.find(key);
    if (found == index_.end()) {
        if (groups_.size() == most) {
            ++left_out_;
            return;
        }
        found = index_.emplace(std::move(key), groups_.size()).first;
        groups_.push_back({.first = event});
    }
    LogGroup& group = groups_[found->second];
    active_.insert(found->second);
    ++group.count;
    if (event.record.precision != Precision::none && !event.record.where.empty())
        group.addresses.add(event.record.where.start().value());
    if (const auto time = event.record.time_ns) {
        group.begin_ns = std::min(group.begin_ns.value_or(*time), *time);
        group.end_ns = std::max(group.end_ns.value_or(*time), *time);
    }
}

void LogGroups::add_suppressed(std::uint64_t lines) {
    if (lines == 0)
        return;
    if (active_.size() == 1)
        groups_[*active_.begin()].suppressed += lines;
    else
        suppressed_ += lines;
    active_.clear();
}

} // namespace moat::fault
