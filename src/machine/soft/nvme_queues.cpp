// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The controller's queues: fetches commands, posts completions, creates and deletes queues.
#include "machine/soft/nvme.hpp"

#include <algorithm>

namespace moat::machine::soft {

namespace {

constexpr std::uint64_t submission_bytes = 64;
constexpr std::uint64_t completion_bytes = 16;

/// Entries of 2^6 and 2^4 bytes, in the configuration register.
[[nodiscard]] bool entry_sizes_are_right(std::uint32_t configuration) {
    return (configuration >> 16 & 0xf) == 6 && (configuration >> 20 & 0xf) == 4;
}

} // namespace

bool Nvme::take_command(BusMaster& bus, unsigned queue) {
    SubmissionQueue& from = submissions_[queue];
    Command command;
    const Iova at(from.base.value() + from.head * submission_bytes);
    if (bus.read(at, std::as_writable_bytes(std::span(command.words))).value() != sizeof command)
        return false;
    from.head = (from.head + 1) % from.entries;
    const std::optional<Outcome> outcome =
        queue == 0 ? run_admin(bus, command) : run_io(bus, command);
    // Only admin commands delete queues, and never the admin queue: `from` stays valid.
    return !outcome || complete(bus, from, queue, command.number(), *outcome);
}

bool Nvme::complete(BusMaster& bus, const SubmissionQueue& from, unsigned queue,
                    std::uint16_t number, Outcome outcome) {
    CompletionQueue& to = completions_[from.completions];
    const std::uint32_t status = static_cast<std::uint32_t>(outcome.status) << 17;
    const std::array<std::uint32_t, 4> entry = {
        outcome.result, 0, from.head | queue << 16,
        number | static_cast<std::uint32_t>(to.phase) << 16 | status};
    const Iova at(to.base.value() + to.tail * completion_bytes);
    if (bus.write(at, std::as_bytes(std::span(entry))).value() != sizeof entry)
        return false;
    to.tail = (to.tail + 1) % to.entries;
    if (to.tail == 0)
        to.phase = !to.phase;
    if (to.interrupts && (masked_ >> std::min(to.vector, 31U) & 1) == 0)
        bus.interrupt(to.vector);
    return true;
}

Nvme::Outcome Nvme::create_completion_queue(const Command& command) {
    const unsigned queue = command.words[10] & 0xffff;
    const unsigned entries = (command.words[10] >> 16) + 1;
    const unsigned vector = command.words[11] >> 16;
    const bool contiguous = (command.words[11] & 1) != 0;
    if (queue == 0 || queue >= most_queues || completions_[queue].entries != 0)
        return {Status::invalid_queue_identifier};
    if (entries < 2 || entries > most_entries)
        return {Status::invalid_queue_size};
    if (vector >= most_queues)
        return {Status::invalid_vector};
    if (!contiguous || command.wide(6) % page_bytes != 0 || !entry_sizes_are_right(configuration_))
        return {Status::invalid_field};
    completions_[queue] = {.base = Iova(command.wide(6)),
                           .entries = entries,
                           .interrupts = (command.words[11] & 2) != 0,
                           .vector = vector};
    return {};
}

Nvme::Outcome Nvme::create_submission_queue(const Command& command) {
    const unsigned queue = command.words[10] & 0xffff;
    const unsigned entries = (command.words[10] >> 16) + 1;
    const unsigned completions = command.words[11] >> 16;
    const bool contiguous = (command.words[11] & 1) != 0;
    if (queue == 0 || queue >= most_queues || submissions_[queue].entries != 0)
        return {Status::invalid_queue_identifier};
    if (completions == 0 || completions >= most_queues || completions_[completions].entries == 0)
        return {Status::completion_queue_invalid};
    if (entries < 2 || entries > most_entries)
        return {Status::invalid_queue_size};
    if (!contiguous || command.wide(6) % page_bytes != 0 || !entry_sizes_are_right(configuration_))
        return {Status::invalid_field};
    submissions_[queue] = {
        .base = Iova(command.wide(6)), .entries = entries, .completions = completions};
    return {};
}

Nvme::Outcome Nvme::delete_completion_queue(const Command& command) {
    const unsigned queue = command.words[10] & 0xffff;
    if (queue == 0 || queue >= most_queues || completions_[queue].entries == 0)
        return {Status::invalid_queue_identifier};
    for (const SubmissionQueue& each : submissions_)
        if (each.entries != 0 && each.completions == queue)
            return {Status::invalid_queue_deletion};
    completions_[queue] = {};
    return {};
}

Nvme::Outcome Nvme::delete_submission_queue(const Command& command) {
    const unsigned queue = command.words[10] & 0xffff;
    if (queue == 0 || queue >= most_queues || submissions_[queue].entries == 0)
        return {Status::invalid_queue_identifier};
    submissions_[queue] = {};
    return {};
}

} // namespace moat::machine::soft
