// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What `moat run` passes to its preloaded library, as one line of text in MOAT_RUN, and what comes
// back: counts in shared memory and findings in a file.
#pragma once

#include "moat/core/result.hpp"

#include "machine/pci.hpp"
#include "machine/soft/data_phase.hpp"
#include "machine/soft/face.hpp"
#include "run/vfio_kernel/vfio_kernel.hpp"

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moat::run {

/// A soft device: what it is, where it lies, what it does wrong.
struct DeviceChoice {
    std::string kind = "nvme"; ///< nvme, edu
    machine::Bdf address = {};
    unsigned group = 0;
};

struct Injection {
    std::string name = "none";
    std::uint64_t bytes = 64;
    std::uint64_t after = 0; ///< so many commands or interrupts are right first
};

struct Options {
    std::vector<DeviceChoice> devices;
    Injection inject = {};
    std::uint64_t seed = 1;
    VfioLimits limits = {};
    std::string folder;   ///< the fake /sys and /dev, the file of findings, the tally
    bool redirect = true; ///< paths are redirected: there is no mount namespace
};

[[nodiscard]] std::string to_text(const Options& options);
/// Errors: malformed, with the part that is wrong.
[[nodiscard]] Result<Options> parse_options(std::string_view text);

/// Shared by the program's processes and the command.
struct Tally {
    std::atomic<std::uint64_t> findings;
    std::atomic<std::uint64_t> maps;
    std::atomic<std::uint64_t> live_maps;
    std::atomic<std::uint64_t> live_bytes;
    std::atomic<std::uint64_t> register_accesses;
    std::atomic<std::uint64_t> device_reads; ///< of the program's memory
    std::atomic<std::uint64_t> device_writes;
    std::atomic<std::uint64_t> misdeeds;  ///< injections that happened
    std::atomic<std::uint64_t> processes; ///< that opened a device
};

} // namespace moat::run
