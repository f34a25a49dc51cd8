// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The tracepoint iommu:io_page_fault, followed as it comes, in an instance of tracefs of our own.
// AMD's and Arm's drivers emit it at every fault, without a limit; Intel's and virtio's never do.
// Lines are fault/'s to decode; what the log says beside it is fault_log.hpp's.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/decode.hpp"

#include "platform/file_descriptor.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace moat::machine::vfio_host {

/// Where tracefs is mounted; tests give a folder of their own.
inline constexpr std::string_view tracefs = "/sys/kernel/tracing";

/// Used by one thread at a time.
class FaultTrace {
  public:
    /// Follows the faults of all devices from now on. Takes away what a program that was killed
    /// has left. Errors: not_found (no tracefs there, or a kernel without this tracepoint), refused
    /// (no right), io.
    [[nodiscard]] static Result<FaultTrace> open(std::string_view root = tracefs);

    /// `pipe` gives what a trace_pipe gives, and never blocks.
    explicit FaultTrace(platform::FileDescriptor pipe) : pipe_(std::move(pipe)) {}

    FaultTrace(FaultTrace&& other) noexcept
        : pipe_(std::move(other.pipe_)), instance_(std::exchange(other.instance_, {})),
          rest_(std::move(other.rest_)), has_spoken_(other.has_spoken_) {}

    FaultTrace& operator=(FaultTrace&&) = delete;
    FaultTrace(const FaultTrace&) = delete;
    FaultTrace& operator=(const FaultTrace&) = delete;

    /// The instance goes away with it.
    ~FaultTrace();

    /// Hands out what has come since the last call.
    /// Return: how many events the kernel says it had no room for. Errors: io.
    [[nodiscard]] Result<std::uint64_t> take(fault::Decoder::Sink each);

    /// Whether the driver has emitted one yet, and so emits all.
    [[nodiscard]] bool has_spoken() const { return has_spoken_; }

  private:
    /// Return: how many events the line says are lost.
    std::uint64_t line(std::string_view text, fault::Decoder::Sink each);

    platform::FileDescriptor pipe_;
    std::string instance_; ///< a folder of tracefs; empty: none is ours
    std::string rest_;     ///< the beginning of a line
    bool has_spoken_ = false;
};

} // namespace moat::machine::vfio_host
