// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "group_mappings.hpp"

#include <algorithm>
#include <bit>
#include <iterator>

namespace moat::watch {

using fault::Diagnosis;
using fault::Kind;

namespace {

/// The trace of an unmap follows the unmap within this time, or it was lost.
constexpr std::uint64_t latest_trace_ns = 1'000'000'000;
/// A device that uses a buffer after its unmap does so within this time; later, an overrun of a
/// living neighbour is likelier.
constexpr std::uint64_t late_access_ns = 250'000'000;
/// The kernel logs a fault within this time. The driver may have unmapped the buffer meanwhile.
constexpr std::uint64_t log_delay_ns = 100'000'000;
/// A page. That neighbour must be as near: in the page beside.
constexpr std::uint64_t beside_bytes = 4096;
constexpr std::size_t most_owed = 1024;

/// The last of `map` that starts at or below `start`; its end if none does.
template <class Map>
[[nodiscard]] auto at_or_below(Map& map, std::uint64_t start) {
    auto above = map.upper_bound(start);
    return above == map.begin() ? map.end() : std::prev(above);
}

[[nodiscard]] bool is_late(const Diagnosis& diagnosis, const fault::PastMapping& past) {
    const std::uint64_t at = diagnosis.record.time_ns.value_or(0);
    return at > past.unmapped.time_ns + late_access_ns;
}

/// What a violation of `past` was if it was unmapped only while the kernel logged the fault.
[[nodiscard]] std::optional<Kind> kind_before_unmap(const Diagnosis& diagnosis,
                                                    const fault::PastMapping& past) {
    if (diagnosis.record.time_ns.value_or(0) > past.unmapped.time_ns + log_delay_ns)
        return std::nullopt;
    if (diagnosis.side != fault::Side::inside)
        return diagnosis.side == fault::Side::right ? Kind::out_of_bounds_right
                                                    : Kind::out_of_bounds_left;
    return permits(past.mapping.allows, diagnosis.record.access) ? std::nullopt
                                                                 : std::optional(Kind::permission);
}

[[nodiscard]] bool lies_beside(const Diagnosis& diagnosis) {
    const bool strayed =
        diagnosis.kind == Kind::out_of_bounds_right || diagnosis.kind == Kind::out_of_bounds_left;
    return strayed && diagnosis.distance.least <= beside_bytes;
}

} // namespace

bool GroupMappings::map(const LiveMapping& added, std::uint64_t last_loss_ns) {
    const std::uint64_t start = added.mapping.range.start().value();
    ByStart& mappings = added.is_allocation ? allocations_ : live_;
    bool refines = false;
    if (added.is_allocation)
        refined_.erase(start);
    else
        refines = refine_allocation(added.mapping.range);
    replace(mappings, added, last_loss_ns);
    check_guards(mappings, mappings.emplace(start, added).first);
    if (added.physical)
        by_physical_.emplace(*added.physical, start);
    if (observer_ != nullptr)
        observer_->began(*this, added);
    return refines;
}

void GroupMappings::replace(ByStart& mappings, const LiveMapping& added,
                            std::uint64_t last_loss_ns) {
    const IovaRange& range = added.mapping.range;
    const std::uint64_t now = added.mapping.mapped.time_ns;
    auto at = at_or_below(mappings, range.start().value());
    if (at == mappings.end())
        at = mappings.begin();
    while (at != mappings.end() && at->first <= range.last().value()) {
        const auto next = std::next(at);
        const LiveMapping& old = at->second;
        if (old.mapping.range.overlaps(range)) {
            if (!added.is_allocation && old.mapping.mapped.time_ns > last_loss_ns)
                owed_.emplace(at->first, Owed{now, old.physical});
            end(mappings, at, {.time_ns = now});
        }
        at = next;
    }
    if (owed_.size() > most_owed)
        drop_expired(now);
}

/// A mapping that lies where a guard was expected shows that there is none: the segments of a list
/// have one after the last only, and moat_guard leaves some mappings plain.
void GroupMappings::check_guards(ByStart& mappings, ByStart::iterator added) {
    const auto check = [](fault::Mapping& below, const fault::Mapping& above) {
        const std::uint64_t pages_on =
            above.range.start().value() / beside_bytes - below.range.last().value() / beside_bytes;
        if (pages_on <= below.guard_after.value() / beside_bytes)
            below.guard_after = {};
    };
    if (added != mappings.begin())
        check(std::prev(added)->second.mapping, added->second.mapping);
    if (const auto above = std::next(added); above != mappings.end())
        check(added->second.mapping, above->second.mapping);
}

/// The pages of a traced mapping were allocated just before: the mapping describes them better.
bool GroupMappings::refine_allocation(const IovaRange& range) {
    const auto allocation = at_or_below(allocations_, range.start().value());
    if (allocation == allocations_.end() || !allocation->second.mapping.range.contains(range))
        return false;
    if (observer_ != nullptr)
        observer_->refined(*this, allocation->second);
    refined_.insert(allocation->first);
    allocations_.erase(allocation);
    return true;
}

Ended GroupMappings::unmap(const IovaRange& range, const fault::Event& unmapped) {
    const std::uint64_t start = range.start().value();
    if (const auto owed = owed_.find(start); owed != owed_.end() && settle(owed, unmapped.time_ns))
        return Ended::replaced;
    const auto found = live_.find(start);
    if (found == live_.end()) // the IOVA API unlinks first, then ends the range
        return refined_.contains(start) ? Ended::replaced : Ended::unknown;
    end(live_, found, unmapped);
    for (auto at = live_.upper_bound(start);
         at != live_.end() && range.contains(at->second.mapping.range);) {
        const auto next = std::next(at);
        end(live_, at, unmapped);
        at = next;
    }
    return Ended::live;
}

/// Return: whether the unmap at `now_ns` is the owed one, which is gone in any case.
bool GroupMappings::settle(OwedUnmaps::iterator owed, std::uint64_t now_ns) {
    const bool in_time = now_ns <= owed->second.since_ns + latest_trace_ns;
    overlaps_ += in_time ? 0 : 1;
    owed_.erase(owed);
    return in_time;
}

void GroupMappings::drop_expired(std::uint64_t now_ns) {
    const std::size_t before = owed_.size();
    std::erase_if(
        owed_, [&](const auto& each) { return now_ns > each.second.since_ns + latest_trace_ns; });
    if (owed_.size() == before)
        owed_.clear();
    overlaps_ += before - owed_.size();
}

Ended GroupMappings::unmap_page(std::uint64_t physical, const fault::Event& unmapped) {
    for (auto owed = owed_.begin(); owed != owed_.end();) {
        const auto next = std::next(owed);
        if (owed->second.physical == physical && settle(owed, unmapped.time_ns))
            return Ended::replaced;
        owed = next;
    }
    const auto [first, last] = by_physical_.equal_range(physical);
    if (first == last)
        return Ended::unknown;
    const auto is_list = [this](const auto& each) {
        return live_.at(each.second).call.find("sg") != std::string_view::npos;
    };
    const auto list = std::find_if(first, last, is_list);
    const std::uint64_t start = (list == last ? first : list)->second;
    if (std::next(first) != last)
        for (auto each = first; each != last; ++each)
            live_.at(each->second).may_have_ended = true;
    end(live_, live_.find(start), unmapped);
    return Ended::live;
}

Ended GroupMappings::free(std::uint64_t start, const fault::Event& freed) {
    if (refined_.erase(start) != 0)
        return Ended::replaced;
    const auto found = allocations_.find(start);
    if (found == allocations_.end())
        return Ended::unknown;
    end(allocations_, found, freed);
    return Ended::live;
}

bool GroupMappings::has_allocation(std::uint64_t start) const {
    return allocations_.contains(start) || refined_.contains(start);
}

void GroupMappings::doubt_allocation(std::uint64_t start) {
    if (const auto found = allocations_.find(start); found != allocations_.end())
        found->second.may_have_ended = true;
}

void GroupMappings::remove(std::string_view device, const fault::Event& removed) {
    for (ByStart* const mappings : {&live_, &allocations_})
        for (auto at = mappings->begin(); at != mappings->end();) {
            const auto next = std::next(at);
            if (at->second.device == device)
                end(*mappings, at, removed);
            at = next;
        }
}

void GroupMappings::end(ByStart& mappings, ByStart::iterator at, const fault::Event& unmapped) {
    if (observer_ != nullptr)
        observer_->ended(*this, at->second, unmapped);
    forget_physical(at->second);
    past_.note(at->second.mapping, unmapped);
    mappings.erase(at);
}

void GroupMappings::forget_physical(const LiveMapping& mapping) {
    if (!mapping.physical)
        return;
    const auto [first, last] = by_physical_.equal_range(*mapping.physical);
    for (auto each = first; each != last; ++each)
        if (each->second == mapping.mapping.range.start().value()) {
            by_physical_.erase(each);
            return;
        }
}

fault::Neighbours GroupMappings::around(Iova at, fault::SearchSteps& steps) const {
    fault::Neighbours found;
    for (const ByStart* const mappings : {&live_, &allocations_}) {
        steps.count += std::bit_width(mappings->size());
        const auto above = mappings->upper_bound(at.value());
        if (above != mappings->begin()) {
            const fault::Mapping& below = std::prev(above)->second.mapping;
            if (!found.at_or_below || found.at_or_below->range.start() < below.range.start())
                found.at_or_below = below;
        }
        if (above != mappings->end() &&
            (!found.above || above->second.mapping.range.start() < found.above->range.start()))
            found.above = above->second.mapping;
    }
    return found;
}

/// Reads past mappings by time: a fault's line comes late, and addresses are reused soon.
Diagnosis GroupMappings::diagnose(const fault::Record& record,
                                  const fault::DiagnoseOptions& options) {
    past_.catch_up();
    Diagnosis diagnosis = fault::diagnose(*this, past_, record, options);
    if (diagnosis.kind == Kind::use_after_unmap)
        return reconsider(diagnosis, options);
    if (diagnosis.kind != Kind::mapped_and_allowed)
        return diagnosis;
    const auto before = past_.around(record.where, diagnosis.steps).latest;
    if (before && !is_late(diagnosis, *before)) {
        diagnosis.kind = Kind::use_after_unmap;
        diagnosis.past = before;
        diagnosis.mapping.reset();
    }
    return diagnosis;
}

Diagnosis GroupMappings::reconsider(Diagnosis diagnosis,
                                    const fault::DiagnoseOptions& options) const {
    if (const auto kind = kind_before_unmap(diagnosis, *diagnosis.past)) {
        diagnosis.kind = *kind;
        diagnosis.mapping = diagnosis.past->mapping;
        diagnosis.past.reset();
        return diagnosis;
    }
    if (!is_late(diagnosis, *diagnosis.past))
        return diagnosis;
    Diagnosis living = fault::diagnose(*this, fault::NoHistory(), diagnosis.record, options);
    if (!lies_beside(living))
        return diagnosis;
    living.past = diagnosis.past;
    return living;
}

const LiveMapping* GroupMappings::find(std::uint64_t start) const {
    for (const ByStart* const mappings : {&live_, &allocations_})
        if (const auto found = mappings->find(start); found != mappings->end())
            return &found->second;
    return nullptr;
}

void GroupMappings::each_live(FunctionRef<void(const LiveMapping&)> visit) const {
    for (const ByStart* const mappings : {&live_, &allocations_})
        for (const auto& [start, mapping] : *mappings)
            visit(mapping);
}

} // namespace moat::watch
