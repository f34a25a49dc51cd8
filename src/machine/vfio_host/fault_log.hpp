// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// FaultLog: follows the kernel's messages about refused accesses in /dev/kmsg, and counts the
// IOMMU's interrupts, because the log drops lines. fault/ decodes the lines; host_faults.hpp calls.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/decode.hpp"

#include "platform/file_descriptor.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace moat::machine::vfio_host {

/// How many fault interrupts Linux's VT-d driver had, from the text of /proc/interrupts; nothing
/// for other drivers. A lower bound: one interrupt can stand for several faults.
[[nodiscard]] std::optional<std::uint64_t> count_fault_interrupts(const std::string& interrupts);

/// Used by one thread at a time.
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

} // namespace moat::machine::vfio_host
