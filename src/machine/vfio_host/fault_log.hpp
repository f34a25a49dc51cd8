// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The kernel's own words about refused accesses, followed as they come: /dev/kmsg, and beside it
// the count of the IOMMU's interrupts, because the log is lossy. Lines are fault/'s to decode.
// host_faults.hpp asks it.
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

/// How many interrupts Linux's VT-d driver has had for faults, by the text of /proc/interrupts;
/// none where that driver has none. One can stand for several faults: a lower bound.
[[nodiscard]] std::optional<std::uint64_t> count_fault_interrupts(const std::string& interrupts);

/// Used by one thread at a time.
class FaultLog {
  public:
    /// Follows the log of the running kernel, from now on.
    /// Errors: refused (no right to read: dmesg_restrict), not_found.
    [[nodiscard]] static Result<FaultLog> open();

    /// `log` gives one record of /dev/kmsg a read and never blocks; `interrupts` is the path of
    /// what looks like /proc/interrupts.
    FaultLog(platform::FileDescriptor log, std::string interrupts);

    /// Hands out what has come since the last call. Where the count of interrupts says that a line
    /// is still to come, waits for it for up to `patience`.
    /// Return: how many more faults there were, at least. Errors: io.
    [[nodiscard]] Result<std::uint64_t>
    take(fault::Decoder::Sink each,
         std::chrono::milliseconds patience = std::chrono::milliseconds(20));

  private:
    /// Return: whether there was a record.
    Result<bool> read_record(fault::Decoder::Sink count_and_hand_out);
    /// Where there are interrupts to count, the kernel's own number is none of faults: it counts
    /// each line that it held back, of which VT-d's driver has two a fault.
    [[nodiscard]] std::uint64_t lost() const;
    bool wait_for_line(std::chrono::steady_clock::time_point until) const;

    platform::FileDescriptor log_;
    std::string interrupts_;
    std::optional<std::uint64_t> interrupts_before_;
    std::optional<std::uint64_t> interrupts_now_;
    std::uint64_t seen_ = 0;       ///< faults with a line of their own
    std::uint64_t suppressed_ = 0; ///< by the kernel's own count
    std::uint64_t told_ = 0;       ///< as lost
    fault::Decoder decoder_;
};

} // namespace moat::machine::vfio_host
