// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// HostFaults: this host's faults from the kernel's log and, if the IOMMU's driver uses it, its
// tracepoint; each fault once. VfioMachine calls it.
#pragma once

#include "machine/vfio_host/fault_log.hpp"
#include "machine/vfio_host/fault_trace.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

namespace moat::machine::vfio_host {

/// Used by one thread at a time.
class HostFaults {
  public:
    /// Follows only the log if there is no tracepoint. Errors: FaultLog::open's.
    [[nodiscard]] static Result<HostFaults> open();

    HostFaults(FaultLog log, std::optional<FaultTrace> trace)
        : log_(std::move(log)), trace_(std::move(trace)) {}

    [[nodiscard]] bool follows_tracepoint() const { return trace_.has_value(); }

    /// Calls each() for what has come since the last call. A driver that emits the tracepoint does
    /// so for every fault, before its rate-limited line in the log: from its first event on only
    /// the trace is used. Return: how many more faults there were, at least. Errors: io.
    [[nodiscard]] Result<std::uint64_t>
    take(fault::Decoder::Sink each,
         std::chrono::milliseconds patience = std::chrono::milliseconds(20));

  private:
    FaultLog log_;
    std::optional<FaultTrace> trace_;
};

} // namespace moat::machine::vfio_host
