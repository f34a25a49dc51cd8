// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/address_space.hpp"

#include <algorithm>
#include <bit>
#include <iterator>

namespace moat::run {

void AddressSpace::map(const MapCall& call) {
    const IovaRange& range = call.map.range;
    if (!failed_.empty())
        std::erase_if(failed_, [&](const MapCall& each) { return each.map.range.overlaps(range); });
    const Live live{
        .range = range, .memory = call.map.memory, .allows = call.map.allows, .mapped = call.event};
    if (spare_) {
        spare_.key() = range.start().value();
        spare_.mapped() = live;
        live_.insert(std::move(spare_));
    } else {
        live_.emplace(range.start().value(), live);
    }
}

void AddressSpace::note_failed(const MapCall& call) {
    if (failed_.size() == most_failed)
        failed_.pop_front();
    failed_.push_back(call);
}

void AddressSpace::unmap(Iova start, const fault::Event& unmapped) {
    const auto found = live_.find(start.value());
    if (found == live_.end())
        return;
    if (past_.size() < most_past)
        past_.push_back({found->second, unmapped});
    else
        past_[unmaps_ % most_past] = {found->second, unmapped};
    ++unmaps_;
    spare_ = live_.extract(found);
}

std::optional<AddressSpace::Piece> AddressSpace::find(Iova at, fault::Access access) const {
    const auto above = live_.upper_bound(at.value());
    if (above == live_.begin())
        return std::nullopt;
    const Live& live = std::prev(above)->second;
    if (live.range.last() < at || !permits(live.allows, access))
        return std::nullopt;
    return Piece{.memory = live.memory + (at.value() - live.range.start().value()),
                 .bytes = live.range.last().value() - at.value() + 1};
}

fault::Diagnosis AddressSpace::diagnose(const fault::Record& record) {
    for (indexed_ = std::max(indexed_, unmaps_ - past_.size()); indexed_ != unmaps_; ++indexed_) {
        const Past& each = past_[indexed_ % most_past];
        index_.note(each.live.mapping(), each.unmapped);
    }
    index_.catch_up();
    return fault::diagnose(*this, index_, record);
}

const MapCall* AddressSpace::failed_at(Iova at) const {
    const auto found =
        std::ranges::find_if(failed_.rbegin(), failed_.rend(),
                             [&](const MapCall& each) { return each.map.range.contains(at); });
    return found == failed_.rend() ? nullptr : &*found;
}

fault::Neighbours AddressSpace::around(Iova at, fault::SearchSteps& steps) const {
    steps.count += std::bit_width(live_.size());
    fault::Neighbours found;
    const auto above = live_.upper_bound(at.value());
    if (above != live_.begin())
        found.at_or_below = std::prev(above)->second.mapping();
    if (above != live_.end())
        found.above = above->second.mapping();
    return found;
}

} // namespace moat::run
