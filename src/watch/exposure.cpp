// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "exposure.hpp"

#include "moat/fault/diagnose.hpp"

#include <algorithm>
#include <bit>
#include <iterator>

namespace moat::watch {

namespace {

constexpr std::uint64_t page_bytes = 4096;
constexpr std::size_t kept_unmaps = std::size_t{1} << 20;

[[nodiscard]] std::uint64_t first_page(const IovaRange& range) {
    return range.start().value() / page_bytes;
}

[[nodiscard]] std::uint64_t last_page(const IovaRange& range) {
    return range.last().value() / page_bytes;
}

[[nodiscard]] Spread spread_of(std::vector<std::uint64_t>& numbers) {
    if (numbers.empty())
        return {};
    const auto middle = numbers.begin() + static_cast<std::ptrdiff_t>(numbers.size() / 2);
    std::ranges::nth_element(numbers, middle);
    return {.count = numbers.size(),
            .least = *std::ranges::min_element(numbers.begin(), std::next(middle)),
            .median = *middle};
}

/// The access of `record`, as far from `now` as it was from `then`.
[[nodiscard]] Result<IovaRange> moved(const fault::Record& record, const IovaRange& then,
                                      const IovaRange& now) {
    const bool by_page = record.precision == fault::Precision::page;
    const std::uint64_t unit = by_page ? page_bytes : 1;
    const std::uint64_t from = then.start().value() / unit * unit;
    const std::uint64_t to = now.start().value() / unit * unit;
    return IovaRange::make(Iova(record.where.start().value() - from + to), record.where.size());
}

} // namespace

ExposureMeter::ExposureMeter(const GroupTraffic& traffic, const Policy& policy)
    : traffic_(traffic), policy_(policy), ranges_(traffic.mappings.size()),
      touched_(traffic.mappings.size()), past_(kept_unmaps) {}

fault::Mapping ExposureMeter::mapping_of(std::uint32_t number) const {
    return {.range = ranges_[number],
            .guard_before = policy_.guard_before,
            .guard_after = policy_.guard,
            .allows = traffic_.mappings[number].allows,
            .mapped = {.time_ns = traffic_.mappings[number].mapped_ns, .thread = number}};
}

void ExposureMeter::begin(std::uint32_t number, const IovaRange& range, std::uint64_t time_ns) {
    ++exposure_.maps;
    after_.push_back((last_page(range) + 1) * page_bytes - 1 - range.last().value());
    before_.push_back(range.start().value() % page_bytes);
    note_neighbours(number, range);
    note_reuse(range, time_ns);
    ranges_[number] = range;
    live_.insert_or_assign(range.start().value(), number);
}

void ExposureMeter::note_neighbours(std::uint32_t number, const IovaRange& range) {
    const auto above = live_.upper_bound(range.start().value());
    if (above != live_.end() && first_page(ranges_[above->second]) <= last_page(range) + 1) {
        ++exposure_.adjacent_pairs;
        touched_[number].after = touched_[above->second].before = true;
    }
    if (above == live_.begin())
        return;
    const std::uint32_t below = std::prev(above)->second;
    if (last_page(ranges_[below]) + 1 >= first_page(range)) {
        ++exposure_.adjacent_pairs;
        touched_[number].before = touched_[below].after = true;
    }
}

void ExposureMeter::note_reuse(const IovaRange& range, std::uint64_t time_ns) {
    const IovaRange pages = IovaRange::inclusive(
        Iova(first_page(range) * page_bytes), Iova(last_page(range) * page_bytes + page_bytes - 1));
    past_.catch_up();
    fault::SearchSteps steps;
    const auto latest = past_.around(pages, steps).latest;
    if (!latest)
        return;
    reused_unmaps_.push_back(latest->unmaps_since);
    reused_ns_.push_back(time_ns - std::min(time_ns, latest->unmapped.time_ns));
}

void ExposureMeter::end(std::uint32_t number, std::uint64_t time_ns) {
    const auto found = live_.find(ranges_[number].start().value());
    if (ranges_[number].empty() || found == live_.end() || found->second != number)
        return;
    ++exposure_.unmaps;
    past_.note(mapping_of(number), {.time_ns = time_ns});
    live_.erase(found);
}

fault::Neighbours ExposureMeter::around(Iova at, fault::SearchSteps& steps) const {
    steps.count += std::bit_width(live_.size());
    fault::Neighbours found;
    const auto above = live_.upper_bound(at.value());
    if (above != live_.begin())
        found.at_or_below = mapping_of(std::prev(above)->second);
    if (above != live_.end())
        found.above = mapping_of(above->second);
    return found;
}

/// Return: whether a page of the access is unmapped, or does not allow it.
bool ExposureMeter::is_refused(const fault::Record& record) const {
    std::uint64_t page = first_page(record.where);
    while (page <= last_page(record.where)) {
        const auto above = live_.upper_bound(page * page_bytes + (page_bytes - 1));
        if (above == live_.begin())
            return true;
        const std::uint32_t number = std::prev(above)->second;
        if (last_page(ranges_[number]) < page ||
            !permits(traffic_.mappings[number].allows, record.access))
            return true;
        page = last_page(ranges_[number]) + 1;
    }
    return false;
}

void ExposureMeter::fault(const TrafficFault& fault) {
    if (!fault.mapping || fault.record.where.empty() || ranges_[*fault.mapping].empty() ||
        fault.kind == fault::Kind::mapped_and_allowed)
        return;
    fault::Record record = fault.record;
    const auto where =
        moved(record, traffic_.mappings[*fault.mapping].range, ranges_[*fault.mapping]);
    if (!where) {
        ++exposure_.faults_attributed_elsewhere;
        return;
    }
    record.where = *where;
    if (!is_refused(record)) {
        ++exposure_.faults_silent;
        return;
    }
    past_.catch_up();
    const fault::Diagnosis diagnosis = diagnose(*this, past_, record);
    const fault::Mapping* const blamed = diagnosis.mapping ? &*diagnosis.mapping
                                         : diagnosis.past  ? &diagnosis.past->mapping
                                                           : nullptr;
    ++(blamed != nullptr && blamed->mapped.thread == *fault.mapping
           ? exposure_.faults_attributed
           : exposure_.faults_attributed_elsewhere);
}

Exposure ExposureMeter::finish() {
    exposure_.silent_bytes_after = spread_of(after_);
    exposure_.silent_bytes_before = spread_of(before_);
    exposure_.reused_after_unmaps = spread_of(reused_unmaps_);
    exposure_.reused_after_ns = spread_of(reused_ns_);
    for (std::size_t number = 0; number != ranges_.size(); ++number) {
        const IovaRange& range = ranges_[number];
        if (range.empty())
            continue;
        const bool ends_a_page = (range.last().value() + 1) % page_bytes == 0;
        const bool begins_a_page = range.start().value() % page_bytes == 0;
        exposure_.overruns_refused_at_once += ends_a_page && !touched_[number].after ? 1 : 0;
        exposure_.underruns_refused_at_once += begins_a_page && !touched_[number].before ? 1 : 0;
    }
    return exposure_;
}

} // namespace moat::watch
