// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "command/audit_recording.hpp"

#include "command/terminal/output.hpp"
#include "watch/recording_file.hpp"

#include <algorithm>
#include <utility>

namespace moat::tools {

namespace {

using fault::DmaEvent;

/// An unlimited audit records only the first ones.
constexpr std::size_t most_noted = std::size_t{1} << 20;

[[nodiscard]] std::string about(const std::string& file) {
    return "moat audit: --record " + file;
}

} // namespace

AuditRecording::AuditRecording(std::string file)
    : file_(std::move(file)), writer_(or_stop(watch::create_recording(file_, fault::no_symbols),
                                              Exit::bound, about(file_))) {}

void AuditRecording::observe(machine::Machine& machine, audit::AuditOptions& options) {
    machine_ = &machine;
    options.lived = [this, before = options.lived](const audit::Lived& lived) {
        if (before)
            before(lived);
        note_buffer(lived);
    };
    options.found = [this, before = options.found](const audit::Finding& finding) {
        if (before)
            before(finding);
        note_finding(finding);
    };
}

void AuditRecording::note(Noted noted) {
    if (noted_.size() == most_noted)
        ++left_out_;
    else
        noted_.insert({noted.time_ns, noted});
}

void AuditRecording::note_buffer(const audit::Lived& lived) {
    const audit::Placed& placed = lived.placed;
    Noted buffer = {.time_ns = static_cast<std::uint64_t>(lived.placed_at.count()),
                    .range = placed.range,
                    .allows = dma::allows_of(placed.direction),
                    .call = std::string(placed.label),
                    .task = std::string(lived.operation)};
    unmapped_at_.erase(placed.range.start());
    note(buffer);
    if (!lived.unmapped_at)
        return;
    buffer.kind = DmaEvent::Kind::unmap;
    buffer.time_ns = static_cast<std::uint64_t>(lived.unmapped_at->count());
    unmapped_at_[placed.range.start()] = buffer.time_ns;
    note(std::move(buffer));
}

/// The audit collects the faults of an operation after it unmapped the buffers: an access that was
/// not late came before.
void AuditRecording::note_finding(const audit::Finding& finding) {
    Noted fault = {.time_ns = static_cast<std::uint64_t>(machine_->now().count()),
                   .kind = DmaEvent::Kind::fault,
                   .task = finding.operation};
    const auto unmapped = unmapped_at_.find(finding.range.start());
    if (unmapped != unmapped_at_.end() &&
        finding.kind != audit::FindingKind::touched_after_completion)
        fault.time_ns = unmapped->second - std::min<std::uint64_t>(unmapped->second, 1);
    if (finding.record) {
        fault.record = *finding.record;
    } else {
        fault.kind = DmaEvent::Kind::note;
        fault.count = 1;
        fault.call = std::string(name(finding.kind)) + ": \"" + finding.buffer + "\", case " +
                     std::to_string(finding.about.number);
    }
    note(std::move(fault));
}

void AuditRecording::finish(std::string_view driver, machine::Bdf address) {
    const std::string device = machine::to_string(address);
    const auto add = [&](const DmaEvent& event) {
        or_stop(writer_.add(event), Exit::bound, about(file_));
    };
    const std::uint64_t base = end_ns_;
    add({.kind = DmaEvent::Kind::device,
         .time_ns = base,
         .device = device,
         .driver = driver,
         .group = devices_++});
    for (const auto& [time_ns, each] : noted_) {
        end_ns_ = base + time_ns;
        add({.kind = each.kind,
             .time_ns = end_ns_,
             .task = each.task,
             .device = device,
             .call = each.call,
             .range = each.range,
             .allows = each.allows,
             .record = each.record,
             .count = each.count});
    }
    if (left_out_ != 0)
        add({.kind = DmaEvent::Kind::lost, .time_ns = end_ns_, .count = left_out_});
    or_stop(writer_.flush(), Exit::bound, about(file_));
    noted_.clear();
    unmapped_at_.clear();
    left_out_ = 0;
}

} // namespace moat::tools
