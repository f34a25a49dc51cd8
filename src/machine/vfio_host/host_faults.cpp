// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/vfio_host/host_faults.hpp"

#include <vector>

namespace moat::machine::vfio_host {

Result<HostFaults> HostFaults::open() {
    auto log = FaultLog::open();
    if (!log)
        return std::unexpected(log.error());
    std::optional<FaultTrace> trace;
    if (auto opened = FaultTrace::open())
        trace.emplace(std::move(*opened));
    return HostFaults(std::move(*log), std::move(trace));
}

Result<std::uint64_t> HostFaults::take(fault::Decoder::Sink each,
                                       std::chrono::milliseconds patience) {
    if (!trace_)
        return log_.take(each, patience);
    // The log first: its faults are in the trace by then.
    std::vector<fault::LogEvent> logged;
    const auto keep = [&](const fault::LogEvent& decoded) { logged.push_back(decoded); };
    const auto lost_by_log = log_.take(keep, patience);
    if (!lost_by_log)
        return lost_by_log;
    const auto lost_by_trace = trace_->take(each);
    if (!lost_by_trace || trace_->has_spoken())
        return lost_by_trace;
    for (const fault::LogEvent& decoded : logged)
        each(decoded);
    return lost_by_log;
}

} // namespace moat::machine::vfio_host
