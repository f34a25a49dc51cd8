// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Faults of this host by both of the kernel's ways: its log, and its tracepoint where the IOMMU's
// driver uses it; each fault once. VfioMachine asks it.
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
    /// Without a tracepoint the log is followed alone. Errors: FaultLog::open's.
    [[nodiscard]] static Result<HostFaults> open();

    HostFaults(FaultLog log, std::optional<FaultTrace> trace)
        : log_(std::move(log)), trace_(std::move(trace)) {}

    [[nodiscard]] bool follows_tracepoint() const { return trace_.has_value(); }

    /// Hands out what has come since the last call. A driver that emits the tracepoint does so for
    /// every fault, before its line in the log, which is limited: from its first event on the trace
    /// alone tells. Return: how many more faults there were, at least. Errors: io.
    [[nodiscard]] Result<std::uint64_t>
    take(fault::Decoder::Sink each,
         std::chrono::milliseconds patience = std::chrono::milliseconds(20));

  private:
    FaultLog log_;
    std::optional<FaultTrace> trace_;
};

} // namespace moat::machine::vfio_host
