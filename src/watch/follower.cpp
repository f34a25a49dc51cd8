// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "follower.hpp"

#include "moat/fault/record.hpp"

#include "group_mappings.hpp"
#include "guard_state.hpp"

#include <algorithm>
#include <set>
#include <utility>

namespace moat::watch {

using fault::DmaEvent;

namespace {

/// "0000:00:04.0" of a device that an event names without a segment.
[[nodiscard]] std::string with_segment(std::string_view device) {
    const bool is_short = device.size() == 7 && device[2] == ':' && device[5] == '.';
    return (is_short ? "0000:" : "") + std::string(device);
}

[[nodiscard]] std::string device_of(const DmaEvent& event) {
    if (!event.device.empty() || event.kind != DmaEvent::Kind::fault)
        return with_segment(event.device);
    return event.record.source.kind() == fault::Source::Kind::unknown
               ? std::string()
               : with_segment(to_string(event.record.source));
}

} // namespace

class Follower::State {
  public:
    explicit State(const FollowerOptions& options) : options_(options) {}

    void add(const DmaEvent& event, FindingSink sink);
    [[nodiscard]] std::vector<DeviceCounts> devices() const;
    void each_live(FunctionRef<void(std::string_view, const fault::Mapping&)> visit) const;
    [[nodiscard]] std::uint64_t overlaps() const;

    std::uint64_t lost = 0;
    std::uint64_t faults = 0;
    std::uint64_t suppressed = 0;
    std::uint64_t interrupts = 0;

  private:
    struct Device {
        std::string driver = {};
        GroupMappings* group = nullptr;
        std::optional<fault::Mapping> last_mapped = {};
        std::uint64_t guard_bytes = 0;
        DeviceCounts counts = {};
    };

    using Devices = std::map<std::string, Device, std::less<>>;

    Devices::iterator device(const DmaEvent& event);
    GroupMappings* group(const std::string& device, std::optional<std::uint32_t> number);
    void describe(const DmaEvent& event);
    void map(const DmaEvent& event);
    void unmap(const DmaEvent& event);
    void free(const DmaEvent& event);
    void remove(const DmaEvent& event);
    void note_loss(const DmaEvent& event);
    void report(const DmaEvent& event, FindingSink sink);
    void add_notes(Finding& finding, const Devices::value_type& faulting) const;
    [[nodiscard]] fault::Event call_of(const DmaEvent& event);
    [[nodiscard]] std::string_view kept(std::string_view text);

