// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Remarks: mistakes of a driver that its device notices and most devices ignore. The device acts as
// its specification requires; a remark changes nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

namespace moat::machine::soft {

enum class Mistake : std::uint8_t {
    enabled_before_queues,
    doorbell_while_disabled,
    doorbell_without_queue,
    doorbell_past_queue,
    doorbell_past_completions,
    queue_created_twice,
    completions_deleted_first,
    invalid_data_pointer,
    available_past_queue,
    invalid_descriptors,
    invalid_frame_length,
    receive_buffer_too_short,
};

inline constexpr std::size_t mistakes = 12;

/// "doorbell-past-queue"
[[nodiscard]] constexpr std::string_view name(Mistake mistake) {
    constexpr std::array<std::string_view, mistakes> names = {
        "enabled-before-queues",     "doorbell-while-disabled",   "doorbell-without-queue",
        "doorbell-past-queue",       "doorbell-past-completions", "queue-created-twice",
        "completions-deleted-first", "invalid-data-pointer",      "available-past-queue",
        "invalid-descriptors",       "invalid-frame-length",      "receive-buffer-too-short"};
    return names[static_cast<std::size_t>(mistake)];
}

/// A sentence without a full stop; `value` is that of the remark.
[[nodiscard]] constexpr std::string_view text(Mistake mistake) {
    constexpr std::array<std::string_view, mistakes> texts = {
        "the driver enabled the device before it set up its queues (value: the offset of a "
        "register "
        "that is not set)",
        "the driver rang a doorbell while the device was disabled or not ready yet",
        "the driver rang the doorbell of a queue that does not exist",
        "the driver rang a doorbell with an index past the queue's last entry",
        "the driver released completions that the controller has not written yet",
        "the driver created a queue that exists already",
        "the driver deleted a completion queue while submission queues use it (value: one of them)",
        "the driver submitted a command with an invalid data pointer (value: its identifier)",
        "the driver made more buffers available than the queue has entries",
        "the driver submitted a loop of descriptors, or one past the table, or of the wrong "
        "direction (value: the first)",
        "the driver submitted a frame that is empty or too long (value: its first descriptor)",
        "the driver gave a receive buffer that is shorter than the frame (value: its first "
        "descriptor)"};
    return texts[static_cast<std::size_t>(mistake)];
}

struct Remark {
    Mistake mistake{};
    unsigned queue = 0;
    std::uint64_t value = 0; ///< what the driver wrote, unless text() says otherwise
};

using RemarkSink = std::function<void(const Remark&)>;

} // namespace moat::machine::soft
