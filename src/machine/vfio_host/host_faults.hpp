// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// This host's faults: from the kernel's log (/dev/kmsg), and from the tracepoint
// iommu:io_page_fault, which AMD's and Arm's drivers emit at every fault without a limit, Intel's
// and virtio's never. fault/ decodes the lines; VfioMachine calls HostFaults.
#pragma once

#include "moat/fault/decode.hpp"

#include "platform/file_descriptor.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace moat::machine::vfio_host {

/// How many fault interrupts Linux's VT-d driver had, from the text of /proc/interrupts; nothing
/// for other drivers. A lower bound: one interrupt can stand for several faults.
[[nodiscard]] std::optional<std::uint64_t> count_fault_interrupts(const std::string& interrupts);

/// Follows the log, and counts the IOMMU's interrupts, because the log drops lines. Used by one
/// thread at a time.
class FaultLog {
  public:
    /// Follows the running kernel's log from now on. Errors: refused (dmesg_restrict), not_found.
    [[nodiscard]] static Result<FaultLog> open();

    /// `log` returns one record of /dev/kmsg per read and never blocks; `interrupts` is the path of
    /// a file like /proc/interrupts.
    FaultLog(platform::FileDescriptor log, std::string interrupts);

    /// Calls each() for what has come since the last call. Waits up to `patience` for a line that
    /// the count of interrupts announces. Return: how many more faults there were, at least.
    /// Errors: io.
    [[nodiscard]] Result<std::uint64_t>
    take(fault::Decoder::Sink each,
         std::chrono::milliseconds patience = std::chrono::milliseconds(20));

  private:
    /// Return: whether there was a record.
    Result<bool> read_record(fault::Decoder::Sink count_and_hand_out);
    /// If there are interrupts to count, the kernel's number of suppressed lines is not used:
    /// VT-d's driver writes two lines per fault.
    [[nodiscard]] std::uint64_t lost() const;
    bool wait_for_line(std::chrono::steady_clock::time_point until) const;

    platform::FileDescriptor log_;
    std::string interrupts_;
    std::optional<std::uint64_t> interrupts_before_;
    std::optional<std::uint64_t> interrupts_now_;
    std::uint64_t seen_ = 0;       ///< faults with their own line
    std::uint64_t suppressed_ = 0; ///< the kernel's count
    std::uint64_t told_ = 0;       ///< as lost, so far
    fault::Decoder decoder_;
};

/// Where tracefs is mounted; tests use a folder of their own.
inline constexpr std::string_view tracefs = "/sys/kernel/tracing";

/// Follows the tracepoint in a tracefs instance of its own. Used by one thread at a time.
class FaultTrace {
  public:
    /// Follows the faults of all devices from now on, and removes the instances of killed programs.
    /// Errors: not_found (no tracefs, or a kernel without the tracepoint), refused (no right), io.
    [[nodiscard]] static Result<FaultTrace> open(std::string_view root = tracefs);

    /// `pipe` behaves like trace_pipe and never blocks.
    explicit FaultTrace(platform::FileDescriptor pipe) : pipe_(std::move(pipe)) {}

    FaultTrace(FaultTrace&& other) noexcept
        : pipe_(std::move(other.pipe_)), instance_(std::exchange(other.instance_, {})),
          rest_(std::move(other.rest_)), has_spoken_(other.has_spoken_) {}

    FaultTrace& operator=(FaultTrace&&) = delete;

    /// Removes the instance.
    ~FaultTrace();

    /// Calls each() for what has come since the last call. Return: how many events the kernel
    /// dropped. Errors: io.
    [[nodiscard]] Result<std::uint64_t> take(fault::Decoder::Sink each);

    /// Whether the driver has emitted an event, and so emits all.
    [[nodiscard]] bool has_spoken() const { return has_spoken_; }

  private:
    /// Return: how many events the line reports as lost.
    std::uint64_t line(std::string_view text, fault::Decoder::Sink each);

    platform::FileDescriptor pipe_;
    std::string instance_; ///< a folder of tracefs; empty if there is none
    std::string rest_;     ///< an incomplete line
    bool has_spoken_ = false;
};

/// Each fault once. Used by one thread at a time.
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
