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
};

inline constexpr std::size_t mistakes = 8;

/// "doorbell-past-queue"
[[nodiscard]] constexpr std::string_view name(Mistake mistake) {
    constexpr std::array<std::string_view, mistakes> names = {
        "enabled-before-queues",     "doorbell-while-disabled",   "doorbell-without-queue",
        "doorbell-past-queue",       "doorbell-past-completions", "queue-created-twice",
        "completions-deleted-first", "invalid-data-pointer"};
    return names[static_cast<std::size_t>(mistake)];
}

/// A sentence without a full stop; `value` is that of the remark.
[[nodiscard]] constexpr std::string_view text(Mistake mistake) {
    constexpr std::array<std::string_view, mistakes> texts = {
        "the driver enabled the controller before it set the registers of the admin queues (value: "
        "the register's offset)",
        "the driver rang a doorbell while the controller was disabled or not ready yet",
        "the driver rang the doorbell of a queue that does not exist",
        "the driver rang a doorbell with an index past the queue's last entry",
        "the driver released completions that the controller has not written yet",
        "the driver created a queue that exists already",
        "the driver deleted a completion queue while submission queues use it (value: one of them)",
        "the driver submitted a command with an invalid data pointer (value: its identifier)"};
    return texts[static_cast<std::size_t>(mistake)];
}

struct Remark {
    Mistake mistake{};
    unsigned queue = 0;
    std::uint64_t value = 0; ///< what the driver wrote, unless text() says otherwise
};

using RemarkSink = std::function<void(const Remark&)>;

} // namespace moat::machine::soft