    FollowerOptions options_;
    Devices devices_;
    std::map<std::string, GroupMappings, std::less<>> groups_;
    std::set<std::string, std::less<>> texts_;
    std::set<std::vector<std::uintptr_t>> stacks_;
    std::uint64_t began_ns_ = 0;
    std::uint64_t last_loss_ns_ = 0;
};

void Follower::State::add(const DmaEvent& event, FindingSink sink) {
    if (began_ns_ == 0)
        began_ns_ = event.time_ns;
    switch (event.kind) {
    case DmaEvent::Kind::device:
        return describe(event);
    case DmaEvent::Kind::map:
    case DmaEvent::Kind::allocate:
        return map(event);
    case DmaEvent::Kind::unmap:
    case DmaEvent::Kind::unmap_page:
        return unmap(event);
    case DmaEvent::Kind::free:
        return free(event);
    case DmaEvent::Kind::fault:
        return report(event, sink);
    case DmaEvent::Kind::removed:
        return remove(event);
    case DmaEvent::Kind::lost:
        return note_loss(event);
    case DmaEvent::Kind::fault_count:
        interrupts += event.count;
        return;
    case DmaEvent::Kind::suppressed:
        suppressed += event.count;
        return;
    case DmaEvent::Kind::note:
        return;
    }
}

Follower::State::Devices::iterator Follower::State::device(const DmaEvent& event) {
    const std::string name = device_of(event);
    const auto found = devices_.find(name);
    if (found != devices_.end())
        return found;
    Device added{.group = group(name, event.group)};
    added.counts.device = name;
    return devices_.emplace(name, std::move(added)).first;
}

GroupMappings* Follower::State::group(const std::string& device,
                                      std::optional<std::uint32_t> number) {
    const std::string key = number ? "group " + std::to_string(*number) : device;
    return &groups_.try_emplace(key, options_.past, options_.observer).first->second;
}

/// A device keeps the group in which its first event placed it.
void Follower::State::describe(const DmaEvent& event) {
    Device& described = device(event)->second;
    described.driver = event.driver;
    described.counts.driver = event.driver;
    described.guard_bytes = event.count;
    described.counts.translated = event.translated;
}

void Follower::State::map(const DmaEvent& event) {
    const auto found = device(event);
    Device& mapper = found->second;
    ++mapper.counts.maps;
    if (event.range.empty() || !mapper.counts.translated)
        return; // without translation, mappings are physical addresses and may overlap
    LiveMapping added{.device = found->first,
                      .call = kept(event.call),
                      .physical = event.physical,
                      .is_allocation = event.kind == DmaEvent::Kind::allocate};
    added.mapping = {.range = event.range,
                     .guard_after = ByteCount(module_guard(event.range, mapper.guard_bytes)),
                     .allows = event.allows,
                     .label = kept(mapper.driver.empty()
                                       ? std::string(event.call)
                                       : mapper.driver + ": " + std::string(event.call)),
                     .mapped = call_of(event)};
    mapper.last_mapped = added.mapping;
    if (mapper.group->map(added, last_loss_ns_))
        --mapper.counts.maps; // the allocation was counted
}

void Follower::State::unmap(const DmaEvent& event) {
    Device& owner = device(event)->second;
    ++owner.counts.unmaps;
    if (!owner.counts.translated)
        return;
    const Ended ended = event.kind == DmaEvent::Kind::unmap
                            ? owner.group->unmap(event.range, call_of(event))
                            : owner.group->unmap_page(event.physical.value_or(0), call_of(event));
    owner.counts.unknown_unmaps += ended == Ended::unknown ? 1 : 0;
}

/// The kernel's function for this names no device; several groups may have the address.
void Follower::State::free(const DmaEvent& event) {
    const std::uint64_t start = event.range.start().value();
    if (!event.device.empty()) {
        Device& owner = device(event)->second;
        const Ended ended = owner.group->free(start, call_of(event));
        owner.counts.unmaps += ended == Ended::replaced ? 0 : 1;
        owner.counts.unknown_unmaps += ended == Ended::unknown ? 1 : 0;
        return;
    }
    std::vector<GroupMappings*> holders;
    for (auto& [name, group] : groups_)
        if (group.has_allocation(start))
            holders.push_back(&group);
    for (GroupMappings* const holder : holders)
        holders.size() == 1 ? static_cast<void>(holder->free(start, call_of(event)))
                            : holder->doubt_allocation(start);
}

void Follower::State::remove(const DmaEvent& event) {
    const auto found = device(event);
    found->second.group->remove(found->first, call_of(event));
}

void Follower::State::note_loss(const DmaEvent& event) {
    lost += std::max<std::uint64_t>(event.count, 1);
    last_loss_ns_ = event.time_ns;
}

void Follower::State::report(const DmaEvent& event, FindingSink sink) {
    ++faults;
    const auto faulting = device(event);
    fault::Record record = event.record;
    record.time_ns = event.time_ns;
    Finding finding{.diagnosis = faulting->second.group->diagnose(record, options_.diagnose),
                    .device = faulting->first,
                    .driver = faulting->second.driver};
    if (!finding.diagnosis.mapping && !finding.diagnosis.past)
        finding.last_mapped = faulting->second.last_mapped;
    ++faulting->second.counts.faults[finding.diagnosis.kind];
    add_notes(finding, *faulting);
    sink(finding);
    if (options_.observer != nullptr)
        options_.observer->faulted(*faulting->second.group, finding);
}

void Follower::State::add_notes(Finding& finding, const Devices::value_type& faulting) const {
    const fault::Diagnosis& diagnosis = finding.diagnosis;
    const Device& device = faulting.second;
    const auto note = [&](std::string text) { finding.notes.push_back(std::move(text)); };
    if (!device.counts.translated)
        note("the IOMMU passes this device's accesses through, so its mappings are not followed");
    const fault::Mapping* const blamed = diagnosis.mapping ? &*diagnosis.mapping
                                         : diagnosis.past  ? &diagnosis.past->mapping
                                                           : nullptr;
    if (blamed == nullptr) {
        if (device.counts.maps == 0)
            note("no mapping of this device was traced since the watch began");
        else
            note("mappings from before the watch are unknown, and this address may be in one");
        if (last_loss_ns_ != 0)
            note(std::to_string(lost) + " events were lost, and a mapping here may be among them");
        return;
    }
    if (blamed->mapped.time_ns <= last_loss_ns_)
        note(std::to_string(lost) +
             " events were lost after this mapping was made: it may have ended since");
    const LiveMapping* const live = device.group->find(blamed->range.start().value());
    if (!diagnosis.mapping)
        return;
    if (live == nullptr || live->mapping.mapped.time_ns != blamed->mapped.time_ns)
        return note("this mapping ended just before the kernel logged the fault");
    if (live->is_allocation)
        note("this mapping was traced as whole pages: the buffer in it may be shorter");
    if (live->may_have_ended)
        note("the trace does not show whether this mapping or another one ended");
    if (live->device != faulting.first)
        note("the mapping belongs to " + std::string(live->device) +
             ", which shares this device's addresses");
}

fault::Event Follower::State::call_of(const DmaEvent& event) {
    const std::vector<std::uintptr_t> stack(event.stack.begin(), event.stack.end());
    return {.time_ns = event.time_ns,
            .thread = event.thread,
            .stack = stack.empty() ? fault::StackView() : *stacks_.insert(stack).first};
}

std::string_view Follower::State::kept(std::string_view text) {
    const auto found = texts_.find(text);
    return found != texts_.end() ? *found : *texts_.emplace(text).first;
}

std::vector<DeviceCounts> Follower::State::devices() const {
    std::map<std::string_view, DeviceCounts> counts;
    for (const auto& [name, device] : devices_)
        counts.emplace(name, device.counts);
    const auto count = [&](const LiveMapping& live) {
        DeviceCounts& owner = counts[live.device];
        ++owner.live;
        owner.live_bytes += live.mapping.range.size().value();
    };
    for (const auto& [name, group] : groups_)
        group.each_live(count);
    std::vector<DeviceCounts> sorted;
    for (auto& [name, each] : counts)
        sorted.push_back(std::move(each));
    return sorted;
}

std::uint64_t Follower::State::overlaps() const {
    std::uint64_t sum = 0;
    for (const auto& [name, group] : groups_)
        sum += group.overlaps();
    return sum;
}

void Follower::State::each_live(
    FunctionRef<void(std::string_view, const fault::Mapping&)> visit) const {
    for (const auto& [name, group] : groups_) {
        const auto pass_on = [&](const LiveMapping& live) { visit(live.device, live.mapping); };
        group.each_live(pass_on);
    }
}

Follower::Follower(const FollowerOptions& options) : state_(std::make_unique<State>(options)) {}

Follower::Follower(Follower&&) noexcept = default;
Follower& Follower::operator=(Follower&&) noexcept = default;
Follower::~Follower() = default;

void Follower::add(const DmaEvent& event, FindingSink sink) {
    state_->add(event, sink);
}

std::vector<DeviceCounts> Follower::devices() const {
    return state_->devices();
}

std::uint64_t Follower::lost() const {
    return state_->lost;
}

std::uint64_t Follower::faults() const {
    return state_->faults;
}

std::uint64_t Follower::faults_without_line() const {
    const std::uint64_t unlogged =
        state_->interrupts - std::min(state_->interrupts, state_->faults);
    return std::max(state_->suppressed, unlogged);
}

std::uint64_t Follower::overlaps() const {
    return state_->overlaps();
}

void Follower::each_live(
    FunctionRef<void(std::string_view device, const fault::Mapping&)> visit) const {
    state_->each_live(visit);
}

} // namespace moat::watch
