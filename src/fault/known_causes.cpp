// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The table of known causes. A row needs a source, and a test in tests/fault/known_causes_test.cpp.
// The first row that matches wins: special rows come before general ones.
#include "known_cause.hpp"

#include <algorithm>
#include <string>

namespace moat::fault {

namespace {

using Kind = LogEvent::Kind;

constexpr std::string_view storage_drivers = "nvme|ahci|mpt3sas|mpt2sas|megaraid_sas|hpsa|smartpqi|"
                                             "aacraid|mvsas|isci|sata_sil24|ata_piix|ufshcd";
constexpr std::string_view network_drivers =
    "e1000e|e1000|igb|igc|ixgbe|i40e|ice|r8169|tg3|bnx2x|bnxt_en|"
    "mlx4_core|mlx5_core|atlantic|alx|iwlwifi|ath10k_pci|ath11k_pci|"
    "mt7921e|rtw89_8852be";
constexpr std::string_view gpu_drivers = "amdgpu|radeon|nouveau|nvidia|i915|xe";

constexpr std::array causes = {
    // Graphics.
    KnownCause{.id = "igd-guest-stale-framebuffer",
               .when = {.kind = Kind::fault,
                        .origin = Origin::intel,
                        .device = "00:02.0",
                        .drivers = "vfio-pci"},
               .verdict = Verdict::harmless,
               .cause = "The integrated GPU is assigned to a guest and still reads a framebuffer "
                        "of the host or of an "
                        "earlier guest.",
               .next =
                   "lspci -nnk -s 00:02.0    # the faults stop when the guest's driver sets a mode",
               .helps = "initcall_blacklist=sysfb_init keeps the host off the framebuffer; the "
                        "host then has no boot "
                        "console",
               .source = "QEMU docs/igd-assign.txt"},
    KnownCause{
        .id = "igd-firmware-scanout",
        .when = {.kind = Kind::fault,
                 .origin = Origin::intel,
                 .access = Access::read,
                 .device = "00:02.0",
                 .before_s = 10},
        .verdict = Verdict::harmless,
        .cause = "The firmware left the integrated GPU's display on: the GPU read the boot "
                 "framebuffer until its "
                 "driver took over.",
        .next = "dmesg | grep -i -e i915 -e drm    # the faults stop where the driver takes over",
        .helps = "intel_iommu=igfx_off silences them; the GPU may then access all memory",
        .source = "Linux Documentation/arch/x86/iommu.rst, Graphics Problems?"},
    KnownCause{.id = "igd-not-mapped",
               .when = {.kind = Kind::fault, .origin = Origin::intel, .device = "00:02.0"},
               .verdict = Verdict::device_unusable,
               .cause = "The integrated GPU accessed memory that its driver had not mapped, or had "
                        "already unmapped.",
               .next = "dmesg | grep -i -e i915 -e 'GPU HANG'",
               .helps = "intel_iommu=igfx_off excludes only the GPU; it may then access all memory",
               .fix = "Linux excludes the GPUs that are known to fail (Broadwell, Ironlake, G4x); "
                      "use a current kernel",
               .source = "Linux 6.12 drivers/iommu/intel/iommu.c, quirk_iommu_igfx"},
    KnownCause{
        .id = "xen-igd",
        .when = {.kind = Kind::fault, .origin = Origin::xen, .device = "00:02.0"},
        .verdict = Verdict::harmless,
        .cause = "The firmware's framebuffer lies outside the memory that Xen maps for the "
                 "integrated GPU.",
        .next = "xl dmesg | grep -i -e vt-d -e rmrr    # is the framebuffer among the RMRRs?",
        .helps =
            "iommu=no-igfx on Xen's command line excludes the GPU; it may then access all memory",
        .source = "Xen docs/misc/xen-command-line, iommu: igfx"},
    KnownCause{
        .id = "gpu-firmware-scanout",
        .when =
            {.kind = Kind::fault, .access = Access::read, .drivers = gpu_drivers, .before_s = 10},
        .verdict = Verdict::harmless,
        .cause = "The GPU still read the firmware's framebuffer when the IOMMU was enabled.",
        .next = "dmesg | grep -i drm    # the faults stop where the driver sets up the display",
        .helps =
            "iommu=pt maps memory one to one: interrupt remapping stays, DMA protection does not",
        .source = "Linux Documentation/arch/x86/iommu.rst, AMD Specific Notes"},
    KnownCause{.id = "display-firmware-scanout",
               .when = {.kind = Kind::fault,
                        .access = Access::read,
                        .texts = "display|fimd|vop|dpu|mdss|dss|drm|simplefb",
                        .before_s = 15},
               .verdict = Verdict::harmless,
               .cause = "The boot loader left the display on: its controller read the splash "
                        "screen until its driver took "
                        "over.",
               .next = "dmesg | grep -i -e drm -e simple-framebuffer",
               .helps = "an iommu-addresses property of the framebuffer's reserved-memory node "
                        "maps it from the start",
               .source =
                   "Linux Documentation/devicetree/bindings/reserved-memory, iommu-addresses"},
    KnownCause{.id = "gpu-ats",
               .when = {.kind = Kind::invalidation, .drivers = gpu_drivers},
               .verdict = Verdict::device_unusable,
               .cause = "The GPU did not answer an invalidation of its own translation cache "
                        "(ATS): it hangs, or its "
                        "firmware implements ATS wrongly.",
               .next = "dmesg | grep -i -e 'ring .* timeout' -e 'GPU reset' -e Xid",
               .helps = "pci=noats disables device translation caches; shared virtual memory then "
                        "does not work",
               .fix = "Linux disables ATS on several AMD GPUs; use a current kernel",
               .source = "Linux 6.12 drivers/pci/quirks.c, quirk_amd_harvest_no_ats"},
    KnownCause{.id = "gpu-not-mapped",
               .when = {.kind = Kind::fault, .drivers = gpu_drivers},
               .verdict = Verdict::device_unusable,
               .cause = "The GPU accessed memory that its driver had not mapped, or had already "
                        "unmapped. GPUs also "
                        "prefetch past the end of a buffer.",
               .next = "dmesg | grep -i -e 'ring .* timeout' -e 'GPU HANG' -e Xid",
               .helps = "iommu=pt hides the fault: the stray access then reaches memory",
               .source =
                   "ROCm issue 6413: a documented prefetch of 8 KiB measured as 20 to 28 KiB"},

    // Interrupts.
    KnownCause{
        .id = "amd-eoi-write",
        .when = {.origin = Origin::amd,
                 .reason = Reason::bad_request,
                 .address = {0xfd'f800'0000, 0xffff'ffff'ffff'ffff}},
        .verdict = Verdict::harmless,
        .cause = "A device or the chipset sent an interrupt or end-of-interrupt message that the "
                 "device table does "
                 "not allow; the IOMMU blocked the message.",
        .next =
            "dmesg | grep -e AMD-Vi -e IVRS    # does the firmware's IVRS table list the I/O APIC?",
        .helps = "a firmware update corrects the IVRS table; ivrs_ioapic[ID]=BUS:DEV.FN overrides "
                 "it until then",
        .source = "AMD I/O Virtualization Technology (IOMMU) Specification 48882, "
                  "INVALID_DEVICE_REQUEST"},
    KnownCause{.id = "intremap-entry-absent",
               .when = {.reason = Reason::interrupt, .codes = {0x22}},
               .verdict = Verdict::device_unusable,
               .cause = "A device raised an interrupt for which the kernel has no remapping entry: "
                        "it kept an old vector "
                        "from before a reset, a kexec or the removal of its driver.",
               .next = "grep . /proc/interrupts; dmesg | grep -i remap",
               .helps = "intremap=off accepts every interrupt message; guests with devices can "
                        "then inject interrupts",
               .source =
                   "VT-d specification, fault reason 22h; Linux 6.12 drivers/iommu/intel/dmar.c"},
    KnownCause{.id = "intremap-blocked-compatibility",
               .when = {.reason = Reason::interrupt, .codes = {0x25}},
               .verdict = Verdict::device_unusable,
               .cause = "A device sent an interrupt in the old format, which interrupt remapping "
                        "blocks: software wrote "
                        "its MSI registers without the kernel.",
               .next = "lspci -vvs {device} | grep MSI",
               .helps = "intremap=off accepts every interrupt message; guests with devices can "
                        "then inject interrupts",
               .source =
                   "VT-d specification, fault reason 25h; Linux 6.12 drivers/iommu/intel/dmar.c"},
    KnownCause{
        .id = "intremap-wrong-source",
        .when = {.reason = Reason::interrupt, .codes = {0x26}},
        .verdict = Verdict::device_unusable,
        .cause = "An interrupt came from another requester than its remapping entry allows: a "
                 "bridge or another "
                 "function sends it for the device.",
        .next = "lspci -tv    # which bridge is above the device?",
        .helps =
            "intremap=nosid disables the check; a device can then imitate another's interrupts",
        .source = "VT-d specification, fault reason 26h; Linux kernel-parameters.txt, intremap="},
    KnownCause{.id = "intremap-other",
               .when = {.reason = Reason::interrupt},
               .verdict = Verdict::device_unusable,
               .cause = "The IOMMU blocked an interrupt message of the device.",
               .next = "grep . /proc/interrupts; dmesg | grep -i -e remap -e MSI",
               .helps = "intremap=off accepts every interrupt message; guests with devices can "
                        "then inject interrupts",
               .source = "Linux kernel-parameters.txt, intremap="},
    KnownCause{.id = "msi-as-dma",
               .when = {.kind = Kind::fault,
                        .access = Access::write,
                        .address = {0xfee0'0000, 0xfeef'ffff}},
               .verdict = Verdict::device_unusable,
               .cause = "The device wrote an x86 interrupt message (0xfee00000-0xfeefffff) that "
                        "the IOMMU took for DMA.",
               .next = "lspci -vvs {device} | grep MSI",
               .helps = "intremap=off compares; guests with devices can then inject interrupts",
               .source = "Linux Documentation/arch/x86/iommu.rst, Some exceptions to IOVA"},

    // Requesters that are not what they seem.
    KnownCause{
        .id = "phantom-function",
        .when = {.kind = Kind::fault, .vendor = 0x1b4b},
        .verdict =
            Verdict::device_unusable,
        .cause = "This Marvell controller does DMA as function 1, also where that function does "
                 "not exist.",
        .next = "lspci -nns {device}    # is the ID among those of quirk_dma_func1_alias?",
        .helps = "iommu=pt lets the controller work, without DMA protection",
        .fix =
            "Linux knows the alias of many of these controllers; a newer kernel may know this one",
        .source = "Linux 6.12 drivers/pci/quirks.c, quirk_dma_func1_alias; kernel bug 42679"},
    KnownCause{.id = "requester-absent",
               .when = {.kind = Kind::fault, .absent = true},
               .verdict = Verdict::device_unusable,
               .cause = "No device has this address: a bridge, or a device with a wrong or phantom "
                        "function, sends with it.",
               .next = "lspci -tv    # which device is on this bus, or behind the bridge?",
               .helps = "iommu=pt lets the device work, without DMA protection",
               .fix = "the kernel needs a DMA alias for the device: report its ID to linux-pci",
               .source =
                   "Linux 6.12 drivers/pci/quirks.c, quirk_dma_func0_alias, quirk_fixed_dma_alias, "
                   "quirk_use_pcie_bridge_dma_alias"},

    // Firmware and boot.
    KnownCause{.id = "kdump-copied-tables",
               .when = {.kind = Kind::fault, .after = Milestone::copied_tables},
               .verdict = Verdict::harmless,
               .cause = "This is a kdump or kexec kernel: a device still ran for the kernel before "
                        "it, whose tables the "
                        "new one copied.",
               .next = "dmesg | grep -i -e kdump -e 'translation'    # the faults stop when the "
                       "driver resets the device",
               .helps = "reset_devices on the crash kernel's command line resets devices first",
               .fix = "Linux 6.1 copies scalable-mode tables correctly (\"Fix kdump kernels boot "
                      "failure with scalable "
                      "mode\")",
               .source = "Linux 6.12 drivers/iommu/intel/iommu.c, copy_translation_tables"},
    KnownCause{.id = "device-table-after-resume",
               .when = {.origin = Origin::amd,
                        .reason = Reason::not_attached,
                        .after = Milestone::resumed},
               .verdict = Verdict::device_unusable,
               .cause = "After sleep the IOMMU has no valid device-table entry for the device.",
               .next = "dmesg | grep -e 'PM: ' -e AMD-Vi",
               .helps = "iommu=pt avoids it on some machines, without DMA protection",
               .source = "Linux 6.12 drivers/iommu/amd/init.c, amd_iommu_resume"},
    KnownCause{.id = "fault-after-resume",
               .when = {.kind = Kind::fault, .after = Milestone::resumed},
               .verdict = Verdict::device_unusable,
               .cause = "The device used an address from before the machine slept: its driver did "
                        "not set it up anew.",
               .next = "dmesg | grep -e 'PM: ' -e DMAR -e AMD-Vi",
               .helps = "unbind the driver before sleep and bind it after",
               .source = "Linux Documentation/driver-api/pm/devices.rst"},
    KnownCause{
        .id = "rmrr-refused",
        .when = {.kind = Kind::device_refused, .texts = "RMRR|reserved memory"},
        .verdict =
            Verdict::not_started,
        .cause = "The firmware reserves memory for this device (RMRR), for management or USB "
                 "emulation; the kernel "
                 "does not give such a device away.",
        .next = "dmesg | grep RMRR; look for the vendor's setting (\"shared memory\", \"HP Shared "
                "Memory "
                "features\")",
        .helps =
            "no kernel parameter is safe: the firmware's own DMA would go to the guest's memory",
        .source = "Linux 6.12 drivers/iommu/intel/iommu.c, device_rmrr_is_relaxable"},
    KnownCause{
        .id = "firmware-still-active",
        .when = {.kind = Kind::fault, .reason = Reason::not_attached, .before_s = 10},
        .verdict =
            Verdict::harmless,
        .cause = "The firmware left the device running, and no driver has set it up yet.",
        .next = "dmesg | grep {device}    # the faults stop when the driver binds",
        .helps =
            "efi=disable_early_pci_dma stops devices at boot; some firmware does not bear that",
        .source = "Linux kernel-parameters.txt, efi=disable_early_pci_dma"},
    KnownCause{.id = "legacy-usb",
               .when = {.kind = Kind::fault, .texts = "hpilo|hpwdt|ipmi|ehci|uhci", .before_s = 60},
               .verdict = Verdict::harmless,
               .cause = "The firmware uses the device (USB keyboard emulation, a management "
                        "controller) and does not "
                        "report its memory as reserved.",
               .next = "dmesg | grep RMRR",
               .helps = "disable legacy USB in the firmware; a firmware update adds the RMRR",
               .source = "Linux Documentation/arch/x86/iommu.rst, What is Intel RMRR?"},
    KnownCause{
        .id = "scanned-at-boot",
        .when = {.kind = Kind::fault, .before_s = 3},
        .verdict =
            Verdict::harmless,
        .cause = "The firmware left the device running: it still used the firmware's buffers when "
                 "the kernel "
                 "enabled the IOMMU.",
        .next = "dmesg | grep {device}    # the faults stop when the driver binds",
        .helps =
            "efi=disable_early_pci_dma stops devices at boot; some firmware does not bear that",
        .source =
            "Linux 6.12 drivers/firmware/efi/libstub/pci.c, efi_pci_disable_bridge_busmaster"},

    // Addresses that tell their cause.
    KnownCause{
        .id = "cpu-address",
        .when = {.kind = Kind::fault, .address = {0xffff'0000'0000'0000, 0xffff'ffff'ffff'ffff}},
        .verdict = Verdict::device_unusable,
        .cause = "The driver gave the device a CPU virtual address instead of the address that "
                 "dma_map_*() "
                 "returned.",
        .next = "grep -n virt_to_phys in the driver; build the kernel with CONFIG_DMA_API_DEBUG",
        .helps = "none: with the IOMMU off the device would write somewhere else",
        .source = "Linux Documentation/core-api/dma-api-howto.rst, CPU and DMA addresses"},
    KnownCause{.id = "disk-address-zero",
               .when = {.kind = Kind::fault, .address = {0, 0xfff}, .storage = true},
               .verdict = Verdict::data_at_risk,
               .cause = "The disk's controller used address 0: a descriptor was never filled in, "
                        "or was cleared while the "
                        "controller read it.",
               .next = "dmesg | grep -i -e 'I/O error' -e nvme -e ata",
               .helps = "none: with the IOMMU off the transfer would reach page 0",
               .source = "NVM Express base specification, PRP entry and list"},
    KnownCause{
        .id = "address-zero",
        .when = {.kind = Kind::fault, .address = {0, 0xfff}},
        .verdict =
            Verdict::device_unusable,
        .cause = "The device used address 0: its driver never set the address of a ring or buffer, "
                 "or cleared it "
                 "while the device ran.",
        .next = "dmesg | grep {device}    # did the driver bind, or reset the device, just before?",
        .helps = "iommu=pt hides the fault: the device then reads or writes page 0",
        .source = "moat docs/guides/explain_a_fault.md, address 0"},

    // Disks.
    KnownCause{
        .id = "nvme-discard-overread",
        .when = {.kind = Kind::fault,
                 .access = Access::read,
                 .drivers = "nvme",
                 .after = Milestone::discarded},
        .verdict =
            Verdict::harmless,
        .cause = "The SSD reads a full page of discard ranges, however few the command has.",
        .next = "fstrim -v /    # does it fault again?",
        .helps =
            "mount without discard, and stop fstrim.timer; the SSD then slows down as it fills",
        .fix = "Linux allocates the full list since 5.5 (nvme_setup_discard)",
        .source = "Linux 6.12 drivers/nvme/host/core.c, nvme_setup_discard"},
    KnownCause{.id = "nvme-reset-ats",
               .when = {.kind = Kind::invalidation, .drivers = "nvme"},
               .verdict = Verdict::data_at_risk,
               .cause = "The SSD did not answer an invalidation of its translation cache (ATS): it "
                        "was in reset, asleep or "
                        "gone.",
               .next = "dmesg | grep -i -e nvme -e AER; nvme smart-log /dev/nvme0",
               .helps = "pci=noats disables device translation caches; "
                        "nvme_core.default_ps_max_latency_us=0 keeps the SSD "
                        "awake and warm",
               .source = "Linux 6.12 drivers/iommu/intel/dmar.c, qi_check_fault; "
                         "kernel-parameters.txt, pci=noats"},
    KnownCause{
        .id = "disk-write-refused",
        .when = {.kind = Kind::fault, .access = Access::read, .storage = true},
        .verdict =
            Verdict::data_at_risk,
        .cause = "The controller could not read memory: what should have gone to the disk, or its "
                 "commands, did not "
                 "arrive.",
        .next = "dmesg | grep -i -e 'I/O error' -e nvme -e ata; then check the file system",
        .helps =
            "iommu=pt lets the access through; a stray read then stores other memory on the disk",
        .source = "moat docs/guides/explain_a_fault.md, disks"},
    KnownCause{
        .id = "disk-read-refused",
        .when = {.kind = Kind::fault, .access = Access::write, .storage = true},
        .verdict =
            Verdict::data_at_risk,
        .cause = "The controller could not write memory: data that was read from the disk did not "
                 "arrive, though the "
                 "disk may have reported success.",
        .next =
            "dmesg | grep -i -e 'I/O error' -e nvme -e ata; compare a large file with its checksum",
        .helps = "iommu=pt lets the access through; a stray write then destroys other memory",
        .source = "moat docs/guides/explain_a_fault.md, disks"},
    KnownCause{.id = "disk-access-refused",
               .when = {.kind = Kind::fault, .storage = true},
               .verdict = Verdict::data_at_risk,
               .cause = "The IOMMU refused an access of the disk's controller: data, a command or "
                        "a completion was lost.",
               .next = "dmesg | grep -i -e 'I/O error' -e nvme -e ata; then check the file system",
               .helps =
                   "iommu=pt lets the access through; a stray access then reaches other memory",
               .source = "moat docs/guides/explain_a_fault.md, disks"},

    // USB.
    KnownCause{.id = "xhci-after-death",
               .when = {.kind = Kind::fault,
                        .drivers = "xhci_hcd|xhci-pci",
                        .after = Milestone::controller_died},
               .verdict = Verdict::device_unusable,
               .cause = "The driver gave up the USB controller and unmapped its rings, but the "
                        "controller still runs.",
               .next = "echo {device} > /sys/bus/pci/drivers/xhci_hcd/unbind, and bind it again",
               .helps =
                   "iommu=pt hides the fault: the controller then writes to memory that others use",
               .source = "Linux 6.12 drivers/usb/host/xhci-ring.c, xhci_hc_died"},
    KnownCause{
        .id = "xhci-ring-overfetch",
        .when = {.kind = Kind::fault, .access = Access::read, .drivers = "xhci_hcd|xhci-pci"},
        .verdict = Verdict::device_unusable,
        .cause = "The USB controller read past the end of a ring, or a ring that was already "
                 "freed. Some "
                 "controllers always prefetch past a ring's last entry.",
        .next = "lspci -nns {device}; dmesg | grep xhci",
        .helps = "iommu=pt hides a prefetch, which is harmless; it hides a stray ring as well",
        .fix = "Linux allocates rings with room behind them for some Zhaoxin and VIA controllers "
               "(XHCI_TRB_OVERFETCH)",
        .source = "Linux 6.12 drivers/usb/host/xhci-pci.c, XHCI_TRB_OVERFETCH"},
    KnownCause{
        .id = "usb-not-mapped",
        .when = {.kind = Kind::fault, .drivers = "xhci_hcd|xhci-pci|ehci-pci|ohci-pci|uhci_hcd"},
        .verdict = Verdict::device_unusable,
        .cause = "The USB controller wrote to a buffer that was already unmapped: a transfer was "
                 "cancelled, or a "
                 "device was removed, while it ran.",
        .next = "dmesg | grep -i -e usb -e xhci",
        .helps = "iommu=pt hides the fault: the write then destroys memory that others use",
        .source = "xHCI specification 1.2, 4.6.9 Stop Endpoint"},

    // Invalidations.
    KnownCause{.id = "device-gone-ats",
               .when = {.kind = Kind::invalidation, .after = Milestone::link_lost},
               .verdict = Verdict::device_unusable,
               .cause = "The device was removed, or its link went down, before the IOMMU had "
                        "invalidated its translation "
                        "cache (ATS).",
               .next = "dmesg | grep -i -e pciehp -e AER -e 'Link Down'",
               .helps = "pci=noats disables device translation caches; shared virtual memory then "
                        "does not work",
               .fix = "Linux skips the invalidation of an absent device since 6.9 "
                      "(devtlb_invalidation_with_pasid, "
                      "pci_dev_is_disconnected)",
               .source = "Linux 6.12 drivers/iommu/intel/pasid.c"},
    KnownCause{.id = "amd-completion-wait",
               .when = {.kind = Kind::invalidation, .origin = Origin::amd},
               .verdict = Verdict::device_unusable,
               .cause = "The IOMMU did not finish a command: it waits for a device that does not "
                        "answer an invalidation of "
                        "its translation cache (ATS), or it lost its tables in sleep.",
               .next = "dmesg | grep -i -e AMD-Vi -e amdgpu -e AER -e 'PM: '",
               .helps = "pci=noats disables device translation caches; shared virtual memory then "
                        "does not work",
               .source = "Linux 6.12 drivers/iommu/amd/iommu.c, wait_on_sem"},
    KnownCause{.id = "device-iotlb-timeout",
               .when = {.kind = Kind::invalidation},
               .verdict = Verdict::device_unusable,
               .cause = "A device did not answer an invalidation of its translation cache (ATS): "
                        "it hangs, sleeps, is in "
                        "reset or gone.",
               .next = "dmesg | grep -i -e AER -e 'Link Down' -e reset",
               .helps = "pci=noats disables device translation caches; shared virtual memory then "
                        "does not work",
               .source = "Linux 6.12 drivers/iommu/intel/dmar.c, qi_check_fault; "
                         "kernel-parameters.txt, pci=noats"},

    // PASIDs, and shared virtual memory.
    KnownCause{
        .id = "pasid-directory-empty",
        .when = {.reason = Reason::pasid},
        .verdict =
            Verdict::device_unusable,
        .cause = "The device sent a process's address (PASID) that is not set up: the process "
                 "ended, or no driver "
                 "enabled shared virtual memory for it.",
        .next = "dmesg | grep -i -e pasid -e sva -e idxd",
        .helps =
            "intel_iommu=sm_off disables scalable mode; shared virtual memory then does not work",
        .source =
            "VT-d specification, fault reasons 50h to 5Bh; Linux 6.12 drivers/iommu/intel/dmar.c"},

    // Tables and the unit itself.
    KnownCause{
        .id = "reserved-bits",
        .when = {.kind = Kind::fault, .reason = Reason::malformed_table},
        .verdict =
            Verdict::device_unusable,
        .cause = "An entry of the IOMMU's tables has bits that this unit does not know: an address "
                 "beyond its "
                 "width, a large page or a snoop bit that it does not support, or damaged memory.",
        .next = "dmesg | grep -i -e 'DMAR.*cap' -e 'Host address width'",
        .helps = "intel_iommu=sp_off excludes large pages as the cause; DMA then gets slower",
        .source = "VT-d specification, fault reason 0Ch; Linux kernel-parameters.txt, "
                  "intel_iommu=sp_off"},
    KnownCause{.id = "pte-already-set",
               .when = {.texts = "already set"},
               .verdict = Verdict::data_at_risk,
               .cause = "Two mappings used the same device address: the kernel's bookkeeping of "
                        "addresses is wrong, or "
                        "memory is damaged.",
               .next = "dmesg | grep -B2 -A30 'already set'    # the stack names the driver",
               .helps = "none that is safe: one of the two buffers gets the other's data",
               .source = "Linux 6.12 drivers/iommu/intel/iommu.c, __domain_mapping"},
    KnownCause{.id = "width-39",
               .when = {.texts = "width|not sufficient"},
               .verdict = Verdict::not_started,
               .cause = "The IOMMU translates fewer address bits than the mapping needs: a huge "
                        "BAR or a guest's memory "
                        "lies above its reach (39 bits reach 512 GiB).",
               .next = "dmesg | grep -i -e 'Host address width' -e DRHD; lspci -vs {device}",
               .helps = "disable \"Above 4G decoding\" or Resizable BAR, or limit the guest: -cpu "
                        "host,phys-bits=39 or "
                        "-global q35-pcihost.pci-hole64-size=2G; the BAR gets smaller",
               .source = "Linux 6.12 drivers/iommu/intel/iommu.c, intel_iommu_map"},
    KnownCause{.id = "unit-hardware-error",
               .when = {.reason = Reason::hardware},
               .verdict = Verdict::data_at_risk,
               .cause =
                   "The IOMMU met an error of its hardware, or of memory that holds its tables.",
               .next = "dmesg | grep -i -e mce -e edac -e 'Hardware Error'; test the memory",
               .helps = "a firmware update",
               .source =
                   "AMD specification 48882, DEV_TAB_HARDWARE_ERROR and PAGE_TAB_HARDWARE_ERROR"},
    KnownCause{.id = "illegal-command",
               .when = {.kind = Kind::unit_error, .origin = Origin::amd, .texts = "COMMAND"},
               .verdict = Verdict::data_at_risk,
               .cause = "The IOMMU read a command that it does not know: its command buffer was "
                        "overwritten, or was lost "
                        "in sleep.",
               .next = "dmesg | grep -e AMD-Vi -e 'PM: '",
               .helps = "a kernel or firmware update",
               .source = "AMD specification 48882, ILLEGAL_COMMAND_ERROR"},
    KnownCause{.id = "rmp",
               .when = {.origin = Origin::amd, .texts = "RMP"},
               .verdict = Verdict::data_at_risk,
               .cause = "A device accessed memory of a confidential guest (SEV-SNP), which the "
                        "reverse map table forbids.",
               .next = "dmesg | grep -i -e sev -e RMP",
               .helps = "none: the guest's memory may be written only by the guest",
               .source = "AMD specification 48882, RMP_PAGE_FAULT"},

    // Arm.
    KnownCause{.id = "unidentified-stream",
               .when = {.origin = Origin::smmu_v2, .reason = Reason::not_attached},
               .verdict = Verdict::device_unusable,
               .cause = "A device has no stream mapping: its node lacks an iommus property, or "
                        "firmware or a coprocessor "
                        "drives it before its driver does.",
               .next = "find /proc/device-tree -name iommus; dmesg | grep -i smmu",
               .helps = "arm-smmu.disable_bypass=0 lets unknown streams through; they may then "
                        "access all memory",
               .source = "Linux 6.12 drivers/iommu/arm/arm-smmu/arm-smmu.c, arm_smmu_global_fault"},
    KnownCause{.id = "stream-table",
               .when = {.origin = Origin::smmu_v3, .reason = Reason::not_attached},
               .verdict = Verdict::device_unusable,
               .cause = "The stream table has no entry for this StreamID: the IORT table or the "
                        "iommu-map property does "
                        "not list the device, or no driver is bound.",
               .next = "ls /sys/kernel/iommu_groups/*/devices; dmesg | grep -i -e smmu -e iort",
               .helps = "arm-smmu-v3.disable_bypass=0 lets unknown streams through; they may then "
                        "access all memory",
               .source = "Arm SMMUv3 specification IHI 0070, C_BAD_STREAMID and C_BAD_STE"},

    // VFIO, and the programs that use it.
    KnownCause{.id = "memlock",
               .when = {.kind = Kind::memory_limit},
               .verdict = Verdict::not_started,
               .cause = "The process may not lock as much memory as the device needs: a device can "
                        "reach only locked "
                        "memory.",
               .next = "ulimit -l; prlimit --memlock -p PID",
               .helps = "LimitMEMLOCK=infinity for a service, memlock in limits.conf for a user, "
                        "<hard_limit> for libvirt; "
                        "the process may then lock all memory",
               .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vfio_pin_pages_remote"},
    KnownCause{
        .id = "map-no-memory",
        .when = {.kind = Kind::map_failure, .error = 12},
        .verdict =
            Verdict::not_started,
        .cause = "Pinning failed: the process reached its limit of locked memory (RLIMIT_MEMLOCK), "
                 "or memory is "
                 "short.",
        .next = "ulimit -l; dmesg | grep RLIMIT_MEMLOCK",
        .helps =
            "LimitMEMLOCK=infinity, memlock in limits.conf; the process may then lock all memory",
        .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vfio_pin_pages_remote"},
    KnownCause{.id = "map-no-entries",
               .when = {.kind = Kind::map_failure, .error = 28},
               .verdict = Verdict::not_started,
               .cause = "The container has all the mappings that VFIO allows: 65,535.",
               .next = "cat /sys/module/vfio_iommu_type1/parameters/dma_entry_limit",
               .helps = "map larger pieces (huge pages), or raise dma_entry_limit; a mapping costs "
                        "kernel memory",
               .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vfio_dma_do_map"},
    KnownCause{.id = "map-exists",
               .when = {.kind = Kind::map_failure, .error = 17},
               .verdict = Verdict::not_started,
               .cause = "A part of this device address range is mapped already: two owners share "
                        "the container, or an "
                        "unmap was forgotten.",
               .next = "look for an earlier map of the same IOVA in the program's log",
               .helps = "none: ignoring the error leaves the device with the old memory",
               .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vfio_dma_do_map"},
    KnownCause{.id = "map-bar-of-peer",
               .when = {.kind = Kind::map_failure, .error = 14},
               .verdict = Verdict::harmless,
               .cause = "The memory to map cannot be pinned. In a virtual machine it is usually a "
                        "device's BAR: only "
                        "peer-to-peer transfers between assigned devices need it.",
               .next = "compare the address with the guest's BARs: lspci -v in the guest",
               .helps = "x-no-mmap=on for the device avoids the message; its BARs get slow",
               .source = "QEMU hw/vfio/common.c, vfio_listener_region_add"},
    KnownCause{
        .id = "map-outside-aperture",
        .when = {.kind = Kind::map_failure, .error = 22},
        .verdict =
            Verdict::not_started,
        .cause = "The address is not aligned to the IOMMU's page size, lies in a reserved range "
                 "(MSI window, RMRR), "
                 "or is above the IOMMU's reach, as the BAR of a large GPU in a guest with 48-bit "
                 "addresses is.",
        .next =
            "cat /sys/kernel/iommu_groups/*/reserved_regions; dmesg | grep 'Host address width'",
        .helps = "-cpu host,host-phys-bits=on,host-phys-bits-limit=39 keeps the guest's addresses "
                 "in reach; very "
                 "large BARs then do not fit",
        .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vfio_iommu_iova_dma_valid"},
    KnownCause{.id = "map-failed",
               .when = {.kind = Kind::map_failure},
               .verdict = Verdict::not_started,
               .cause = "The kernel refused to map memory for the device; what the program does "
                        "without it is its own "
                        "choice.",
               .next = "dmesg | tail; ulimit -l",
               .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vfio_dma_do_map"},
    KnownCause{
        .id = "bar-held-by-boot-framebuffer",
        .when = {.kind = Kind::device_refused, .texts = "can't reserve"},
        .verdict =
            Verdict::not_started,
        .cause =
            "Another driver holds the BAR: usually the boot framebuffer (efifb, simplefb, vesafb).",
        .next = "grep -i -e efifb -e simple -e BOOTFB /proc/iomem",
        .helps = "video=efifb:off, or initcall_blacklist=sysfb_init for newer kernels; the host "
                 "then has no boot "
                 "console",
        .source = "Linux 6.12 drivers/pci/pci.c, __pci_request_region"},
    KnownCause{.id = "group-not-viable",
               .when = {.kind = Kind::device_refused, .texts = "viable"},
               .verdict = Verdict::not_started,
               .cause = "Another device of the same IOMMU group is bound to a host driver; a group "
                        "is given away whole.",
               .next = "ls -l /sys/bus/pci/devices/{device}/iommu_group/devices/*/driver",
               .helps = "bind all of them to vfio-pci, or use another slot; pcie_acs_override "
                        "splits groups without "
                        "isolating them",
               .source = "Linux Documentation/driver-api/vfio.rst, Groups, Devices, and IOMMUs"},
    KnownCause{.id = "rom-header",
               .when = {.texts = "ROM header|ROM contents"},
               .verdict = Verdict::harmless,
               .cause = "The device's option ROM is absent, or was shadowed by the firmware; only "
                        "a guest's boot screen "
                        "needs it.",
               .next = "lspci -vs {device} | grep 'Expansion ROM'",
               .helps = "romfile=FILE gives QEMU the ROM; rombar=0 hides it",
               .source = "Linux 6.12 drivers/pci/rom.c, pci_get_rom_size"},
    KnownCause{
        .id = "no-interrupt-remapping",
        .when = {.texts = "allow_unsafe_interrupts|interrupt remapping support"},
        .verdict =
            Verdict::not_started,
        .cause = "The machine does not remap interrupts, so VFIO refuses the device.",
        .next = "dmesg | grep -i -e remap -e x2apic; enable VT-d or AMD-Vi fully in the firmware",
        .helps = "vfio_iommu_type1.allow_unsafe_interrupts=1 permits it; a guest can then inject "
                 "host interrupts",
        .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vfio_iommu_type1_attach_group"},
    KnownCause{.id = "device-refused",
               .when = {.kind = Kind::device_refused},
               .verdict = Verdict::not_started,
               .cause = "The kernel does not give the device to a program or guest.",
               .next =
                   "ls -l /sys/bus/pci/devices/{device}/iommu_group/devices/; lspci -nnks {device}",
               .source = "Linux Documentation/driver-api/vfio.rst"},

    // The DMA API.
    KnownCause{
        .id = "swiotlb-full",
        .when = {.kind = Kind::bounce_full},
        .verdict =
            Verdict::data_at_risk,
        .cause = "No bounce buffer was free: a device with a short DMA mask, an untrusted "
                 "(Thunderbolt) port or a "
                 "confidential guest copies all its DMA.",
        .next = "cat /sys/kernel/debug/swiotlb/io_tlb_used /sys/kernel/debug/swiotlb/io_tlb_nslabs",
        .helps =
            "swiotlb=65536 doubles the default of 64 MiB; the memory is lost to everything else",
        .source = "Linux 6.12 kernel/dma/swiotlb.c, swiotlb_tbl_map_single; kernel-parameters.txt, "
                  "swiotlb="},
    KnownCause{.id = "dma-debug-overlap",
               .when = {.kind = Kind::driver_error, .texts = "overlap|EEXIST|cacheline"},
               .verdict = Verdict::data_at_risk,
               .cause = "The driver mapped two buffers that share a cache line; on machines "
                        "without coherent DMA one "
                        "destroys the other.",
               .next = "dmesg | grep -A25 DMA-API    # the stack names the function",
               .helps = "none: the driver must align its buffers (kmalloc, not the stack or parts "
                        "of a structure)",
               .source = "Linux 6.12 kernel/dma/debug.c, add_dma_entry"},
    KnownCause{
        .id = "dma-debug-wrong-free",
        .when = {.kind = Kind::driver_error,
                 .texts = "frees|not mapped|wrong function|different size"},
        .verdict =
            Verdict::data_at_risk,
        .cause = "The driver unmapped a buffer in another way than it had mapped it: another "
                 "address, size, "
                 "direction or function.",
        .next = "dmesg | grep -A25 DMA-API    # the stack names the function",
        .helps =
            "none: with an IOMMU the rest of the buffer stays mapped, or a neighbour is unmapped",
        .source = "Linux 6.12 kernel/dma/debug.c, check_unmap"},
    KnownCause{
        .id = "page-freed-while-mapped",
        .when = {.kind = Kind::driver_error, .texts = "PAGEALLOC|still mapped|page_alloc|freed"},
        .verdict = Verdict::data_at_risk,
        .cause = "A page was freed while a device could still reach it: the device may overwrite "
                 "its next owner.",
        .next = "dmesg | grep -A25 iommu    # the stack names who freed it",
        .source = "Linux kernel-parameters.txt, iommu.debug_pagealloc"},
    KnownCause{.id = "dma-debug-other",
               .when = {.kind = Kind::driver_error},
               .verdict = Verdict::data_at_risk,
               .cause = "The kernel's checks found a wrong call of the DMA API.",
               .next = "dmesg | grep -A25 DMA-API    # the stack names the function",
               .source = "Linux 6.12 kernel/dma/debug.c"},

    // POWER.
    KnownCause{.id = "eeh-frozen",
               .when = {.kind = Kind::isolated},
               .verdict = Verdict::device_unusable,
               .cause = "The PCI bridge cut the device off after an error: a DMA to an address "
                        "that is not mapped, or a "
                        "bus error.",
               .next = "dmesg | grep -A30 EEH; opal-prd or errpt on the host",
               .helps = "eeh=off shows the raw error; it is meant for debugging only",
               .source = "Linux 6.12 Documentation/arch/powerpc/eeh-pci-error-recovery.rst"},

    // General rows.
    KnownCause{.id = "peer-to-peer",
               .when = {.kind = Kind::fault, .lies_in = "BAR"},
               .verdict = Verdict::device_unusable,
               .cause = "The address is a BAR of another device: a peer-to-peer transfer that "
                        "nobody mapped for the IOMMU.",
               .next = "lspci -tv    # do both devices share a switch?",
               .helps = "iommu=pt lets it through where the root complex routes it; the device may "
                        "then access all memory",
               .source = "Linux Documentation/driver-api/pci/p2pdma.rst"},
    KnownCause{
        .id = "physical-address",
        .when = {.kind = Kind::fault, .after = Milestone::foreign_module},
        .verdict =
            Verdict::device_unusable,
        .cause = "A module from outside the kernel is loaded. Such drivers often give devices "
                 "physical addresses, "
                 "which worked until an upgrade enabled the IOMMU by default.",
        .next = "cat /proc/cmdline; dmesg | grep -e 'Default domain type' -e taint",
        .helps =
            "iommu=pt maps memory one to one: interrupt remapping stays, DMA protection does not",
        .fix = "use the vendor's newest driver: it must call dma_map_*()",
        .source = "Linux 6.12 drivers/iommu/intel/Kconfig, INTEL_IOMMU_DEFAULT_ON; "
                  "core-api/dma-api-howto.rst"},
    KnownCause{.id = "device-gone",
               .when = {.kind = Kind::fault, .after = Milestone::link_lost},
               .verdict = Verdict::device_unusable,
               .cause = "A device was removed or its link went down, and its driver had unmapped "
                        "its buffers when late "
                        "accesses arrived.",
               .next = "dmesg | grep -i -e pciehp -e AER -e 'Link Down'",
               .helps = "pcie_aspm=off helps where links go down by themselves; the machine then "
                        "uses more power",
               .source = "Linux 6.12 drivers/pci/hotplug/pciehp_ctrl.c"},
    KnownCause{.id = "after-reset",
               .when = {.kind = Kind::fault, .after = Milestone::reset},
               .verdict = Verdict::device_unusable,
               .cause = "A device was reset and used addresses from before: its driver unmapped "
                        "the buffers while the "
                        "device still had them.",
               .next = "dmesg | grep -i -e reset -e timeout",
               .helps =
                   "iommu=pt hides the fault: the device then writes to memory that others use",
               .source = "Linux Documentation/PCI/pci-error-recovery.rst"},
    KnownCause{.id = "network-overrun",
               .when = {.kind = Kind::fault, .access = Access::write, .drivers = network_drivers},
               .verdict = Verdict::data_at_risk,
               .cause = "The network card wrote a packet where no receive buffer is mapped: the "
                        "buffer was too short for "
                        "the packet, or was unmapped before the card was stopped.",
               .next = "ethtool -S INTERFACE | grep -i err; ip link show INTERFACE    # the MTU",
               .helps = "iommu=pt hides the fault: the packet then destroys memory that others use",
               .source = "Linux Documentation/core-api/dma-api-howto.rst"},
    KnownCause{.id = "network-not-mapped",
               .when = {.kind = Kind::fault, .drivers = network_drivers},
               .verdict = Verdict::device_unusable,
               .cause = "The network card read a buffer or a descriptor that is not mapped: it was "
                        "unmapped before the card "
                        "had sent it.",
               .next = "ethtool -S INTERFACE | grep -i err; dmesg | grep -i 'transmit queue'",
               .helps = "ethtool -K INTERFACE tso off gso off finds whether large packets cause "
                        "it; sending gets slower",
               .source = "Linux Documentation/core-api/dma-api-howto.rst"},
    KnownCause{
        .id = "guest-assigned",
        .when = {.kind = Kind::fault, .drivers = "vfio-pci"},
        .verdict =
            Verdict::device_unusable,
        .cause =
            "The device belongs to a guest or program, which gave it an address outside the memory "
            "that it "
            "mapped: a guest driver's error, a reset of the guest, or a BAR of another device.",
        .next = "look at the guest's log at the same time; compare the address with the guest's "
                "memory and BARs",
        .helps = "none: the fault protects the host",
        .source = "Linux Documentation/driver-api/vfio.rst"},
    KnownCause{.id = "emulated-device",
               .when = {.kind = Kind::fault, .origin = Origin::qemu},
               .verdict = Verdict::device_unusable,
               .cause = "In the guest, a device of QEMU used an address that the guest's driver "
                        "had not mapped or had "
                        "already unmapped.",
               .next =
                   "look at the guest's log; moat audit --machine qemu checks the device itself",
               .helps = "iommu=pt in the guest hides it",
               .source = "QEMU hw/i386/intel_iommu.c, vtd_report_fault"},
    KnownCause{.id = "wrong-direction",
               .when = {.kind = Kind::fault, .origin = Origin::amd, .reason = Reason::permission},
               .verdict = Verdict::device_unusable,
               .cause = "The page is mapped, but not for this access: the driver mapped the buffer "
                        "with the wrong "
                        "direction.",
               .next = "grep -n DMA_TO_DEVICE -e DMA_FROM_DEVICE in the driver",
               .helps = "iommu=pt hides the fault",
               .source = "AMD specification 48882, IO_PAGE_FAULT: PR and PE"},
    KnownCause{.id = "not-attached",
               .when = {.kind = Kind::fault, .reason = Reason::not_attached},
               .verdict = Verdict::device_unusable,
               .cause = "The IOMMU has no entry for the device: no driver is bound, the driver was "
                        "removed while the device "
                        "ran, or the device uses another function's requester ID.",
               .next = "lspci -nnks {device}; ls -l /sys/bus/pci/devices/{device}/iommu_group",
               .helps = "iommu=pt lets the device work, without DMA protection",
               .source = "Linux Documentation/arch/x86/iommu.rst, Fault reporting"},
    KnownCause{.id = "address-too-wide",
               .when = {.kind = Kind::fault, .reason = Reason::address_size},
               .verdict = Verdict::device_unusable,
               .cause = "The address is wider than the IOMMU or its tables translate: the device, "
                        "or its driver, made it "
                        "up.",
               .next = "dmesg | grep -i -e 'Host address width' -e 'DMA mask'",
               .helps = "iommu.forcedac=0 keeps addresses below 4 GiB where possible",
               .source = "Linux kernel-parameters.txt, iommu.forcedac"},
    KnownCause{
        .id = "bad-request",
        .when = {.reason = Reason::bad_request},
        .verdict =
            Verdict::device_unusable,
        .cause = "The device sent a request of a kind that is not enabled for it: translated by "
                 "its own cache (ATS), "
                 "a page request, or with a PASID.",
        .next = "lspci -vvs {device} | grep -i -e ATS -e PRI -e PASID",
        .helps = "pci=noats disables device translation caches; shared virtual memory then does "
                 "not work",
        .source =
            "AMD specification 48882, INVALID_DEVICE_REQUEST; kernel-parameters.txt, pci=noats"},
    KnownCause{.id = "events-lost",
               .when = {.reason = Reason::events_lost},
               .verdict = Verdict::device_unusable,
               .cause = "Faults came faster than the IOMMU or the kernel could record them: the "
                        "log does not show all.",
               .next =
                   "grep -i -e dmar -e AMD-Vi /proc/interrupts    # counts the fault interrupts",
               .source = "VT-d specification, fault status register: primary fault overflow"},
    KnownCause{
        .id = "ran-past-the-end",
        .when = {.kind = Kind::fault, .consecutive = true},
        .verdict =
            Verdict::data_at_risk,
        .cause = "The device accessed consecutive addresses that are not mapped: it ran past the "
                 "end of a buffer, or "
                 "the buffer was unmapped during the transfer.",
        .next =
            "record the mappings (docs/guides/explain_a_fault.md), and explain the log with them",
        .helps = "iommu=pt hides the fault: the transfer then destroys memory that others use",
        .source = "Linux Documentation/core-api/dma-api-howto.rst"},
    KnownCause{
        .id = "write-not-mapped",
        .when = {.kind = Kind::fault, .access = Access::write},
        .verdict =
            Verdict::data_at_risk,
        .cause = "The device wrote where its driver had mapped nothing: past a buffer, after "
                 "unmapping it, or into a "
                 "buffer that it may only read.",
        .next =
            "record the mappings (docs/guides/explain_a_fault.md), and explain the log with them",
        .helps = "iommu=pt hides the fault: the write then destroys memory that others use",
        .source = "Linux Documentation/core-api/dma-api-howto.rst"},
    KnownCause{
        .id = "not-mapped",
        .when = {.kind = Kind::fault},
        .verdict =
            Verdict::device_unusable,
        .cause =
            "The device accessed memory that its driver had not mapped, or had already unmapped.",
        .next =
            "record the mappings (docs/guides/explain_a_fault.md), and explain the log with them",
        .helps = "iommu=pt hides the fault: the access then reaches memory",
        .source = "Linux Documentation/core-api/dma-api-howto.rst"},
    KnownCause{.id = "unit-error",
               .when = {},
               .verdict = Verdict::device_unusable,
               .cause = "The IOMMU or its driver reported a problem that is not an access.",
               .next = "dmesg | grep -i -e DMAR -e AMD-Vi -e smmu -e iommu",
               .source = "moat docs/guides/explain_a_fault.md"},
};

[[nodiscard]] char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

[[nodiscard]] bool contains(std::string_view text, std::string_view part) {
    return !std::ranges::search(text, part, {}, lower, lower).empty();
}

/// Whether `matches` holds for one of the alternatives, which '|' separates.
template <class Matches>
[[nodiscard]] bool any_of(std::string_view alternatives, const Matches& matches) {
    for (;;) {
        const std::size_t bar = alternatives.find('|');
        if (matches(alternatives.substr(0, bar)))
            return true;
        if (bar == std::string_view::npos)
            return false;
        alternatives.remove_prefix(bar + 1);
    }
}

[[nodiscard]] const DeviceFacts* facts_of(const LogGroup& group, const LogContext& context) {
    const std::optional<Source> function = pci_function(group.first);
    return function ? context.device(*function) : nullptr;
}

[[nodiscard]] bool matches_event(const CausePattern& pattern, const LogEvent& event) {
    const auto is = [](const auto& wanted, const auto& value) {
        return !wanted || *wanted == value;
    };
    const auto has_code = [&](std::uint16_t code) {
        return code != 0 && event.record.code == code;
    };
    const auto has_text = [&](std::string_view text) {
        return contains(event.text, text) || contains(event.raw, text);
    };
    return is(pattern.kind, event.kind) && is(pattern.origin, event.origin) &&
           is(pattern.reason, event.record.reason) && is(pattern.access, event.record.access) &&
           (!pattern.error || event.error == pattern.error) &&
           (pattern.codes[0] == 0 || std::ranges::any_of(pattern.codes, has_code)) &&
           (pattern.texts.empty() || any_of(pattern.texts, has_text));
}

[[nodiscard]] bool matches_device(const CausePattern& pattern, const LogGroup& group,
                                  const LogContext& context) {
    const std::optional<Source> function = pci_function(group.first);
    const DeviceFacts* const facts = facts_of(group, context);
    const std::string driver = driver_of(group, context);
    const auto is_driver = [&](std::string_view name) { return driver == name; };
    if (!pattern.device.empty() &&
        (!function || function->id() != parse_pci_function(pattern.device)->id()))
        return false;
    if (!pattern.drivers.empty() && !any_of(pattern.drivers, is_driver))
        return false;
    if (pattern.vendor != 0 && (facts == nullptr || facts->vendor != pattern.vendor))
        return false;
    if (pattern.absent && (!function || !context.lists_devices() || facts != nullptr))
        return false;
    return !pattern.storage || any_of(storage_drivers, is_driver) ||
           (facts != nullptr && facts->pci_class >> 8 == 0x01);
}

[[nodiscard]] bool matches_place(const CausePattern& pattern, const LogGroup& group,
                                 const LogContext& context) {
    const std::set<std::uint64_t>& addresses = group.addresses.kept();
    constexpr CausePattern anywhere;
    if (pattern.address != anywhere.address &&
        (addresses.empty() || *addresses.begin() < pattern.address[0] ||
         *addresses.rbegin() > pattern.address[1]))
        return false;
    if (!pattern.lies_in.empty() &&
        (addresses.empty() || !contains(context.at(*addresses.begin()), pattern.lies_in)))
        return false;
    const auto is_long = [](const AddressRun& run) { return run.count >= 3 && run.stride <= 4096; };
    return !pattern.consecutive || std::ranges::any_of(group.addresses.runs(), is_long);
}

[[nodiscard]] bool matches_time(const CausePattern& pattern, const LogGroup& group,
                                const LogContext& context) {
    if (pattern.after && !context.saw(*pattern.after))
        return false;
    constexpr CausePattern ever;
    return pattern.before_s == ever.before_s ||
           (group.begin_ns && *group.begin_ns / 1'000'000'000 < pattern.before_s);
}

} // namespace

std::string_view name(Verdict verdict) {
    constexpr std::array<std::string_view, 4> names = {"harmless", "not-started", "device-unusable",
                                                       "data-at-risk"};
    return names[static_cast<std::size_t>(verdict)];
}

std::span<const KnownCause> known_causes() {
    return causes;
}

std::string driver_of(const LogGroup& group, const LogContext& context) {
    if (const DeviceFacts* const facts = facts_of(group, context);
        facts != nullptr && !facts->driver.empty())
        return facts->driver;
    return group.first.driver;
}

bool matches(const CausePattern& pattern, const LogGroup& group, const LogContext& context) {
    return matches_event(pattern, group.first) && matches_device(pattern, group, context) &&
           matches_place(pattern, group, context) && matches_time(pattern, group, context);
}

const KnownCause& likeliest_cause(const LogGroup& group, const LogContext& context) {
    return *std::ranges::find_if(
        causes, [&](const KnownCause& cause) { return matches(cause.when, group, context); });
}

} // namespace moat::fault
