// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "reduce.hpp"

#include "follower.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace moat::watch {

using fault::DmaEvent;

namespace {

constexpr std::size_t most_kept_events = std::size_t{1} << 22;
/// Around the fault and its mapping: neighbours beyond have no part in a finding.
constexpr std::uint64_t reach_bytes = std::uint64_t{2} << 20;

/// What a reduction preserves.
struct Verdict {
    fault::Kind kind = fault::Kind::never_mapped;
    fault::Record record = {};
    std::optional<IovaRange> mapping = {};
    std::uint64_t mapped_ns = 0;
    std::string label = {};
    std::string driver = {};
    fault::Side side = fault::Side::inside;
    fault::Distance distance = {};
    std::uint64_t bytes_outside = 0;

    friend bool operator==(const Verdict&, const Verdict&) = default;
};

[[nodiscard]] Verdict verdict_of(const Finding& finding) {
    const fault::Diagnosis& diagnosis = finding.diagnosis;
    Verdict verdict{.kind = diagnosis.kind,
                    .record = diagnosis.record,
                    .driver = std::string(finding.driver),
                    .side = diagnosis.side,
                    .distance = diagnosis.distance,
                    .bytes_outside = diagnosis.bytes_outside};
    const fault::Mapping* const mapping = diagnosis.mapping ? &*diagnosis.mapping
                                          : diagnosis.past  ? &diagnosis.past->mapping
                                                            : nullptr;
    if (mapping != nullptr) {
        verdict.mapping = mapping->range;
        verdict.mapped_ns = mapping->mapped.time_ns;
        verdict.label = mapping->label;
    }
    return verdict;
}

/// Events with the memory of what they view.
class KeptEvents {
  public:
    void add(const DmaEvent& event) {
        DmaEvent& kept = events_.emplace_back(event);
        for (std::string_view* const text : {&kept.task, &kept.device, &kept.call, &kept.driver})
            *text = *texts_.emplace(*text).first;
        kept.stack = *stacks_.emplace(event.stack.begin(), event.stack.end()).first;
    }

    [[nodiscard]] const std::vector<DmaEvent>& all() const { return events_; }

  private:
    std::vector<DmaEvent> events_;
    std::set<std::string> texts_;
    std::set<std::vector<std::uintptr_t>> stacks_;
};

/// The original finding, and the number of events up to its fault.
struct Target {
    Verdict verdict = {};
    std::uint64_t events = 0; ///< of the whole recording
    std::uint64_t last = 0;   ///< the number of the fault's event
};

[[nodiscard]] Result<Target> find_target(EventSource source, std::uint64_t which) {
    Follower follower;
    std::optional<Target> target;
    std::uint64_t events = 0;
    std::uint64_t faults = 0;
    const auto note = [&](const Finding& finding) {
        if (faults++ == which)
            target = {.verdict = verdict_of(finding), .last = events};
    };
    const auto add = [&](const DmaEvent& event) {
        follower.add(event, note);
        ++events;
    };
    MOAT_TRY(source(add));
    if (!target)
        return fail(ErrorCode::not_found, "the recording has no fault of this number",
                    {"number", which}, {"faults", faults});
    target->events = events;
    return *target;
}

/// Whether the last event, a fault, is found as in the whole recording.
[[nodiscard]] bool holds(const std::vector<const DmaEvent*>& events, const Verdict& verdict) {
    Follower follower;
    std::optional<Verdict> last;
    const auto note = [&](const Finding& finding) { last = verdict_of(finding); };
    for (const DmaEvent* const each : events) {
        last.reset();
        follower.add(*each, note);
    }
    return last == verdict;
}

/// Delta debugging; the last event stays.
void minimise(std::vector<const DmaEvent*>& events, const Verdict& verdict) {
    std::size_t chunk = events.size() / 2;
    while (chunk != 0) {
        bool removed = false;
        for (std::size_t begin = 0; begin + 1 < events.size();) {
            const std::size_t end = std::min(begin + chunk, events.size() - 1);
            std::vector<const DmaEvent*> fewer(events.begin(),
                                               events.begin() + static_cast<std::ptrdiff_t>(begin));
            fewer.insert(fewer.end(), events.begin() + static_cast<std::ptrdiff_t>(end),
                         events.end());
            if (holds(fewer, verdict)) {
                events = std::move(fewer);
                removed = true;
            } else {
                begin = end;
            }
        }
        if (chunk > 1)
            chunk /= 2;
        else if (!removed)
            return;
    }
}

[[nodiscard]] bool is_near(const DmaEvent& event, const Verdict& verdict) {
    const auto beside = [&](const IovaRange& range) {
        const std::uint64_t start = event.range.start().value();
        const std::uint64_t low = range.start().value();
        const std::uint64_t high = low + range.size().value();
        return event.range.size().value() >= reach_bytes ||
               start - (low - reach_bytes) <= high - low + 2 * reach_bytes;
    };
    return event.range == IovaRange() || beside(verdict.record.where) ||
           (verdict.mapping && beside(*verdict.mapping));
}

/// The events up to the fault, without other faults; only those near it if `near_only`.
[[nodiscard]] Result<void> keep(EventSource source, const Target& target, bool near_only,
                                KeptEvents& kept) {
    std::uint64_t number = 0;
    bool too_many = false;
    const auto add = [&](const DmaEvent& event) {
        const std::uint64_t at = number++;
        if (at > target.last || (event.kind == DmaEvent::Kind::fault && at != target.last) ||
            (near_only && at != target.last && !is_near(event, target.verdict)))
            return;
        too_many = too_many || kept.all().size() == most_kept_events;
        if (!too_many)
            kept.add(event);
    };
    MOAT_TRY(source(add));
    if (too_many)
        return fail(ErrorCode::limit, "too many events precede the fault",
                    {"most", most_kept_events});
    return {};
}

} // namespace

Result<Reduction> reduce(EventSource source, std::uint64_t which, fault::DmaEventSink sink) {
    MOAT_LET(const auto target, find_target(source, which));
    for (const bool near_only : {true, false}) {
        KeptEvents kept;
        MOAT_TRY(keep(source, target, near_only, kept));
        std::vector<const DmaEvent*> events;
        for (const DmaEvent& each : kept.all())
            events.push_back(&each);
        if (!holds(events, target.verdict))
            continue;
        minimise(events, target.verdict);
        for (const DmaEvent* const each : events)
            sink(*each);
        return Reduction{.events = target.events, .kept = events.size()};
    }
    return fail(ErrorCode::mismatch, "the fault is not found alike without the other faults",
                {"number", which});
}

} // namespace moat::watch
