// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Interrupt messages that remapping blocked, or that came as DMA.
#include "table.hpp"

namespace moat::fault {

namespace {

constexpr KnownCause interrupt_rows[] = {
    {.id = "amd-eoi-write",
     .when = {.origin = Origin::amd,
              .reason = Reason::bad_request,
              .address = {0xfd'f800'0000, 0xffff'ffff'ffff'ffff}},
     .verdict = Verdict::harmless,
     .cause = "A device or the chipset sent an interrupt or end-of-interrupt message that the "
              "device table does not allow; the IOMMU blocked the message.",
     .next =
         "dmesg | grep -e AMD-Vi -e IVRS    # does the firmware's IVRS table list the I/O APIC?",
     .helps = "a firmware update corrects the IVRS table; ivrs_ioapic[ID]=BUS:DEV.FN overrides it "
              "until then",
     .source =
         "AMD I/O Virtualization Technology (IOMMU) Specification 48882, INVALID_DEVICE_REQUEST"},
    {.id = "amd-interrupt-message",
     .when = {.origin = Origin::amd, .address = {0xffff'fffd'f800'0000, 0xffff'fffd'ffff'ffff}},
     .verdict = Verdict::device_unusable,
     .cause =
         "The device sent an interrupt message, and its device-table entry is not valid or does "
         "not allow interrupts.",
     .next = "dmesg | grep -e AMD-Vi -e IVRS; grep . /proc/interrupts",
     .helps = "a firmware update, if the IVRS table lacks the device; intremap=off accepts every "
              "interrupt message",
     .source = "AMD specification 48882, 2.1.4.2 Interrupt and EOI address range"},
    {.id = "intremap-entry-absent",
     .when = {.reason = Reason::interrupt, .codes = {0x22}},
     .verdict = Verdict::device_unusable,
     .cause = "A device raised an interrupt for which the kernel has no remapping entry: it kept "
              "an old vector from before a reset, a kexec or the removal of its driver.",
     .next = "grep . /proc/interrupts; dmesg | grep -i remap",
     .helps = "intremap=off accepts every interrupt message; guests with devices can then inject "
              "interrupts",
     .source = "VT-d specification, fault reason 22h; Linux 6.12 drivers/iommu/intel/dmar.c"},
    {.id = "intremap-blocked-compatibility",
     .when = {.reason = Reason::interrupt, .codes = {0x25}},
     .verdict = Verdict::device_unusable,
     .cause = "A device sent an interrupt in the old format, which interrupt remapping blocks: "
              "software wrote its MSI registers without the kernel.",
     .next = "lspci -vvs {device} | grep MSI",
     .helps = "intremap=off accepts every interrupt message; guests with devices can then inject "
              "interrupts",
     .source = "VT-d specification, fault reason 25h; Linux 6.12 drivers/iommu/intel/dmar.c"},
    {.id = "intremap-wrong-source",
     .when = {.reason = Reason::interrupt, .codes = {0x26}},
     .verdict = Verdict::device_unusable,
     .cause = "An interrupt came from another requester than its remapping entry allows: a bridge "
              "or another function sends it for the device.",
     .next = "lspci -tv    # which bridge is above the device?",
     .helps = "intremap=nosid disables the check; a device can then imitate another's interrupts",
     .source = "VT-d specification, fault reason 26h; Linux kernel-parameters.txt, intremap="},
    {.id = "intremap-other",
     .when = {.reason = Reason::interrupt},
     .verdict = Verdict::device_unusable,
     .cause = "The IOMMU blocked an interrupt message of the device.",
     .next = "grep . /proc/interrupts; dmesg | grep -i -e remap -e MSI",
     .helps = "intremap=off accepts every interrupt message; guests with devices can then inject "
              "interrupts",
     .source = "Linux kernel-parameters.txt, intremap="},
    {.id = "msi-as-dma",
     .when = {.kind = EventKind::fault,
              .access = Access::write,
              .address = {0xfee0'0000, 0xfeef'ffff}},
     .verdict = Verdict::device_unusable,
     .cause = "The device wrote an x86 interrupt message (0xfee00000-0xfeefffff) that the IOMMU "
              "took for DMA.",
     .next = "lspci -vvs {device} | grep MSI",
     .helps = "intremap=off compares; guests with devices can then inject interrupts",
     .source = "Linux Documentation/arch/x86/iommu.rst, Some exceptions to IOVA"},
};

} // namespace

constinit const std::span<const KnownCause> interrupt_causes = interrupt_rows;

} // namespace moat::fault
