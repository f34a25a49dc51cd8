// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The machine's PCI devices, as sysfs shows them: drivers, IOMMU groups, and whether the IOMMU
// translates. Sources: Linux, Documentation/ABI/testing/sysfs-bus-pci and
// sysfs-kernel-iommu_groups.
#pragma once

#include "fault/dma_event.hpp"

#include <cstdint>
#include <expected>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace moat::watch {

struct PciDevice {
    std::string driver = {}; ///< empty without one
    std::optional<std::uint32_t> group = {};
    std::uint64_t guard_bytes = 0; ///< that moat_guard leaves after a mapping (add_guards)
    std::string domain = {};       ///< the type of the group's domain: "DMA-FQ"; empty if unknown

    /// False without an IOMMU before it, or if that passes its accesses through.
    [[nodiscard]] bool is_translated() const { return group && domain != "identity"; }

    friend bool operator==(const PciDevice&, const PciDevice&) = default;
};

/// By their names: "0000:00:04.0".
using PciDevices = std::map<std::string, PciDevice, std::less<>>;

[[nodiscard]] PciDevices read_pci_devices(const std::filesystem::path& root);

/// The addresses that `wanted` (addresses, drivers) names. The error is a sentence: one is unknown,
/// or the IOMMU translates none of them.
[[nodiscard]] std::expected<std::vector<std::string>, std::string>
select_devices(const PciDevices& devices, std::span<const std::string> wanted);

/// `selected` and what shares a group with one of them.
[[nodiscard]] std::set<std::string, std::less<>>
with_group_mates(const PciDevices& devices, std::span<const std::string> selected);

/// Passes on an event for each device that is new, changed or gone.
void compare_devices(const PciDevices& before, const PciDevices& now, std::uint64_t time_ns,
                     fault::DmaEventSink sink);

} // namespace moat::watch
