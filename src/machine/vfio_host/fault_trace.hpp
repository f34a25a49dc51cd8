// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// FaultTrace: follows the tracepoint iommu:io_page_fault in a tracefs instance of its own. AMD's
// and Arm's drivers emit it at every fault, without a limit; Intel's and virtio's never do. fault/
// decodes the lines; fault_log.hpp follows the log.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/decode.hpp"

#include "platform/file_descriptor.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace moat::machine::vfio_host {

/// Where tracefs is mounted; tests use a folder of their own.
inline constexpr std::string_view tracefs = "/sys/kernel/tracing";

/// Used by one thread at a time.
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
    FaultTrace(const FaultTrace&) = delete;
    FaultTrace& operator=(const FaultTrace&) = delete;

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

} // namespace moat::machine::vfio_host
