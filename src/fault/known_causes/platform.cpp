// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Requester IDs of no device, firmware that still runs, sleep, and crash kernels.
#include "table.hpp"

namespace moat::fault {

namespace {

constexpr KnownCause platform_rows[] = {
    // PASIDs, and shared virtual memory.
    {.id = "pasid-directory-empty",
     .when = {.reason = Reason::pasid},
     .verdict = Verdict::device_unusable,
     .cause = "The device sent a process's address (PASID) that is not set up: the process ended, "
              "or no driver enabled shared virtual memory for it.",
     .next = "dmesg | grep -i -e pasid -e sva -e idxd",
     .helps = "intel_iommu=sm_off disables scalable mode; shared virtual memory then does not work",
     .source =
         "VT-d specification, fault reasons 50h to 5Bh; Linux 6.12 drivers/iommu/intel/dmar.c"},

    // Requesters that are not what they seem.
    {.id = "phantom-function",
     .when = {.kind = EventKind::fault, .reason = Reason::not_attached, .vendor = 0x1b4b},
     .verdict = Verdict::device_unusable,
     .cause =
         "This Marvell controller does DMA as function 1, also where that function does not exist.",
     .next = "lspci -nns {device}    # is the ID among those of quirk_dma_func1_alias?",
     .helps = "iommu=pt lets the controller work, without DMA protection",
     .fix = "Linux knows the alias of many of these controllers; a newer kernel may know this one",
     .source = "Linux 6.12 drivers/pci/quirks.c, quirk_dma_func1_alias; kernel bug 42679"},
    {.id = "requester-absent",
     .when = {.kind = EventKind::fault, .absent = true},
     .verdict = Verdict::device_unusable,
     .cause = "No device has this address: a bridge, or a device with a wrong or phantom function, "
              "sends with it.",
     .next = "lspci -tv    # which device is on this bus, or behind the bridge?",
     .helps = "iommu=pt lets the device work, without DMA protection",
     .fix = "the kernel needs a DMA alias for the device: report its ID to linux-pci",
     .source = "Linux 6.12 drivers/pci/quirks.c, quirk_dma_func0_alias, quirk_fixed_dma_alias, "
               "quirk_use_pcie_bridge_dma_alias"},

    {.id = "vmd-disk",
     .when = {.kind = EventKind::fault, .drivers = "vmd"},
     .verdict = Verdict::data_at_risk,
     .cause = "A disk behind a VMD (Volume Management Device) did it: VMD hides disks in a PCI "
              "domain of its own, and they send with its address.",
     .next = "lspci -D | grep ^1000; dmesg | grep -i -e 'I/O error' -e nvme -e vmd",
     .helps = "disable VMD in the firmware: each disk then has an address of its own, and RAID by "
              "VMD stops working",
     .source = "Linux 6.12 drivers/pci/controller/vmd.c"},

    // Firmware and boot.
    {.id = "kdump-copied-tables",
     .when = {.kind = EventKind::fault, .after = Milestone::copied_tables},
     .verdict = Verdict::harmless,
     .cause = "This is a kdump or kexec kernel: a device still ran for the kernel before it, whose "
              "tables the new one copied.",
     .next = "dmesg | grep -i -e kdump -e 'translation'    # the faults stop when the driver "
             "resets the device",
     .helps = "reset_devices on the crash kernel's command line resets devices first",
     .fix = "Linux 6.1 copies scalable-mode tables correctly (\"Fix kdump kernels boot failure "
            "with scalable mode\")",
     .source = "Linux 6.12 drivers/iommu/intel/iommu.c, copy_translation_tables"},
    {.id = "device-table-after-resume",
     .when = {.origin = Origin::amd,
              .texts = "ILLEGAL_DEV_TABLE_ENTRY",
              .after = Milestone::resumed},
     .verdict = Verdict::device_unusable,
     .cause = "After sleep the IOMMU has no valid device-table entry for the device.",
     .next = "dmesg | grep -e 'PM: ' -e AMD-Vi",
     .helps = "iommu=pt avoids it on some machines, without DMA protection",
     .source = "Linux 6.12 drivers/iommu/amd/init.c, amd_iommu_resume"},
    {.id = "fault-after-resume",
     .when = {.kind = EventKind::fault, .after = Milestone::resumed},
     .verdict = Verdict::device_unusable,
     .cause = "The device used an address from before the machine slept: its driver did not set it "
              "up anew.",
     .next = "dmesg | grep -e 'PM: ' -e DMAR -e AMD-Vi",
     .helps = "unbind the driver before sleep and bind it after",
     .source = "Linux Documentation/driver-api/pm/devices.rst"},
    {.id = "rmrr-refused",
     .when = {.kind = EventKind::device_refused, .texts = "RMRR|reserved memory|1:1 IOMMU mapping"},
     .verdict = Verdict::not_started,
     .cause = "The firmware reserves memory for this device (RMRR), for management or USB "
              "emulation; the kernel does not give such a device away.",
     .next = "dmesg | grep RMRR; look for the vendor's setting (\"shared memory\", \"HP Shared "
             "Memory features\")",
     .helps = "no kernel parameter is safe: the firmware's own DMA would go to the guest's memory",
     .source = "Linux 6.12 drivers/iommu/intel/iommu.c, device_rmrr_is_relaxable"},
    {.id = "firmware-still-active",
     .when = {.kind = EventKind::fault, .reason = Reason::not_attached, .before_s = 10},
     .verdict = Verdict::harmless,
     .cause = "The firmware left the device running, and no driver has set it up yet.",
     .next = "dmesg | grep {device}    # the faults stop when the driver binds",
     .helps = "efi=disable_early_pci_dma stops devices at boot; some firmware does not bear that",
     .source = "Linux kernel-parameters.txt, efi=disable_early_pci_dma"},
    {.id = "legacy-usb",
     .when = {.kind = EventKind::fault,
              .drivers = "hpilo|ehci-pci|uhci_hcd|ohci-pci",
              .before_s = 60},
     .verdict = Verdict::harmless,
     .cause = "The firmware uses the device (USB keyboard emulation, a management controller) and "
              "does not report its memory as reserved.",
     .next = "dmesg | grep RMRR",
     .helps = "disable legacy USB in the firmware; a firmware update adds the RMRR",
     .source = "Linux Documentation/arch/x86/iommu.rst, What is Intel RMRR?"},
    {.id = "scanned-at-boot",
     .when = {.kind = EventKind::fault, .before_s = 3},
     .verdict = Verdict::harmless,
     .cause = "The firmware left the device running: it still used the firmware's buffers when the "
              "kernel enabled the IOMMU.",
     .next = "dmesg | grep {device}    # the faults stop when the driver binds",
     .helps = "efi=disable_early_pci_dma stops devices at boot; some firmware does not bear that",
     .source = "Linux 6.12 drivers/firmware/efi/libstub/pci.c, efi_pci_disable_bridge_busmaster"},
};

} // namespace

constinit const std::span<const KnownCause> platform_causes = platform_rows;

} // namespace moat::fault
