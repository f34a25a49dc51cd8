// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// TimeOrder: the records of all CPUs in one order. Each CPU's records arrive in order; what is
// older than a cut, which was taken before the last read, no later read can precede. Joins the
// kernel's stack records to the events before them. Pure.
#pragma once

#include "moat/core/function_ref.hpp"

#include "event_format.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace moat::watch {

inline constexpr std::size_t header_bytes = 8;

/// The first fields of each trace record.
struct RecordHeader {
    std::uint16_t id = 0;
    std::uint8_t flags = 0;
    std::uint32_t pid = 0;
};

/// Nothing if the record is too short.
[[nodiscard]] std::optional<RecordHeader> header_of(RecordBytes record);

/// A record that outlives its page, a loss of records, or a line of the log.
struct TracedRecord {
    std::uint64_t time_ns = 0;
    unsigned cpu = 0;
    std::vector<std::byte> bytes = {};
    std::vector<std::uintptr_t> stack = {};
    /// A loss before this time: how many records; 0: unknown. Then there are no bytes.
    std::optional<std::uint64_t> lost = {};
    /// A line of the kernel's log, in place of bytes.
    std::string line = {};
};

class TimeOrder {
  public:
    /// Adds the newest record of its CPU. A time below its predecessor's is raised to it.
    void add(TracedRecord record);

    /// Adds the stack to the CPU's latest record of the same thread and interrupt level that has
    /// none; drops it without such a record.
    void add_stack(unsigned cpu, RecordBytes stack_record, std::span<const std::uint64_t> stack);

    /// Passes on and forgets the records older than `cut_ns`, by time, then by CPU. A record that
    /// is late even so comes first of the next ones.
    void pass(std::uint64_t cut_ns, FunctionRef<void(const TracedRecord&)> sink);

    /// The latest time of a record passed.
    [[nodiscard]] std::uint64_t passed_ns() const { return passed_ns_; }

  private:
    std::vector<std::deque<TracedRecord>> cpus_;
    std::uint64_t passed_ns_ = 0;
};

} // namespace moat::watch
