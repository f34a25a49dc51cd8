// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The ring of past mappings and the index over it; history.hpp explains both.
#include "moat/fault/mapping.hpp"

#include <algorithm>
#include <iterator>
#include <optional>

namespace moat::fault {

History::History(std::size_t capacity) : capacity_(capacity == 0 ? 1 : capacity) {}

void History::note(const Mapping& mapping, const Event& unmapped) {
    if (mapping.range.empty())
        return;
    if (ring_.size() < capacity_) {
        ring_.push_back({mapping, unmapped});
    } else {
        Entry& slot = ring_[noted_ % capacity_];
        if (noted_ - capacity_ < indexed_)
            displaced_.push_back(slot.mapping.range);
        slot = {mapping, unmapped};
    }
    ++noted_;
}

void History::catch_up() {
    std::uint64_t sequence = unpainted_;
    for (const IovaRange& range : displaced_)
        unpaint(range, sequence++);
    displaced_.clear();
    unpainted_ = oldest();
    for (sequence = std::max(indexed_, oldest()); sequence != noted_; ++sequence)
        paint(entry(sequence).mapping.range, sequence);
    indexed_ = noted_;
}

std::size_t History::size() const {
    return ring_.size();
}

PastNeighbours History::around(IovaRange range, SearchSteps& steps) const {
    MOAT_CHECK(indexed_ == noted_, "an index that is up to date");
    if (range.empty())
        return {};
    const std::uint64_t first = range.start().value();
    const std::uint64_t last = range.last().value();
    const auto above = runs_.upper_bound(Probe{first, &steps});
    auto run = above;
    if (run != runs_.begin() && std::prev(run)->second.last >= first)
        --run;
    std::optional<std::uint64_t> latest;
    for (unsigned runs = 0; runs != most_runs && run != runs_.end() && run->first <= last; ++runs) {
        ++steps.count;
        latest = std::max(latest.value_or(0), run->second.sequence);
        ++run;
    }
    PastNeighbours found;
    if (latest) {
        found.latest = past(*latest);
        return found;
    }
    if (above != runs_.begin())
        found.below = past(std::prev(above)->second.sequence);
    if (above != runs_.end())
        found.above = past(above->second.sequence);
    return found;
}

void History::verify() const {
    std::uint64_t free_from = 0;
    for (const auto& [start, run] : runs_) {
        MOAT_CHECK(start >= free_from && run.last >= start, "runs are sorted and disjoint");
        MOAT_CHECK(run.sequence >= oldest() && run.sequence < noted_, "a run's mapping is known");
        const IovaRange& range = entry(run.sequence).mapping.range;
        MOAT_CHECK(range.contains(IovaRange::inclusive(Iova(start), Iova(run.last))),
                   "a run lies within its mapping");
        free_from = run.last + 1;
    }
    MOAT_CHECK(runs_.size() <= 2 * ring_.size(), "a mapping adds at most two runs");
}

std::uint64_t History::oldest() const {
    return noted_ - ring_.size();
}

const History::Entry& History::entry(std::uint64_t sequence) const {
    return ring_[sequence % capacity_];
}

PastMapping History::past(std::uint64_t sequence) const {
    const Entry& found = entry(sequence);
    return {found.mapping, found.unmapped, noted_ - 1 - sequence};
}

void History::split(std::uint64_t start) {
    const auto after = runs_.lower_bound(start);
    if (after == runs_.begin())
        return;
    const auto covering = std::prev(after);
    if (covering->second.last < start)
        return;
    runs_.emplace_hint(after, start, covering->second);
    covering->second.last = start - 1;
}

void History::paint(IovaRange range, std::uint64_t sequence) {
    const std::uint64_t first = range.start().value();
    const std::uint64_t last = range.last().value();
    split(first);
    if (last + 1 != 0)
        split(last + 1);
    auto run = runs_.lower_bound(first);
    while (run != runs_.end() && run->first <= last)
        run = runs_.erase(run);
    runs_.emplace_hint(run, first, Run{last, sequence});
}

void History::unpaint(IovaRange range, std::uint64_t sequence) {
    const std::uint64_t last = range.last().value();
    auto run = runs_.lower_bound(range.start().value());
    while (run != runs_.end() && run->first <= last)
        run = run->second.sequence == sequence ? runs_.erase(run) : std::next(run);
}

} // namespace moat::fault
