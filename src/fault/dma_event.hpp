// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// DmaEvent: what happened to a device's mappings, one event at a time. Tracing of a kernel and
// recordings produce them; the follower (watch/follower.hpp) and the replay consume them.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/mapping.hpp"
#include "moat/fault/record.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace moat::fault {

/// A view; its producer keeps the texts and the stack until the consumer returns.
struct DmaEvent {
    enum class Kind : std::uint8_t {
        device,      ///< describes `device`: `driver`, `group`, `translated`; new mappings have
                     ///< guards of `count` bytes
        map,         ///< `range` became mapped
        unmap,       ///< the mapping that starts at `range.start()` ended
        unmap_page,  ///< a mapping of the physical address `physical` ended; its IOVA is unknown
        allocate,    ///< the kernel allocated `range`, whole pages, for mappings
        free,        ///< the allocation that starts at `range.start()` ended; `device` may be empty
        fault,       ///< the IOMMU refused an access: `record`
        fault_count, ///< the IOMMU interrupted `count` times for faults, logged or not
        suppressed,  ///< `count` fault lines were not printed
        lost,        ///< `count` events before this one were lost; 0 if their number is unknown
        removed,     ///< `device` is gone, with all its mappings
        note,        ///< `call` is a sentence about DMA; `count` 1: a warning, 0: a fact
    };

    Kind kind = Kind::map;
    /// Nanoseconds of one monotonic clock for all events of a source.
    std::uint64_t time_ns = 0;
    std::uint32_t thread = 0;     ///< 0 if unknown
    std::string_view task = {};   ///< the thread's name ("kworker/0:1")
    std::string_view device = {}; ///< "0000:00:04.0"
    std::string_view call = {};   ///< the function or trace event ("dma_map_page")
    IovaRange range = {};
    std::optional<std::uint64_t> physical = {};
    Allows allows = Allows::read_write;
    StackView stack = {}; ///< of the call, innermost first; may be empty
    Record record = {};
    std::uint64_t count = 0;
    std::string_view driver = {}; ///< "nvme"
    /// Devices of one group share their addresses; unknown: a group of its own.
    std::optional<std::uint32_t> group = {};
    bool translated = true; ///< false: the IOMMU passes the device's accesses through
};

[[nodiscard]] constexpr std::string_view name(DmaEvent::Kind kind) {
    constexpr std::array<std::string_view, 12> names = {
        "device", "map",         "unmap",      "unmap-page", "allocate", "free",
        "fault",  "fault-count", "suppressed", "lost",       "removed",  "note"};
    return names[static_cast<std::size_t>(kind)];
}

using DmaEventSink = FunctionRef<void(const DmaEvent&)>;

} // namespace moat::fault
