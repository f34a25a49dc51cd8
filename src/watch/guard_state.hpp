// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The state file of the kernel module moat_guard as values: which devices have guards, which do
// not and why, and its counters. Pure; guard_module.hpp reads the file.
#pragma once

#include "watch/trace/pci_devices.hpp"

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moat::watch {

/// An address space that the module knows; devices of a group share one.
struct GuardDomain {
    std::uint64_t number = 0;
    std::uint64_t guard_bytes = 0; ///< after each new mapping; 0: none
    std::uint64_t since_us = 0;    ///< when guards began, on the clock of the kernel's log
    std::uint64_t held_pages = 0;  ///< of live guards
    std::uint64_t limit_pages = 0; ///< that the last mapping could lie in; 0 before the first
    std::uint64_t before = 0;      ///< ranges older than the guards, at most
    std::uint64_t padded = 0;
    std::uint64_t plain = 0;       ///< without a guard: no padded range was free
    std::uint64_t over_budget = 0; ///< without a guard: live guards hold their share
    std::uint64_t restored = 0;
    std::uint64_t missed = 0;

    /// Percent of the addresses that live guards hold.
    [[nodiscard]] double share() const;
};

struct GuardDevice {
    std::string address;
    std::string refused; ///< the module's word; empty if it is not refused
    std::optional<GuardDomain> domain = {};
};

/// Parses the file. The error is a sentence: another version, or the line that is malformed.
[[nodiscard]] std::expected<std::vector<GuardDevice>, std::string>
parse_guard_state(std::string_view text);

/// A device of this host and what the module knows of it.
struct GuardedDevice {
    std::string address;
    PciDevice host;
    std::optional<GuardDomain> domain = {};
    std::string reason; ///< why new mappings have no guard; empty if they have
    /// Faults in the kernel's log since its guards began; nothing if the log cannot be read.
    std::optional<std::uint64_t> faults = {};

    [[nodiscard]] bool is_guarded() const { return reason.empty(); }
};

/// The devices with a driver, by address.
[[nodiscard]] std::vector<GuardedDevice>
guarded_devices(const PciDevices& host, const std::vector<GuardDevice>& known, bool guards_are_on);

/// Counts each device's faults in `log`, records of /dev/kmsg, since its guards began. A lower
/// bound: the kernel limits the rate of such lines, and its log forgets old ones.
void count_faults(std::vector<GuardedDevice>& devices, std::string_view log);

/// Bytes of the guard that the module leaves after a mapping of `range`, if it leaves `guard_bytes`
/// after one page.
[[nodiscard]] std::uint64_t module_guard(const IovaRange& range, std::uint64_t guard_bytes);

} // namespace moat::watch
