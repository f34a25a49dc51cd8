// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Why a mapping or a device was refused. Linux: drivers/vfio/vfio_iommu_type1.c, vfio.c, pci/*.c,
// drivers/pci/pci.c and rom.c. QEMU: hw/vfio/*.c, util/vfio-helpers.c. DPDK: lib/eal/linux/
// eal_vfio.c, drivers/bus/pci/linux/pci_vfio.c. SPDK: lib/env_dpdk/memory.c.
#include "fault/text_cursor.hpp"
#include "rows.hpp"

#include <utility>

namespace moat::fault {

namespace {

using Kind = LogEvent::Kind;

constexpr std::array<std::pair<std::string_view, int>, 10> errors = {{
    {"Operation not permitted", 1},
    {"No such file", 2},
    {"Permission denied", 13},
    {"Cannot allocate memory", 12},
    {"Bad address", 14},
    {"Device or resource busy", 16},
    {"File exists", 17},
    {"No such device", 19},
    {"Invalid argument", 22},
    {"No space left", 28},
}};

/// A number, or its message in English.
void interpret_error_text(LogEvent& event) {
    for (const auto& [words, number] : errors)
        if (!event.error && event.text.find(words) != event.text.npos)
            event.error = number;
}

/// QEMU prints a call that succeeded, too, when it is debugged.
void interpret_call(LogEvent& event) {
    if (event.error == 0)
        event.kind = Kind::note;
}

/// The container failed because a mapping did.
void interpret_container(LogEvent& event) {
    interpret_error_text(event);
    if (event.text.find("memory listener") != event.text.npos)
        event.kind = Kind::map_failure;
}

void interpret_no_entries(LogEvent& event) {
    event.error = 28;
}

void interpret_invalid_rom(LogEvent& event) {
    event.text = "the option ROM is invalid";
}

constexpr std::array vfio_rows = {
    // hw/vfio/common.c, container.c, container-legacy.c, spapr.c; util/vfio-helpers.c
    Row{.pattern =
            "dma_map ({hex:container}, {addr}, {hsize}, {hex:memory}) = {error}{? ({text})?}",
        .kind = Kind::map_failure,
        .head = Head::host,
        .begins = Message::vfio_mapping,
        .continues = Message::vfio,
        .interpret = interpret_call},
    // hw/vfio/listener.c, vfio_ram_discard_register_listener
    Row{.pattern = "possibly running out of DMA mappings{text}",
        .kind = Kind::map_failure,
        .interpret = interpret_no_entries},
    // vfio-ioctls, of cloud-hypervisor and Kata Containers: VfioError
    Row{.pattern = "IommuDmaMap(Error({error}))", .kind = Kind::map_failure},
    Row{.pattern = "IommuDmaUnmap(Error({error}))", .kind = Kind::map_failure},
    Row{.pattern = "qemu_vfio_dma_map({text}", .kind = Kind::map_failure},
    Row{.pattern = "qemu_vfio_{*}: {text}", .kind = Kind::map_failure},
    Row{.pattern = "vfio_dma_unmap({hex:container}, {addr}, {hsize}) = {error}{? ({text})?}",
        .kind = Kind::map_failure},
    Row{.pattern =
            "vfio_container_dma_unmap({hex:container}, {addr}, {hsize}) = {error}{? ({text})?}",
        .kind = Kind::map_failure},
    Row{.pattern = "iommufd_backend_map_dma{*}iova={addr} size={size}{text}",
        .kind = Kind::map_failure},
    Row{.pattern = "IOMMU_IOAS_MAP failed: {text}",
        .kind = Kind::map_failure,
        .head = Head::host,
        .begins = Message::vfio,
        .interpret = interpret_error_text},
    Row{.pattern = "IOMMU_IOAS_{text}",
        .kind = Kind::map_failure,
        .interpret = interpret_error_text},
    Row{.pattern = "VFIO_MAP_DMA: {error}",
        .kind = Kind::map_failure,
        .head = Head::host,
        .begins = Message::vfio},
    Row{.pattern = "VFIO_MAP_DMA failed: {text}",
        .kind = Kind::map_failure,
        .head = Head::host,
        .begins = Message::vfio,
        .interpret = interpret_error_text},
    Row{.pattern = "VFIO_MAP_DMA {text}",
        .kind = Kind::map_failure,
        .interpret = interpret_error_text},
    Row{.pattern = "VFIO_IOMMU_MAP_DMA {text}",
        .kind = Kind::map_failure,
        .interpret = interpret_error_text},
    Row{.pattern = "VFIO_UNMAP_DMA: {error}", .kind = Kind::map_failure},
    Row{.pattern = "VFIO_UNMAP_DMA failed: {text}",
        .kind = Kind::map_failure,
        .interpret = interpret_error_text},
    Row{.pattern = "VFIO_MAP_DMA", .kind = Kind::map_failure},
    Row{.pattern = "vfio: DMA mapping failed, {text}",
        .kind = Kind::map_failure,
        .continues = Message::vfio_mapping},
    Row{.pattern = "memory listener initialization failed{text}",
        .kind = Kind::map_failure,
        .interpret = interpret_error_text},
    // vfio_iommu_type1.c
    Row{.pattern = "RLIMIT_MEMLOCK ({size}) exceeded", .kind = Kind::memory_limit},
    Row{.pattern = "No interrupt remapping support.", .kind = Kind::device_refused},
    Row{.pattern = "No interrupt remapping for {text}", .kind = Kind::device_refused},
    // hw/vfio/pci.c, container.c
    Row{.pattern = "group {number:group} is not viable",
        .kind = Kind::device_refused,
        .head = Head::host},
    Row{.pattern = "Please ensure all devices within the iommu_group are bound",
        .kind = Kind::detail},
    Row{.pattern = "failed to setup container for group {number:group}{text}",
        .kind = Kind::device_refused,
        .head = Head::host,
        .begins = Message::vfio,
        .continues = Message::vfio,
        .interpret = interpret_container},
    Row{.pattern = "error bind device {text}",
        .kind = Kind::device_refused,
        .head = Head::host,
        .interpret = interpret_error_text},
    Row{.pattern = "error opening /dev/vfio/{text}",
        .kind = Kind::device_refused,
        .head = Head::host,
        .interpret = interpret_error_text},
    Row{.pattern = "failed to setup INTx fd{text}", .kind = Kind::device_refused},
    Row{.pattern = "failed to open /dev/vfio/{text}",
        .kind = Kind::device_refused,
        .head = Head::device,
        .interpret = interpret_error_text},
    Row{.pattern = "Could not open '/dev/vfio/{text}",
        .kind = Kind::device_refused,
        .interpret = interpret_error_text},
    Row{.pattern = "failed to get group{text}", .kind = Kind::device_refused, .head = Head::host},
    Row{.pattern = "no iommu_group found{text}",
        .kind = Kind::device_refused,
        .head = Head::device},
    Row{.pattern = "error getting device from group {number:group}{text}",
        .kind = Kind::device_refused,
        .head = Head::device,
        .interpret = interpret_error_text},
    Row{.pattern = "Verify all devices in group {number:group} are bound to vfio-",
        .kind = Kind::detail},
    Row{.pattern = "failed to add PCI capability{text}",
        .kind = Kind::device_refused,
        .head = Head::device},
    Row{.pattern = "Failed to set iommu for container{text}",
        .kind = Kind::device_refused,
        .interpret = interpret_error_text},
    Row{.pattern = "No available IOMMU models", .kind = Kind::device_refused},
    Row{.pattern = "Cannot reset device {device}, {text}", .kind = Kind::device_refused},
    Row{.pattern = "Unable to power on device, stuck in {text}",
        .kind = Kind::device_refused,
        .head = Head::device},
    Row{.pattern = "Failed to mmap {pci} BAR {number:bar}. Performance may be slow",
        .kind = Kind::detail},
    // kernel: drivers/pci/pci.c, pci_request_region; rom.c, pci_get_rom_size
    Row{.pattern = "BAR {number:bar}: can't reserve [mem {addr}-{last}{text}]",
        .kind = Kind::device_refused,
        .head = Head::device},
    Row{.pattern = "BAR {number:bar} [mem {addr}-{last}{text}]: can't reserve",
        .kind = Kind::device_refused,
        .head = Head::device},
    Row{.pattern = "BAR {number:bar}: can't reserve {text}",
        .kind = Kind::device_refused,
        .head = Head::device,
        .may_wrap = true},
    Row{.pattern = "can't reserve [mem {addr}-{last}{text}]",
        .kind = Kind::device_refused,
        .head = Head::device},
    Row{.pattern = "Invalid PCI ROM header signature: {text}",
        .kind = Kind::device_refused,
        .head = Head::device,
        .interpret = interpret_invalid_rom},
    Row{.pattern = "Invalid PCI ROM data signature: {text}",
        .kind = Kind::device_refused,
        .head = Head::device,
        .interpret = interpret_invalid_rom},
    Row{.pattern = "Invalid ROM contents",
        .kind = Kind::device_refused,
        .head = Head::device,
        .interpret = interpret_invalid_rom},
    Row{.pattern = "Firmware has requested this device have a 1:1 IOMMU mapping, rejecting "
                   "configuring the device without a 1:1 mapping",
        .kind = Kind::device_refused,
        .head = Head::device},
    Row{.pattern = "Unable to change power state from {text}",
        .kind = Kind::device_refused,
        .head = Head::device},
    Row{.pattern = "Refused to change power state{text}",
        .kind = Kind::device_refused,
        .head = Head::device},
    Row{.pattern = "not ready {*} after {text}",
        .kind = Kind::device_refused,
        .head = Head::device},
    Row{.pattern = "timed out waiting for pending transaction{text}",
        .kind = Kind::detail,
        .head = Head::device},
    Row{.pattern = "reset recovery - restoring BARs", .kind = Kind::detail, .head = Head::device},
    Row{.pattern = "vfio_bar_restore: {pci} reset recovery", .kind = Kind::detail},
    Row{.pattern = "vfio_ecap_init: {text}", .kind = Kind::note, .head = Head::device},
    Row{.pattern = "vfio_cap_init: {text}", .kind = Kind::note, .head = Head::device},
    Row{.pattern = "enabling device ({text})", .kind = Kind::note, .head = Head::device},
    Row{.pattern = "probe of {device} failed with error {error}", .kind = Kind::device_refused},
    Row{.pattern = "vgaarb: {text}", .kind = Kind::note, .head = Head::device},
    Row{.pattern = "vfio {pci}: device is {text}", .kind = Kind::device_refused},
    Row{.pattern = "vfio {pci}: Failed to set vIOMMU: {text}", .kind = Kind::device_refused},
    Row{.pattern = "vfio-noiommu {text}", .kind = Kind::note, .head = Head::device},
    Row{.pattern = "vfio_pci: add [{text}", .kind = Kind::setting},
    Row{.pattern = "VFIO - User Level meta-driver", .kind = Kind::note},
    // iommufd/main.c, iommufd_fops_open
    Row{.pattern = "IOMMUFD is providing /dev/vfio/vfio, not VFIO", .kind = Kind::note},
};

constexpr std::array dpdk_rows = {
    // eal_vfio.c, vfio_type1_dma_mem_map, rte_vfio_setup_device, vfio_set_iommu_type
    Row{.pattern = "Cannot {*} DMA remapping, error {error}{? ({text})?}",
        .kind = Kind::map_failure,
        .begins = Message::vfio},
    Row{.pattern = "EAL: {pci} DMA remapping failed, error {error}{? ({text})?}",
        .kind = Kind::map_failure,
        .continues = Message::vfio},
    Row{.pattern = "DMA remapping failed, error {error}{? ({text})?}",
        .kind = Kind::map_failure,
        .head = Head::device,
        .continues = Message::vfio},
    Row{.pattern = "Couldn't map user memory for DMA: va: {hex:memory} iova: {addr}",
        .kind = Kind::map_failure},
    Row{.pattern = "Couldn't map new region for DMA", .kind = Kind::map_failure},
    Row{.pattern = "Cannot set up DMA mapping, error {error}", .kind = Kind::map_failure},
    Row{.pattern = "DMA mapping failed{?, error {error}?}", .kind = Kind::map_failure},
    Row{.pattern = "EAL: {pci} VFIO group is not viable", .kind = Kind::device_refused},
    Row{.pattern = "VFIO group is not viable", .kind = Kind::device_refused, .head = Head::device},
    Row{.pattern = "EAL: set IOMMU type {number:type} ({*}) failed, error {error}{? ({text})?}",
        .kind = Kind::device_refused},
    Row{.pattern = "set IOMMU type {number:type} ({*}) failed, error {error}{? ({text})?}",
        .kind = Kind::device_refused},
    Row{.pattern = "failed to select IOMMU type",
        .kind = Kind::device_refused,
        .head = Head::device},
    Row{.pattern = "EAL: Cannot open VFIO{text}", .kind = Kind::device_refused},
    Row{.pattern = "EAL: Cannot open /dev/vfio{text}", .kind = Kind::device_refused},
    Row{.pattern = "EAL: Cannot get {text}", .kind = Kind::device_refused},
    Row{.pattern = "EAL: {pci} not managed by VFIO driver, skipping", .kind = Kind::note},
    Row{.pattern = "EAL: {pci} {*}fail{text}", .kind = Kind::device_refused},
    Row{.pattern = "EAL: Using IOMMU type {text}", .kind = Kind::setting},
    Row{.pattern = "EAL: VFIO support {text}", .kind = Kind::note},
    Row{.pattern = "EAL: Expecting 'PA' IOVA mode{text}", .kind = Kind::setting},
    Row{.pattern = "EAL: IOMMU {text}", .kind = Kind::setting},
    Row{.pattern = "EAL: {text}", .kind = Kind::note},
};

} // namespace

constinit const Dialect vfio_dialect = {Origin::vfio,
                                        "vfio|iommudma|memlock|can't reserve|rmrr|pci "
                                        "rom|iommu_ioas|iommu_group|1:1 iommu mapping|iommufd",
                                        vfio_rows};

constinit const Dialect dpdk_dialect = {Origin::dpdk, "eal: |dma remapping|dma mapping|for dma",
                                        dpdk_rows};

} // namespace moat::fault
