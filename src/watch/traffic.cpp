// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "traffic.hpp"

#include "follower.hpp"
#include "group_mappings.hpp"

#include <utility>

namespace moat::watch {

namespace {

constexpr std::uint32_t no_mapping = ~std::uint32_t{0};
constexpr ByteCount longest(std::uint64_t{1} << 57);

} // namespace

Traffic::Group& Traffic::group(const GroupMappings& of) {
    const auto [at, is_new] = numbers_.try_emplace(&of, groups_.size());
    if (is_new)
        groups_.emplace_back();
    return groups_[at->second];
}

void Traffic::began(const GroupMappings& of, const LiveMapping& mapping) {
    Group& into = group(of);
    GroupTraffic& traffic = into.traffic;
    const auto number = static_cast<std::uint32_t>(traffic.mappings.size());
    traffic.devices.emplace(mapping.device);
    traffic.mappings.push_back({.range = mapping.mapping.range,
                                .mapped_ns = mapping.mapping.mapped.time_ns,
                                .allows = mapping.mapping.allows,
                                .is_left_out = mapping.mapping.range.size() > longest});
    traffic.steps.push_back({TrafficStep::Kind::begin, number, mapping.mapping.mapped.time_ns});
    auto& starts = mapping.is_allocation ? into.allocations : into.mappings;
    const auto [at, is_new] = starts.try_emplace(mapping.mapping.range.start().value(), number);
    into.before.push_back(is_new ? no_mapping : std::exchange(at->second, number));
}

void Traffic::ended(const GroupMappings& of, const LiveMapping& mapping,
                    const fault::Event& unmapped) {
    Group& into = group(of);
    const auto& starts = mapping.is_allocation ? into.allocations : into.mappings;
    into.traffic.steps.push_back({TrafficStep::Kind::end,
                                  starts.at(mapping.mapping.range.start().value()),
                                  unmapped.time_ns});
}

void Traffic::refined(const GroupMappings& of, const LiveMapping& allocation) {
    Group& into = group(of);
    const std::uint32_t number = into.allocations.at(allocation.mapping.range.start().value());
    into.traffic.mappings[number].is_left_out = true;
}

void Traffic::faulted(const GroupMappings& of, const Finding& finding) {
    Group& into = group(of);
    const fault::Diagnosis& diagnosis = finding.diagnosis;
    TrafficFault fault{.record = diagnosis.record, .kind = diagnosis.kind};
    if (diagnosis.mapping)
        fault.mapping = find(into, *diagnosis.mapping);
    else if (diagnosis.past)
        fault.mapping = find(into, diagnosis.past->mapping);
    GroupTraffic& traffic = into.traffic;
    traffic.steps.push_back({TrafficStep::Kind::fault,
                             static_cast<std::uint32_t>(traffic.faults.size()),
                             diagnosis.record.time_ns.value_or(0)});
    traffic.faults.push_back(fault);
}

std::optional<std::uint32_t> Traffic::find(const Group& group, const fault::Mapping& mapping) {
    for (const auto* const starts : {&group.mappings, &group.allocations}) {
        const auto latest = starts->find(mapping.range.start().value());
        std::uint32_t number = latest == starts->end() ? no_mapping : latest->second;
        for (; number != no_mapping; number = group.before[number]) {
            const TrafficMapping& each = group.traffic.mappings[number];
            if (each.mapped_ns == mapping.mapped.time_ns && each.range == mapping.range)
                return number;
        }
    }
    return std::nullopt;
}

std::vector<GroupTraffic> Traffic::finish() {
    std::vector<GroupTraffic> all;
    for (Group& each : groups_) {
        GroupTraffic& traffic = each.traffic;
        std::erase_if(traffic.steps, [&](const TrafficStep& step) {
            return step.kind != TrafficStep::Kind::fault &&
                   traffic.mappings[step.number].is_left_out;
        });
        all.push_back(std::move(traffic));
    }
    groups_.clear();
    numbers_.clear();
    return all;
}

} // namespace moat::watch
