// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The PCI functions of this host and their drivers, from sysfs. Opens no device; VfioMachine and
// the command's `devices`, `bind` and `unbind` call it.
// Source: Linux, Documentation/ABI/testing/sysfs-bus-pci.
#pragma once

#include "moat/core/result.hpp"

#include "machine/pci.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moat::machine::vfio_host {

/// Where sysfs is mounted; tests use a folder of their own.
inline constexpr std::string_view sysfs = "/sys";

struct HostFunction {
    FunctionInfo info;
    std::string driver;                 ///< empty if it has none
    std::optional<unsigned> group = {}; ///< of the IOMMU; nothing without an IOMMU
    std::optional<unsigned> node = {};  ///< of NUMA, if the firmware reports it
    bool bridge = false;
};

/// The driver that gives functions to programs.
inline constexpr std::string_view vfio_driver = "vfio-pci";

/// Parses "0000:00:04.0", or "00:04.0" of segment 0. Errors: not_found (not an address).
[[nodiscard]] Result<Bdf> parse_bdf(std::string_view text);

/// Every PCI function, by address. Errors: not_found (no sysfs with PCI).
[[nodiscard]] Result<std::vector<HostFunction>> list_functions(std::string_view root = sysfs);

/// Errors: not_found (no such function).
[[nodiscard]] Result<HostFunction> find_function(Bdf address, std::string_view root = sysfs);

/// Moves only this function from its driver to vfio-pci; succeeds if it is already there. Errors:
/// not_found (no such function; vfio-pci is not loaded), refused (a bridge; no right to write),
/// unsupported (no IOMMU), busy (the driver does not release it), io.
[[nodiscard]] Result<void> bind_to_vfio(Bdf address, std::string_view root = sysfs);

/// Moves the function from vfio-pci to the driver that the kernel chooses, if any. Errors:
/// not_found, mismatch (not bound to vfio-pci), refused (no right to write), io.
[[nodiscard]] Result<void> unbind_from_vfio(Bdf address, std::string_view root = sysfs);

} // namespace moat::machine::vfio_host
