// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engine of an audit: drives one function with guarded buffers, case by case, and has the judge
// report what it touched. Cases: plan.hpp; placement of buffers: arena.hpp.
#pragma once

#include "audit/arena.hpp"
#include "audit/driver.hpp"
#include "audit/finding.hpp"
#include "audit/plan.hpp"

#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace moat::audit {

/// The phases of an operation that communicate with the machine.
enum class Phase : std::uint8_t { place, run, unmap, faults };

inline constexpr std::size_t phases = 4;

struct Tally {
    std::uint64_t cases = 0;
    std::uint64_t refused = 0; ///< by the device, which reported a failure
    std::uint64_t bytes = 0;   ///< of data in all operations
    std::uint64_t findings = 0;
    std::uint64_t sessions = 0; ///< how often a driver started
    /// Counted if AuditOptions::round_trips is set.
    std::array<std::uint64_t, phases> round_trips{};
};

/// The distance of a buffer from its guard. Within it, reads and single-bit writes go unnoticed;
/// canaries detect other writes.
struct Blind {
    std::string label;
    std::uint64_t before = 0; ///< bytes, the least of all cases
    std::uint64_t after = 0;
};

/// The lifetime of a buffer, for drawing.
struct Lived {
    const Placed& placed;
    std::string_view operation;         ///< that used it; "start" for the driver's own buffers
    std::chrono::nanoseconds placed_at; ///< by the machine's clock
    std::optional<std::chrono::nanoseconds> unmapped_at; ///< nothing for the driver's own buffers
};

struct AuditOptions {
    ByteCount guard{4096};
    Placements placements = Placements::both;
    std::uint64_t seed = 1;
    std::uint64_t first_case = 0;
    /// Exclusive. By default the audit ends when each boundary was tested at each placement.
    std::optional<std::uint64_t> end_case = {};
    Decoys decoys = Decoys::none;
    Guards guards = Guards::unmapped;
    bool records_faults = true; ///< whether the IOMMU records what it blocks, and where
    /// How long the device may run after each operation, and at the end, by the machine's clock:
    /// accesses in that time are late.
    std::chrono::nanoseconds settle{};
    std::chrono::nanoseconds last_settle = std::chrono::milliseconds(1);
    /// Starts the device's driver.
    std::function<Start> probe = audit::probe;
    // Optional callbacks:
    /// Returns a domain that forwards to the function's, and through which its buffers are mapped.
    std::function<std::unique_ptr<machine::Domain>(machine::Domain&)> wrap_domain = {};
    std::function<void(const Finding&)> found = {}; ///< each finding, also repeated ones
    std::function<bool(const Tally&)> goes_on = {}; ///< asked every 16 cases
    std::function<std::uint64_t()> round_trips = {};
    std::function<void(const Lived&)> lived = {}; ///< called before the findings about the buffer
};

struct DeviceReport {
    std::string driver;
    machine::Bdf address;
    Tally tally;
    std::uint64_t first_case = 0;
    std::uint64_t end_case = 0;    ///< exclusive: the case after the last one that ran
    std::vector<Finding> findings; ///< the first of each kind, operation, buffer and side
    std::vector<Blind> blind;
    bool ended_early = false;         ///< the machine failed
    bool caches_translations = false; ///< the device has ATS, and its domain invalidates its cache
};

/// Audits a function that has no other user. Deterministic if the machine is. Errors: those of the
/// machine and of the driver's start.
[[nodiscard]] Result<DeviceReport> audit_function(machine::Machine& machine, machine::Bdf address,
                                                  const AuditOptions& options);

} // namespace moat::audit
