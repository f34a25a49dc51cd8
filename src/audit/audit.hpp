// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engine of an audit: drives one function with guarded buffers, case by case, and has the judge
// say what was touched. Which cases: plan.hpp; where buffers lie: arena.hpp.
#pragma once

#include "audit/arena.hpp"
#include "audit/drivers.hpp"
#include "audit/finding.hpp"
#include "audit/plan.hpp"

#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace moat::audit {

/// The parts of an operation that speak to the machine.
enum class Phase : std::uint8_t { place, run, unmap, faults };

inline constexpr std::size_t phases = 4;

struct Tally {
    std::uint64_t cases = 0;
    std::uint64_t refused = 0; ///< by the device: it said that it failed
    std::uint64_t bytes = 0;   ///< of data that the device was told of
    std::uint64_t findings = 0;
    std::uint64_t sessions = 0; ///< how often the driver was started
    /// Where AuditOptions::round_trips counts them.
    std::array<std::uint64_t, phases> round_trips{};
};

/// How near to a guard a buffer lay: what a device reads, or a single bit that it sets, within
/// these bytes is seen by nobody; what it writes there is seen by its canaries.
struct Blind {
    std::string label;
    std::uint64_t before = 0; ///< bytes, at best
    std::uint64_t after = 0;
};

/// A buffer's life, for who draws it.
struct Lived {
    const Placed& placed;
    std::string_view operation;         ///< that needed it; "start" where the driver keeps it
    std::chrono::nanoseconds placed_at; ///< by the machine's clock
    std::optional<std::chrono::nanoseconds> unmapped_at; ///< nothing where the driver keeps it
};

struct AuditOptions {
    ByteCount guard{4096};
    Placements placements = Placements::both;
    std::uint64_t seed = 1;
    std::uint64_t first_case = 0;
    /// Exclusive. Where nothing is said: until each boundary was seen at each placement.
    std::optional<std::uint64_t> end_case = {};
    Decoys decoys = Decoys::none;
    /// How long a device is let run after each operation, by the machine's clock: what it does then
    /// is late. And at the end.
    std::chrono::nanoseconds settle{};
    std::chrono::nanoseconds last_settle = std::chrono::milliseconds(1);
    /// Starts the device's driver.
    std::function<Result<std::unique_ptr<Driver>>(machine::Machine&, machine::Function&,
                                                  BufferSource&)>
        probe = audit::probe;
    // The rest may be left out.
    std::function<void(const Finding&)> found = {}; ///< each, also what was found before
    std::function<bool(const Tally&)> goes_on = {}; ///< asked now and then
    std::function<std::uint64_t()> round_trips = {};
    std::function<void(const Lived&)> lived = {}; ///< before what was found of it
};

struct DeviceReport {
    std::string driver;
    machine::Bdf address;
    Tally tally;
    std::uint64_t first_case = 0;
    std::uint64_t end_case = 0;    ///< exclusive: how far it came
    std::vector<Finding> findings; ///< the first of each kind, operation, buffer and side
    std::vector<Blind> blind;
    bool ended_early = false; ///< the machine is of no use any more
};

/// Audits a function that nobody else uses. Deterministic where the machine is. Errors: those of
/// the machine and of the driver's start: then nothing can be said of the device.
[[nodiscard]] Result<DeviceReport> audit_function(machine::Machine& machine, machine::Bdf address,
                                                  const AuditOptions& options);

} // namespace moat::audit
