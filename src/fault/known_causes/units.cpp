// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Invalidations without an answer, the tables and errors of IOMMUs, streams, EEH.
#include "table.hpp"

namespace moat::fault {

namespace {

constexpr KnownCause unit_rows[] = {
    // Invalidations.
    {.id = "nvme-reset-ats",
     .when = {.kind = EventKind::invalidation, .drivers = "nvme"},
     .verdict = Verdict::data_at_risk,
     .cause = "The SSD did not answer an invalidation of its translation cache (ATS): it was in "
              "reset, asleep or gone.",
     .next = "dmesg | grep -i -e nvme -e AER; nvme smart-log /dev/nvme0",
     .helps = "pci=noats disables device translation caches; nvme_core.default_ps_max_latency_us=0 "
              "keeps the SSD awake and warm",
     .source =
         "Linux 6.12 drivers/iommu/intel/dmar.c, qi_check_fault; kernel-parameters.txt, pci=noats"},
    {.id = "device-gone-ats",
     .when = {.kind = EventKind::invalidation, .after = Milestone::link_lost},
     .verdict = Verdict::device_unusable,
     .cause = "The device was removed, or its link went down, before the IOMMU had invalidated its "
              "translation cache (ATS).",
     .next = "dmesg | grep -i -e pciehp -e AER -e 'Link Down'",
     .helps =
         "pci=noats disables device translation caches; shared virtual memory then does not work",
     .fix = "Linux skips the invalidation of an absent device since 6.9 "
            "(devtlb_invalidation_with_pasid, pci_dev_is_disconnected)",
     .source = "Linux 6.12 drivers/iommu/intel/pasid.c"},
    {.id = "amd-completion-wait",
     .when = {.kind = EventKind::invalidation, .origin = Origin::amd},
     .verdict = Verdict::device_unusable,
     .cause = "The IOMMU did not finish a command: it waits for a device that does not answer an "
              "invalidation of its translation cache (ATS), or it lost its tables in sleep.",
     .next = "dmesg | grep -i -e AMD-Vi -e amdgpu -e AER -e 'PM: '",
     .helps =
         "pci=noats disables device translation caches; shared virtual memory then does not work",
     .source = "Linux 6.12 drivers/iommu/amd/iommu.c, wait_on_sem"},
    {.id = "device-iotlb-timeout",
     .when = {.kind = EventKind::invalidation},
     .verdict = Verdict::device_unusable,
     .cause = "A device did not answer an invalidation of its translation cache (ATS): it hangs, "
              "sleeps, is in reset or gone.",
     .next = "dmesg | grep -i -e AER -e 'Link Down' -e reset",
     .helps =
         "pci=noats disables device translation caches; shared virtual memory then does not work",
     .source =
         "Linux 6.12 drivers/iommu/intel/dmar.c, qi_check_fault; kernel-parameters.txt, pci=noats"},

    // Tables and the unit itself.
    {.id = "stream-match-conflict",
     .when = {.origin = Origin::smmu_v2, .texts = "stream match conflict"},
     .verdict = Verdict::device_unusable,
     .cause = "Two stream-match registers match the stream: the firmware left one behind, or two "
              "iommus properties overlap in StreamID and mask.",
     .next = "find /proc/device-tree -name iommus; dmesg | grep -i -e smmu -e 'stream match'",
     .source = "Arm SMMUv2 specification IHI 0062, SMMU_sGFSR.SMCF"},
    {.id = "reserved-bits",
     .when = {.kind = EventKind::fault, .reason = Reason::malformed_table},
     .verdict = Verdict::device_unusable,
     .cause =
         "An entry of the IOMMU's tables has bits that this unit does not know: an address beyond "
         "its width, a large page or a snoop bit that it does not support, or damaged memory.",
     .next = "dmesg | grep -i -e 'DMAR.*cap' -e 'Host address width'",
     .helps = "intel_iommu=sp_off excludes large pages as the cause; DMA then gets slower",
     .source =
         "VT-d specification, fault reason 0Ch; Linux kernel-parameters.txt, intel_iommu=sp_off"},
    {.id = "pte-already-set",
     .when = {.texts = "already set"},
     .verdict = Verdict::data_at_risk,
     .cause = "Two mappings used the same device address: the kernel's bookkeeping of addresses is "
              "wrong, or memory is damaged.",
     .next = "dmesg | grep -B2 -A30 'already set'    # the stack names the driver",
     .helps = "none that is safe: one of the two buffers gets the other's data",
     .source = "Linux 6.12 drivers/iommu/intel/iommu.c, __domain_mapping"},
    {.id = "width-39",
     .when = {.texts = "width|not sufficient"},
     .verdict = Verdict::not_started,
     .cause = "The IOMMU translates fewer address bits than the mapping needs: a huge BAR or a "
              "guest's memory lies above its reach (39 bits reach 512 GiB).",
     .next = "dmesg | grep -i -e 'Host address width' -e DRHD; lspci -vs {device}",
     .helps = "disable \"Above 4G decoding\" or Resizable BAR, or limit the guest: -cpu "
              "host,phys-bits=39 or -global q35-pcihost.pci-hole64-size=2G; the BAR gets smaller",
     .source = "Linux 6.12 drivers/iommu/intel/iommu.c, intel_iommu_map"},
    {.id = "unit-hardware-error",
     .when = {.texts = "HARDWARE_ERROR"},
     .verdict = Verdict::data_at_risk,
     .cause = "The IOMMU met an error of its hardware, or of memory that holds its tables.",
     .next = "dmesg | grep -i -e mce -e edac -e 'Hardware Error'; test the memory",
     .helps = "a firmware update",
     .source = "AMD specification 48882, DEV_TAB_HARDWARE_ERROR and PAGE_TAB_HARDWARE_ERROR"},
    {.id = "illegal-command",
     .when = {.kind = EventKind::unit_error, .origin = Origin::amd, .texts = "COMMAND"},
     .verdict = Verdict::data_at_risk,
     .cause = "The IOMMU read a command that it does not know: its command buffer was overwritten, "
              "or was lost in sleep.",
     .next = "dmesg | grep -e AMD-Vi -e 'PM: '",
     .helps = "a kernel or firmware update",
     .source = "AMD specification 48882, ILLEGAL_COMMAND_ERROR"},
    {.id = "rmp",
     .when = {.origin = Origin::amd, .texts = "RMP"},
     .verdict = Verdict::data_at_risk,
     .cause = "A device accessed memory of a confidential guest (SEV-SNP), which the reverse map "
              "table forbids.",
     .next = "dmesg | grep -i -e sev -e RMP",
     .helps = "none: the guest's memory may be written only by the guest",
     .source = "AMD specification 48882, RMP_PAGE_FAULT"},

    // Arm.
    {.id = "unidentified-stream",
     .when = {.origin = Origin::smmu_v2, .reason = Reason::not_attached},
     .verdict = Verdict::device_unusable,
     .cause = "A device has no stream mapping: its node lacks an iommus property, or firmware or a "
              "coprocessor drives it before its driver does.",
     .next = "find /proc/device-tree -name iommus; dmesg | grep -i smmu",
     .helps =
         "arm-smmu.disable_bypass=0 lets unknown streams through; they may then access all memory",
     .source = "Linux 6.12 drivers/iommu/arm/arm-smmu/arm-smmu.c, arm_smmu_global_fault"},
    {.id = "stream-table",
     .when = {.origin = Origin::smmu_v3, .reason = Reason::not_attached},
     .verdict = Verdict::device_unusable,
     .cause = "The stream table has no entry for this StreamID: the IORT table or the iommu-map "
              "property does not list the device, or no driver is bound.",
     .next = "ls /sys/kernel/iommu_groups/*/devices; dmesg | grep -i -e smmu -e iort",
     .helps = "arm-smmu-v3.disable_bypass=0 lets unknown streams through; they may then access all "
              "memory",
     .source = "Arm SMMUv3 specification IHI 0070, C_BAD_STREAMID and C_BAD_STE"},

    // POWER.
    {.id = "eeh-frozen",
     .when = {.kind = EventKind::isolated},
     .verdict = Verdict::device_unusable,
     .cause = "The PCI bridge cut the device off after an error: a DMA to an address that is not "
              "mapped, or a bus error.",
     .next = "dmesg | grep -A30 EEH; opal-prd or errpt on the host",
     .helps = "eeh=off shows the raw error; it is meant for debugging only",
     .source = "Linux 6.12 Documentation/arch/powerpc/eeh-pci-error-recovery.rst"},
};

} // namespace

constinit const std::span<const KnownCause> unit_causes = unit_rows;

} // namespace moat::fault
