// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Recordings in memory, and events that own what they view, for tests.
#pragma once

#include "moat/core/text.hpp"

#include "fault/recording.hpp"

#include <algorithm>
#include <cstdint>
#include <gtest/gtest.h>
#include <span>
#include <string>
#include <vector>

namespace moat::fault {

using FileBytes = std::vector<std::uint8_t>;

[[nodiscard]] inline WriteBytes write_to(FileBytes& file) {
    return [&file](std::span<const std::uint8_t> bytes) -> Result<void> {
        file.insert(file.end(), bytes.begin(), bytes.end());
        return {};
    };
}

/// Reads `file`, which may grow meanwhile, at most `step` bytes a call.
[[nodiscard]] inline ReadBytes read_from(const FileBytes& file, std::size_t step = 1 << 20) {
    return [&file, step,
            at = std::size_t{0}](std::span<std::uint8_t> bytes) mutable -> Result<std::size_t> {
        const std::size_t count = std::min({bytes.size(), step, file.size() - at});
        std::copy_n(file.begin() + static_cast<std::ptrdiff_t>(at), count, bytes.begin());
        at += count;
        return count;
    };
}

/// An event and the memory of its texts and stack.
struct OwnedEvent {
    OwnedEvent() = default;

    explicit OwnedEvent(const DmaEvent& of)
        : event(of), task(of.task), device(of.device), call(of.call), driver(of.driver),
          stack(of.stack.begin(), of.stack.end()) {}

    [[nodiscard]] DmaEvent view() const {
        DmaEvent viewed = event;
        viewed.task = task;
        viewed.device = device;
        viewed.call = call;
        viewed.driver = driver;
        viewed.stack = stack;
        return viewed;
    }

    DmaEvent event = {};
    std::string task;
    std::string device;
    std::string call;
    std::string driver;
    std::vector<std::uintptr_t> stack;
};

[[nodiscard]] inline bool same(const DmaEvent& a, const DmaEvent& b) {
    return a.kind == b.kind && a.time_ns == b.time_ns && a.thread == b.thread && a.task == b.task &&
           a.device == b.device && a.call == b.call && a.range == b.range &&
           a.physical == b.physical && a.allows == b.allows &&
           std::ranges::equal(a.stack, b.stack) && a.record == b.record && a.count == b.count &&
           a.driver == b.driver && a.group == b.group && a.translated == b.translated;
}

[[nodiscard]] inline FileBytes recording_of(const std::vector<OwnedEvent>& events,
                                            Symbolise symbolise = no_symbols) {
    FileBytes file;
    RecordingWriter writer(write_to(file), symbolise);
    for (const OwnedEvent& each : events)
        if (const auto added = writer.add(each.view()); !added)
            ADD_FAILURE() << added.error();
    if (const auto flushed = writer.flush(); !flushed)
        ADD_FAILURE() << flushed.error();
    return file;
}

} // namespace moat::fault
