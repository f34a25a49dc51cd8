// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What follows from few facts. The last row matches everything.
#include "table.hpp"

namespace moat::fault {

namespace {

constexpr KnownCause general_rows[] = {
    {.id = "peer-to-peer",
     .when = {.kind = EventKind::fault, .lies_in = "BAR"},
     .verdict = Verdict::device_unusable,
     .cause = "The address is a BAR of another device: a peer-to-peer transfer that nobody mapped "
              "for the IOMMU.",
     .next = "lspci -tv    # do both devices share a switch?",
     .helps = "iommu=pt lets it through where the root complex routes it; the device may then "
              "access all memory",
     .source = "Linux Documentation/driver-api/pci/p2pdma.rst"},
    {.id = "physical-address",
     .when = {.kind = EventKind::fault, .after = Milestone::foreign_module},
     .verdict = Verdict::device_unusable,
     .cause = "A module from outside the kernel is loaded. Such drivers often give devices "
              "physical addresses, which worked until an upgrade enabled the IOMMU by default.",
     .next = "cat /proc/cmdline; dmesg | grep -e 'Default domain type' -e taint",
     .helps = "iommu=pt maps memory one to one: interrupt remapping stays, DMA protection does not",
     .fix = "use the vendor's newest driver: it must call dma_map_*()",
     .source = "Linux 6.12 drivers/iommu/intel/Kconfig, INTEL_IOMMU_DEFAULT_ON; "
               "core-api/dma-api-howto.rst"},
    {.id = "device-gone",
     .when = {.kind = EventKind::fault, .after = Milestone::link_lost},
     .verdict = Verdict::device_unusable,
     .cause = "A device was removed or its link went down, and its driver had unmapped its buffers "
              "when late accesses arrived.",
     .next = "dmesg | grep -i -e pciehp -e AER -e 'Link Down'",
     .helps =
         "pcie_aspm=off helps where links go down by themselves; the machine then uses more power",
     .source = "Linux 6.12 drivers/pci/hotplug/pciehp_ctrl.c"},
    {.id = "after-reset",
     .when = {.kind = EventKind::fault, .after = Milestone::reset},
     .verdict = Verdict::device_unusable,
     .cause = "A device was reset and used addresses from before: its driver unmapped the buffers "
              "while the device still had them.",
     .next = "dmesg | grep -i -e reset -e timeout",
     .helps = "iommu=pt hides the fault: the device then writes to memory that others use",
     .source = "Linux Documentation/PCI/pci-error-recovery.rst"},
    {.id = "network-overrun",
     .when = {.kind = EventKind::fault, .access = Access::write, .drivers = network_drivers},
     .verdict = Verdict::data_at_risk,
     .cause = "The network card wrote a packet where no receive buffer is mapped: the buffer was "
              "too short for the packet, or was unmapped before the card was stopped.",
     .next = "ethtool -S INTERFACE | grep -i err; ip link show INTERFACE    # the MTU",
     .helps = "iommu=pt hides the fault: the packet then destroys memory that others use",
     .source = "Linux Documentation/core-api/dma-api-howto.rst"},
    {.id = "network-not-mapped",
     .when = {.kind = EventKind::fault, .drivers = network_drivers},
     .verdict = Verdict::device_unusable,
     .cause = "The network card read a buffer or a descriptor that is not mapped: it was unmapped "
              "before the card had sent it.",
     .next = "ethtool -S INTERFACE | grep -i err; dmesg | grep -i 'transmit queue'",
     .helps = "ethtool -K INTERFACE tso off gso off finds whether large packets cause it; sending "
              "gets slower",
     .source = "Linux Documentation/core-api/dma-api-howto.rst"},
    {.id = "guest-assigned",
     .when = {.kind = EventKind::fault, .drivers = "vfio-pci"},
     .verdict = Verdict::device_unusable,
     .cause = "The device belongs to a guest or program, which gave it an address outside the "
              "memory that it mapped: a guest driver's error, a reset of the guest, or a BAR of "
              "another device.",
     .next = "look at the guest's log at the same time; compare the address with the guest's "
             "memory and BARs",
     .helps = "none: the fault protects the host",
     .source = "Linux Documentation/driver-api/vfio.rst"},
    {.id = "emulated-device",
     .when = {.kind = EventKind::fault, .origin = Origin::qemu},
     .verdict = Verdict::device_unusable,
     .cause = "In the guest, a device of QEMU used an address that the guest's driver had not "
              "mapped or had already unmapped.",
     .next = "look at the guest's log; moat audit --machine qemu checks the device itself",
     .helps = "iommu=pt in the guest hides it",
     .source = "QEMU hw/i386/intel_iommu.c, vtd_report_fault"},
    {.id = "wrong-direction",
     .when = {.kind = EventKind::fault, .origin = Origin::amd, .reason = Reason::permission},
     .verdict = Verdict::device_unusable,
     .cause = "The page is mapped, but not for this access: the driver mapped the buffer with the "
              "wrong direction.",
     .next = "grep -n DMA_TO_DEVICE -e DMA_FROM_DEVICE in the driver",
     .helps = "iommu=pt hides the fault",
     .source = "AMD specification 48882, IO_PAGE_FAULT: PR and PE"},
    {.id = "not-attached",
     .when = {.kind = EventKind::fault, .reason = Reason::not_attached},
     .verdict = Verdict::device_unusable,
     .cause = "The IOMMU has no entry for the device: no driver is bound, the driver was removed "
              "while the device ran, or the device uses another function's requester ID.",
     .next = "lspci -nnks {device}; ls -l /sys/bus/pci/devices/{device}/iommu_group",
     .helps = "iommu=pt lets the device work, without DMA protection",
     .source = "Linux Documentation/arch/x86/iommu.rst, Fault reporting"},
    {.id = "address-too-wide",
     .when = {.kind = EventKind::fault, .reason = Reason::address_size},
     .verdict = Verdict::device_unusable,
     .cause = "The address is wider than the IOMMU or its tables translate: the device, or its "
              "driver, made it up.",
     .next = "dmesg | grep -i -e 'Host address width' -e 'DMA mask'",
     .helps = "iommu.forcedac=0 keeps addresses below 4 GiB where possible",
     .source = "Linux kernel-parameters.txt, iommu.forcedac"},
    {.id = "bad-request",
     .when = {.reason = Reason::bad_request},
     .verdict = Verdict::device_unusable,
     .cause = "The device sent a request of a kind that is not enabled for it: translated by its "
              "own cache (ATS), a page request, or with a PASID.",
     .next = "lspci -vvs {device} | grep -i -e ATS -e PRI -e PASID",
     .helps =
         "pci=noats disables device translation caches; shared virtual memory then does not work",
     .source = "AMD specification 48882, INVALID_DEVICE_REQUEST; kernel-parameters.txt, pci=noats"},
    {.id = "events-lost",
     .when = {.reason = Reason::events_lost},
     .verdict = Verdict::device_unusable,
     .cause = "Faults came faster than the IOMMU or the kernel could record them: the log does not "
              "show all.",
     .next = "grep -i -e dmar -e AMD-Vi /proc/interrupts    # counts the fault interrupts",
     .source = "VT-d specification, fault status register: primary fault overflow"},
    {.id = "ran-past-the-end",
     .when = {.kind = EventKind::fault, .consecutive = true},
     .verdict = Verdict::data_at_risk,
     .cause = "The device accessed consecutive addresses that are not mapped: it ran past the end "
              "of a buffer, or the buffer was unmapped during the transfer.",
     .next = "record the mappings (docs/guides/explain_a_fault.md), and explain the log with them",
     .helps = "iommu=pt hides the fault: the transfer then destroys memory that others use",
     .source = "Linux Documentation/core-api/dma-api-howto.rst"},
    {.id = "write-not-mapped",
     .when = {.kind = EventKind::fault, .access = Access::write},
     .verdict = Verdict::data_at_risk,
     .cause = "The device wrote where its driver had mapped nothing: past a buffer, after "
              "unmapping it, or into a buffer that it may only read.",
     .next = "record the mappings (docs/guides/explain_a_fault.md), and explain the log with them",
     .helps = "iommu=pt hides the fault: the write then destroys memory that others use",
     .source = "Linux Documentation/core-api/dma-api-howto.rst"},
    {.id = "not-mapped",
     .when = {.kind = EventKind::fault},
     .verdict = Verdict::device_unusable,
     .cause = "The device accessed memory that its driver had not mapped, or had already unmapped.",
     .next = "record the mappings (docs/guides/explain_a_fault.md), and explain the log with them",
     .helps = "iommu=pt hides the fault: the access then reaches memory",
     .source = "Linux Documentation/core-api/dma-api-howto.rst"},
    {.id = "unit-error",
     .when = {},
     .verdict = Verdict::device_unusable,
     .cause = "The IOMMU or its driver reported a problem that is not an access.",
     .next = "dmesg | grep -i -e DMAR -e AMD-Vi -e smmu -e iommu",
     .source = "Linux Documentation/arch/x86/iommu.rst, Fault reporting"},
};

} // namespace

constinit const std::span<const KnownCause> general_causes = general_rows;

} // namespace moat::fault
