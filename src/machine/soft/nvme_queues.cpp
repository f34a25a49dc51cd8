// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The commands that create, delete and count I/O queues: sections 5.3 to 5.6, and 5.21.1.7.
#include "machine/soft/nvme.hpp"

#include <algorithm>

namespace moat::machine::soft {

namespace {

/// Entries of 2^6 and 2^4 bytes, in the configuration register.
[[nodiscard]] bool entry_sizes_are_right(std::uint32_t configuration) {
    return (configuration >> 16 & 0xf) == 6 && (configuration >> 20 & 0xf) == 4;
}

} // namespace

Nvme::Outcome Nvme::create_completion_queue(const Command& command) {
    const unsigned queue = command.words[10] & 0xffff;
    const unsigned entries = (command.words[10] >> 16) + 1;
    const unsigned vector = command.words[11] >> 16;
    const bool contiguous = (command.words[11] & 1) != 0;
    if (queue == 0 || queue > io_completions_)
        return {Status::invalid_queue_identifier};
    if (completions_[queue].entries != 0) {
        remark({.mistake = Mistake::queue_created_twice, .queue = queue, .value = queue});
        return {Status::invalid_queue_identifier};
    }
    if (entries < 2 || entries > most_entries)
        return {Status::invalid_queue_size};
    if (vector >= most_queues)
        return {Status::invalid_vector};
    if (!contiguous || !entry_sizes_are_right(configuration_))
        return {Status::invalid_field};
    if (command.wide(6) % page_bytes != 0)
        return {Status::invalid_prp_offset};
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
    if (queue == 0 || queue > io_submissions_)
        return {Status::invalid_queue_identifier};
    if (submissions_[queue].entries != 0) {
        remark({.mistake = Mistake::queue_created_twice, .queue = queue, .value = queue});
        return {Status::invalid_queue_identifier};
    }
    if (completions == 0 || completions >= most_queues || completions_[completions].entries == 0)
        return {Status::completion_queue_invalid};
    if (entries < 2 || entries > most_entries)
        return {Status::invalid_queue_size};
    if (!contiguous || !entry_sizes_are_right(configuration_))
        return {Status::invalid_field};
    if (command.wide(6) % page_bytes != 0)
        return {Status::invalid_prp_offset};
    submissions_[queue] = {
        .base = Iova(command.wide(6)), .entries = entries, .completions = completions};
    return {};
}

Nvme::Outcome Nvme::delete_completion_queue(const Command& command) {
    const unsigned queue = command.words[10] & 0xffff;
    if (queue == 0 || queue >= most_queues || completions_[queue].entries == 0)
        return {Status::invalid_queue_identifier};
    for (unsigned user = 1; user != most_queues; ++user)
        if (submissions_[user].entries != 0 && submissions_[user].completions == queue) {
            remark({.mistake = Mistake::completions_deleted_first, .queue = queue, .value = user});
            return {Status::invalid_queue_deletion};
        }
    completions_[queue] = {};
    return {};
}

/// Commands that it has not fetched never complete, as 5.6 permits.
Nvme::Outcome Nvme::delete_submission_queue(const Command& command) {
    const unsigned queue = command.words[10] & 0xffff;
    if (queue == 0 || queue >= most_queues || submissions_[queue].entries == 0)
        return {Status::invalid_queue_identifier};
    submissions_[queue] = {};
    return {};
}

Nvme::Outcome Nvme::allocate_queues(const Command& command) {
    const std::uint32_t submissions = command.words[11] & 0xffff; // numbers minus one
    const std::uint32_t completions = command.words[11] >> 16;
    if (submissions == 0xffff || completions == 0xffff)
        return {Status::invalid_field};
    const auto exists = [](const auto& queue) { return queue.entries != 0; };
    if (std::ranges::any_of(std::span(completions_).subspan(1), exists))
        return {Status::command_sequence_error};
    io_submissions_ = std::min(submissions + 1, most_io_queues);
    io_completions_ = std::min(completions + 1, most_io_queues);
    return allocated_queues();
}

Nvme::Outcome Nvme::allocated_queues() const {
    return {.result = (io_submissions_ - 1) | (io_completions_ - 1) << 16};
}

} // namespace moat::machine::soft
