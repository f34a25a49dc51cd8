// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A device's data sheet: how far and how long it accesses memory around its buffers, measured by
// moving guards away from them in space and in time. docs/design/audit.md explains each cell.
#pragma once

#include "audit/audit.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moat::audit {

enum class Measure : std::uint8_t {
    read_before, ///< bytes before the buffer's first one
    read_after,
    write_before,
    write_after,
    rest_of_page,        ///< bytes written in the buffer's own pages, outside of it
    granularity,         ///< bytes that a write transfers, or loses at a guard, at once
    late,                ///< microseconds from completion to the last access
    late_after_deletion, ///< from the deletion of its queue
    late_after_stop,     ///< from the end of the driver, which disables the device
    late_after_master,   ///< from bus mastering off
    late_after_reset,    ///< from a reset of the function
    order,               ///< "data-first" or "completion-first"
    says_if_blocked,     ///< "success", "failure", "no-answer"
    recovery,            ///< after a fault: "next-works", "needs-restart", "needs-reset", "dead"
};

inline constexpr std::size_t measures = 14;

enum class Unit : std::uint8_t { bytes, microseconds, word };

[[nodiscard]] std::string_view name(Measure measure);
[[nodiscard]] Unit unit_of(Measure measure);

struct Cell {
    Measure what = Measure::read_before;
    /// A number: the true one is in [value, value + resolution].
    std::optional<std::uint64_t> value = {};
    std::uint64_t resolution = 0;
    std::string word = {};       ///< of Unit::word
    std::string cannot_see = {}; ///< why there is neither; or what the number leaves out
};

/// The cells of one operation's access to one kind of buffer.
struct Row {
    std::string operation; ///< "any" for the buffers of the driver
    std::string buffer;    ///< a label
    std::vector<Cell> cells;
};

struct Sheet {
    std::string driver;
    std::vector<Row> rows;
    bool caches_translations = false; ///< as in DeviceReport
};

/// How far cells look.
inline constexpr std::uint64_t sheet_reach = std::uint64_t{64} << 10;

/// Measures a function that has no other user, with the hooks, decoys and settle time of
/// `options`. Errors: those of the machine and of the driver's start.
[[nodiscard]] Result<Sheet> measure(machine::Machine& machine, machine::Bdf address,
                                    const AuditOptions& options);

} // namespace moat::audit
