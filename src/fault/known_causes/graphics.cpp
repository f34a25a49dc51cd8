// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Graphics: scan-out left on by firmware, and GPUs that use unmapped memory.
#include "table.hpp"

namespace moat::fault {

namespace {

constexpr KnownCause graphics_rows[] = {
    {.id = "igd-guest-stale-framebuffer",
     .when = {.kind = EventKind::fault,
              .origin = Origin::intel,
              .device = "00:02.0",
              .drivers = "vfio-pci"},
     .verdict = Verdict::harmless,
     .cause = "The integrated GPU is assigned to a guest and still reads a framebuffer of the host "
              "or of an earlier guest.",
     .next = "lspci -nnk -s 00:02.0    # the faults stop when the guest's driver sets a mode",
     .helps = "initcall_blacklist=sysfb_init keeps the host off the framebuffer; the host then has "
              "no boot console",
     .source = "QEMU docs/igd-assign.txt"},
    {.id = "igd-firmware-scanout",
     .when = {.kind = EventKind::fault,
              .origin = Origin::intel,
              .access = Access::read,
              .device = "00:02.0",
              .before_s = 10},
     .verdict = Verdict::harmless,
     .cause = "The firmware left the integrated GPU's display on: the GPU read the boot "
              "framebuffer until its driver took over.",
     .next = "dmesg | grep -i -e i915 -e drm    # the faults stop where the driver takes over",
     .helps = "intel_iommu=igfx_off silences them; the GPU may then access all memory",
     .source = "Linux Documentation/arch/x86/iommu.rst, Graphics Problems?"},
    {.id = "igd-not-mapped",
     .when = {.kind = EventKind::fault, .origin = Origin::intel, .device = "00:02.0"},
     .verdict = Verdict::device_unusable,
     .cause = "The integrated GPU accessed memory that its driver had not mapped, or had already "
              "unmapped.",
     .next = "dmesg | grep -i -e i915 -e 'GPU HANG'",
     .helps = "intel_iommu=igfx_off excludes only the GPU; it may then access all memory",
     .fix = "Linux excludes the GPUs that are known to fail (Broadwell, Ironlake, G4x); use a "
            "current kernel",
     .source = "Linux 6.12 drivers/iommu/intel/iommu.c, quirk_iommu_igfx"},
    {.id = "xen-igd",
     .when = {.kind = EventKind::fault, .origin = Origin::xen, .device = "00:02.0"},
     .verdict = Verdict::harmless,
     .cause =
         "The firmware's framebuffer lies outside the memory that Xen maps for the integrated GPU.",
     .next = "xl dmesg | grep -i -e vt-d -e rmrr    # is the framebuffer among the RMRRs?",
     .helps = "iommu=no-igfx on Xen's command line excludes the GPU; it may then access all memory",
     .source = "Xen docs/misc/xen-command-line, iommu: igfx"},
    {.id = "gpu-firmware-scanout",
     .when =
         {.kind = EventKind::fault, .access = Access::read, .drivers = gpu_drivers, .before_s = 10},
     .verdict = Verdict::harmless,
     .cause = "The GPU still read the firmware's framebuffer when the IOMMU was enabled.",
     .next = "dmesg | grep -i drm    # the faults stop where the driver sets up the display",
     .helps = "iommu=pt maps memory one to one: interrupt remapping stays, DMA protection does not",
     .source = "Linux Documentation/arch/x86/iommu.rst, AMD Specific Notes"},
    {.id = "display-firmware-scanout",
     .when = {.kind = EventKind::fault,
              .access = Access::read,
              .texts = "display|fimd|decon|vop|dpu|mdss|dss|drm|simplefb",
              .before_s = 15},
     .verdict = Verdict::harmless,
     .cause = "The boot loader left the display on: its controller read the splash screen until "
              "its driver took over.",
     .next = "dmesg | grep -i -e drm -e simple-framebuffer",
     .helps = "an iommu-addresses property of the framebuffer's reserved-memory node maps it from "
              "the start",
     .source = "Linux Documentation/devicetree/bindings/reserved-memory, iommu-addresses"},
    {.id = "gpu-ats",
     .when = {.kind = EventKind::invalidation, .drivers = gpu_drivers},
     .verdict = Verdict::device_unusable,
     .cause = "The GPU did not answer an invalidation of its own translation cache (ATS): it "
              "hangs, or its firmware implements ATS wrongly.",
     .next = "dmesg | grep -i -e 'ring .* timeout' -e 'GPU reset' -e Xid",
     .helps =
         "pci=noats disables device translation caches; shared virtual memory then does not work",
     .fix = "Linux disables ATS on several AMD GPUs; use a current kernel",
     .source = "Linux 6.12 drivers/pci/quirks.c, quirk_amd_harvest_no_ats"},
    {.id = "gpu-not-mapped",
     .when = {.kind = EventKind::fault, .drivers = gpu_drivers},
     .verdict = Verdict::device_unusable,
     .cause = "The GPU accessed memory that its driver had not mapped, or had already unmapped. "
              "GPUs also prefetch past the end of a buffer.",
     .next = "dmesg | grep -i -e 'ring .* timeout' -e 'GPU HANG' -e Xid",
     .helps = "iommu=pt hides the fault: the stray access then reaches memory",
     .source = "ROCm issue 6413: a documented prefetch of 8 KiB measured as 20 to 28 KiB"},
};

} // namespace

constinit const std::span<const KnownCause> graphics_causes = graphics_rows;

} // namespace moat::fault
