// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "command/traced_mappings.hpp"

#include <utility>

namespace moat::tools {

using fault::LogEvent;
using fault::Mapping;

void TracedMappings::add(const LogEvent& event) {
    if (event.kind == LogEvent::Kind::mapped)
        map(event);
    else if (event.kind == LogEvent::Kind::unmapped)
        for (const Mapping& gone : erase_overlapping(event.mapping.range))
            history_.note(gone, event.mapping.mapped);
    else
        return;
    any_ = true;
    changed_ = true;
}

void TracedMappings::map(const LogEvent& event) {
    Mapping mapping = event.mapping;
    const std::uint64_t start = mapping.range.start().value();
    if (live_.contains(start) && event.device.empty())
        return; // the dma system's event had more facts
    mapping.label = *labels_.insert(event.device).first;
    erase_overlapping(mapping.range);
    live_.emplace(start, mapping);
}

fault::Diagnosis TracedMappings::diagnose(const fault::Record& record) {
    if (std::exchange(changed_, false)) {
        sorted_.clear();
        for (const auto& [start, mapping] : live_)
            sorted_.push_back(mapping);
        history_.catch_up();
    }
    return fault::diagnose(fault::SortedMappings(sorted_), history_, record);
}

std::vector<Mapping> TracedMappings::erase_overlapping(IovaRange range) {
    std::vector<Mapping> gone;
    auto at = live_.upper_bound(range.start().value());
    if (at != live_.begin())
        --at;
    while (at != live_.end() && at->second.range.start() <= range.last()) {
        if (!at->second.range.overlaps(range)) {
            ++at;
            continue;
        }
        gone.push_back(at->second);
        at = live_.erase(at);
    }
    return gone;
}

} // namespace moat::tools
