// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Addresses that reveal their cause; disks and USB controllers.
#include "table.hpp"

namespace moat::fault {

namespace {

constexpr KnownCause device_rows[] = {
    // Addresses that tell their cause.
    {.id = "cpu-address",
     .when = {.kind = EventKind::fault, .address = {0xffff'0000'0000'0000, 0xffff'ffff'ffff'ffff}},
     .verdict = Verdict::device_unusable,
     .cause = "The driver gave the device a CPU virtual address instead of the address that "
              "dma_map_*() returned.",
     .next = "grep -n virt_to_phys in the driver; build the kernel with CONFIG_DMA_API_DEBUG",
     .helps = "none: with the IOMMU off the device would write somewhere else",
     .source = "Linux Documentation/core-api/dma-api-howto.rst, CPU and DMA addresses"},
    {.id = "disk-address-zero",
     .when = {.kind = EventKind::fault, .address = {0, 0xfff}, .storage = true},
     .verdict = Verdict::data_at_risk,
     .cause = "The disk's controller used address 0: a descriptor was never filled in, or was "
              "cleared while the controller read it.",
     .next = "dmesg | grep -i -e 'I/O error' -e nvme -e ata",
     .helps = "none: with the IOMMU off the transfer would reach page 0",
     .source = "NVM Express base specification, PRP entry and list"},
    {.id = "address-zero",
     .when = {.kind = EventKind::fault, .address = {0, 0xfff}},
     .verdict = Verdict::device_unusable,
     .cause = "The device used address 0: its driver never set the address of a ring or buffer, or "
              "cleared it while the device ran.",
     .next = "dmesg | grep {device}    # did the driver bind, or reset the device, just before?",
     .helps = "iommu=pt hides the fault: the device then reads or writes page 0",
     .source = "Linux Documentation/core-api/dma-api-howto.rst"},

    // Disks.
    {.id = "nvme-discard-overread",
     .when = {.kind = EventKind::fault,
              .access = Access::read,
              .drivers = "nvme",
              .after = Milestone::discarded},
     .verdict = Verdict::harmless,
     .cause = "The SSD reads a full page of discard ranges, however few the command has.",
     .next = "fstrim -v /    # does it fault again?",
     .helps = "mount without discard, and stop fstrim.timer; the SSD then slows down as it fills",
     .fix = "Linux allocates the full list since 5.5 (nvme_setup_discard)",
     .source = "Linux 6.12 drivers/nvme/host/core.c, nvme_setup_discard"},
    {.id = "disk-write-refused",
     .when = {.kind = EventKind::fault, .access = Access::read, .storage = true},
     .verdict = Verdict::data_at_risk,
     .cause = "The controller could not read memory: what should have gone to the disk, or its "
              "commands, did not arrive.",
     .next = "dmesg | grep -i -e 'I/O error' -e nvme -e ata; then check the file system",
     .helps = "iommu=pt lets the access through; a stray read then stores other memory on the disk",
     .source = "VT-d specification, fault record, type of request (T)"},
    {.id = "disk-read-refused",
     .when = {.kind = EventKind::fault, .access = Access::write, .storage = true},
     .verdict = Verdict::data_at_risk,
     .cause = "The controller could not write memory: data that was read from the disk did not "
              "arrive, though the disk may have reported success.",
     .next =
         "dmesg | grep -i -e 'I/O error' -e nvme -e ata; compare a large file with its checksum",
     .helps = "iommu=pt lets the access through; a stray write then destroys other memory",
     .source = "VT-d specification, fault record, type of request (T)"},
    {.id = "disk-access-refused",
     .when = {.kind = EventKind::fault, .storage = true},
     .verdict = Verdict::data_at_risk,
     .cause = "The IOMMU refused an access of the disk's controller: data, a command or a "
              "completion was lost.",
     .next = "dmesg | grep -i -e 'I/O error' -e nvme -e ata; then check the file system",
     .helps = "iommu=pt lets the access through; a stray access then reaches other memory",
     .source = "VT-d specification, fault record, type of request (T)"},

    // USB.
    {.id = "xhci-after-death",
     .when = {.kind = EventKind::fault,
              .drivers = "xhci_hcd|xhci-pci",
              .after = Milestone::controller_died},
     .verdict = Verdict::device_unusable,
     .cause = "The driver gave up the USB controller and unmapped its rings, but the controller "
              "still runs.",
     .next = "echo {device} > /sys/bus/pci/drivers/xhci_hcd/unbind, and bind it again",
     .helps = "iommu=pt hides the fault: the controller then writes to memory that others use",
     .source = "Linux 6.12 drivers/usb/host/xhci-ring.c, xhci_hc_died"},
    {.id = "xhci-ring-overfetch",
     .when = {.kind = EventKind::fault, .access = Access::read, .drivers = "xhci_hcd|xhci-pci"},
     .verdict = Verdict::device_unusable,
     .cause = "The USB controller read past the end of a ring, or a ring that was already freed. "
              "Some controllers always prefetch past a ring's last entry.",
     .next = "lspci -nns {device}; dmesg | grep xhci",
     .helps = "iommu=pt hides a prefetch, which is harmless; it hides a stray ring as well",
     .fix = "Linux allocates rings with room behind them for some Zhaoxin and VIA controllers "
            "(XHCI_TRB_OVERFETCH)",
     .source = "Linux 6.12 drivers/usb/host/xhci-pci.c, XHCI_TRB_OVERFETCH"},
    {.id = "usb-not-mapped",
     .when = {.kind = EventKind::fault, .drivers = "xhci_hcd|xhci-pci|ehci-pci|ohci-pci|uhci_hcd"},
     .verdict = Verdict::device_unusable,
     .cause = "The USB controller wrote to a buffer that was already unmapped: a transfer was "
              "cancelled, or a device was removed, while it ran.",
     .next = "dmesg | grep -i -e usb -e xhci",
     .helps = "iommu=pt hides the fault: the write then destroys memory that others use",
     .source = "xHCI specification 1.2, 4.6.9 Stop Endpoint"},
};

} // namespace

constinit const std::span<const KnownCause> device_causes = device_rows;

} // namespace moat::fault
