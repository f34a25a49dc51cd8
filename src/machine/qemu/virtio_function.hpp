// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Finds the virtio-iommu on QEMU's bus and where its structures are.
// Source: virtio 1.2, 4.1.2 "PCI Device Discovery", 4.1.4 "Virtio Structure PCI Capabilities".
#pragma once

#include "moat/iommu/virtio.hpp"

#include "machine/qemu/pci_bus.hpp"

#include <span>

namespace moat::machine::qemu {

struct VirtioFunction {
    PhysicalRange bar;
    iommu::virtio::Layout layout;
};

[[nodiscard]] bool is_virtio_iommu(const PciFunction& function);

/// Lets the virtio-iommu access memory. Return: its structures, which lie in one BAR. Errors:
/// not_found (no such function), unsupported (structures in several BARs, or outside of theirs).
[[nodiscard]] Result<VirtioFunction> enable_virtio_iommu(Qtest& qtest, PhysicalAddress ecam,
                                                         std::span<const PciFunction> functions);

} // namespace moat::machine::qemu
