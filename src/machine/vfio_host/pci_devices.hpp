// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The PCI functions of this host as sysfs tells of them, and which driver has them.
// Nothing is opened here; VfioMachine and the command's `devices`, `bind` and `unbind` call it.
// Source: Linux, Documentation/ABI/testing/sysfs-bus-pci.
#pragma once

#include "moat/core/result.hpp"

#include "machine/pci.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moat::machine::vfio_host {

/// Where sysfs is mounted; tests give a folder of their own.
inline constexpr std::string_view sysfs = "/sys";

struct HostFunction {
    FunctionInfo info;
    std::string driver;                 ///< empty: none has it
    std::optional<unsigned> group = {}; ///< of the IOMMU; none: no IOMMU is in its way
    std::optional<unsigned> node = {};  ///< of NUMA, where the firmware tells
    bool bridge = false;
};

/// The driver that hands functions to programs.
inline constexpr std::string_view vfio_driver = "vfio-pci";

/// "0000:00:04.0", or "00:04.0" of segment 0. Errors: not_found (no address).
[[nodiscard]] Result<Bdf> parse_bdf(std::string_view text);

/// Every PCI function, in the order of addresses. Errors: not_found (no sysfs with PCI there).
[[nodiscard]] Result<std::vector<HostFunction>> list_functions(std::string_view root = sysfs);

/// Errors: not_found (no such function).
[[nodiscard]] Result<HostFunction> find_function(Bdf address, std::string_view root = sysfs);

/// Takes the function from its driver and gives it to vfio-pci, and nobody else of its kind.
/// Succeeds where that has it already. Errors: not_found (no such function; vfio-pci is not
/// loaded), refused (a bridge; no right to write), unsupported (no IOMMU), busy (the driver does
/// not give it up), io.
[[nodiscard]] Result<void> bind_to_vfio(Bdf address, std::string_view root = sysfs);

/// Takes the function from vfio-pci and lets the kernel choose a driver, if one wants it.
/// Errors: not_found, mismatch (vfio-pci does not have it), refused (no right to write), io.
[[nodiscard]] Result<void> unbind_from_vfio(Bdf address, std::string_view root = sysfs);

} // namespace moat::machine::vfio_host
