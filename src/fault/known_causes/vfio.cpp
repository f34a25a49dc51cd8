// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Devices and mappings that VFIO refuses to programs and virtual machines.
#include "table.hpp"

namespace moat::fault {

namespace {

constexpr KnownCause vfio_cause_rows[] = {
    {.id = "memlock",
     .when = {.kind = EventKind::memory_limit},
     .verdict = Verdict::not_started,
     .cause = "The process may not lock as much memory as the device needs: a device can reach "
              "only locked memory.",
     .next = "ulimit -l; prlimit --memlock -p PID",
     .helps = "LimitMEMLOCK=infinity for a service, memlock in limits.conf for a user, "
              "<hard_limit> for libvirt; the process may then lock all memory",
     .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vfio_pin_pages_remote"},
    {.id = "map-no-memory",
     .when = {.kind = EventKind::map_failure, .error = 12},
     .verdict = Verdict::not_started,
     .cause = "Pinning failed: the process reached its limit of locked memory (RLIMIT_MEMLOCK), or "
              "memory is short.",
     .next = "ulimit -l; dmesg | grep RLIMIT_MEMLOCK",
     .helps = "LimitMEMLOCK=infinity, memlock in limits.conf; the process may then lock all memory",
     .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vfio_pin_pages_remote"},
    {.id = "map-no-entries",
     .when = {.kind = EventKind::map_failure, .error = 28},
     .verdict = Verdict::not_started,
     .cause = "The container has all the mappings that VFIO allows: 65,535.",
     .next = "cat /sys/module/vfio_iommu_type1/parameters/dma_entry_limit",
     .helps =
         "map larger pieces (huge pages), or raise dma_entry_limit; a mapping costs kernel memory",
     .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vfio_dma_do_map"},
    {.id = "map-exists",
     .when = {.kind = EventKind::map_failure, .error = 17},
     .verdict = Verdict::not_started,
     .cause = "A part of this device address range is mapped already: two owners share the "
              "container, or an unmap was forgotten.",
     .next = "look for an earlier map of the same IOVA in the program's log",
     .helps = "none: ignoring the error leaves the device with the old memory",
     .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vfio_dma_do_map"},
    {.id = "map-memory-not-pinned",
     .when = {.kind = EventKind::map_failure,
              .texts = "unable to continue|setup container|memory listener|IommuDmaMap",
              .error = 14},
     .verdict = Verdict::not_started,
     .cause = "The guest's memory cannot be pinned for writing: a read-only or DAX file backs it, "
              "its pages do not exist (postcopy, huge pages in use up), or it is a device's BAR.",
     .next = "compare the address with the guest's memory and BARs; df -h /dev/hugepages /dev/shm",
     .helps = "back the guest's memory with anonymous or shared memory; a read-only image needs "
              "another device than nvdimm",
     .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vaddr_get_pfns"},
    {.id = "map-bar-of-peer",
     .when = {.kind = EventKind::map_failure, .error = 14},
     .verdict = Verdict::harmless,
     .cause = "The memory to map cannot be pinned. In a virtual machine it is usually a device's "
              "BAR: only peer-to-peer transfers between assigned devices need it.",
     .next = "compare the address with the guest's BARs: lspci -v in the guest",
     .helps = "x-no-mmap=on for the device avoids the message; its BARs get slow",
     .source = "QEMU hw/vfio/common.c, vfio_listener_region_add"},
    {.id = "map-outside-aperture",
     .when = {.kind = EventKind::map_failure, .error = 22},
     .verdict = Verdict::not_started,
     .cause = "The address is not aligned to the IOMMU's page size, lies in a reserved range (MSI "
              "window, RMRR), or is above the IOMMU's reach, as the BAR of a large GPU in a guest "
              "with 48-bit addresses is.",
     .next = "cat /sys/kernel/iommu_groups/*/reserved_regions; dmesg | grep 'Host address width'",
     .helps = "-cpu host,host-phys-bits=on,host-phys-bits-limit=39 keeps the guest's addresses in "
              "reach; very large BARs then do not fit",
     .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vfio_iommu_iova_dma_valid"},
    {.id = "map-failed",
     .when = {.kind = EventKind::map_failure},
     .verdict = Verdict::not_started,
     .cause = "The kernel refused to map memory for the device; what the program does without it "
              "is its own choice.",
     .next = "dmesg | tail; ulimit -l",
     .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vfio_dma_do_map"},
    {.id = "bar-held-by-boot-framebuffer",
     .when = {.kind = EventKind::device_refused, .texts = "can't reserve"},
     .verdict = Verdict::not_started,
     .cause =
         "Another driver holds the BAR: usually the boot framebuffer (efifb, simplefb, vesafb).",
     .next = "grep -i -e efifb -e simple -e BOOTFB /proc/iomem",
     .helps = "video=efifb:off, or initcall_blacklist=sysfb_init for newer kernels; the host then "
              "has no boot console",
     .source = "Linux 6.12 drivers/pci/pci.c, __pci_request_region"},
    {.id = "group-not-viable",
     .when = {.kind = EventKind::device_refused, .texts = "viable"},
     .verdict = Verdict::not_started,
     .cause = "Another device of the same IOMMU group is bound to a host driver; a group is given "
              "away whole.",
     .next = "ls -l /sys/bus/pci/devices/{device}/iommu_group/devices/*/driver",
     .helps = "bind all of them to vfio-pci, or use another slot; pcie_acs_override splits groups "
              "without isolating them",
     .source = "Linux Documentation/driver-api/vfio.rst, Groups, Devices, and IOMMUs"},
    {.id = "rom-header",
     .when = {.texts = "ROM header|ROM contents"},
     .verdict = Verdict::harmless,
     .cause = "The device's option ROM is absent, or was shadowed by the firmware; only a guest's "
              "boot screen needs it.",
     .next = "lspci -vs {device} | grep 'Expansion ROM'",
     .helps = "romfile=FILE gives QEMU the ROM; rombar=0 hides it",
     .source = "Linux 6.12 drivers/pci/rom.c, pci_get_rom_size"},
    {.id = "no-interrupt-remapping",
     .when = {.texts = "allow_unsafe_interrupts|interrupt remapping support"},
     .verdict = Verdict::not_started,
     .cause = "The machine does not remap interrupts, so VFIO refuses the device.",
     .next = "dmesg | grep -i -e remap -e x2apic; enable VT-d or AMD-Vi fully in the firmware",
     .helps = "vfio_iommu_type1.allow_unsafe_interrupts=1 permits it; a guest can then inject host "
              "interrupts",
     .source = "Linux 6.12 drivers/vfio/vfio_iommu_type1.c, vfio_iommu_type1_attach_group"},
    {.id = "device-refused",
     .when = {.kind = EventKind::device_refused},
     .verdict = Verdict::not_started,
     .cause = "The kernel does not give the device to a program or guest.",
     .next = "ls -l /sys/bus/pci/devices/{device}/iommu_group/devices/; lspci -nnks {device}",
     .source = "Linux Documentation/driver-api/vfio.rst"},
};

} // namespace

constinit const std::span<const KnownCause> vfio_causes = vfio_cause_rows;

} // namespace moat::fault
