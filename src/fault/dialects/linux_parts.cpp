// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Other parts of Linux: kernel/dma/swiotlb.c, debug.c, direct.c; arch/powerpc/kernel/eeh.c;
// drivers/iommu/iommu.c, dma-iommu.c; what a boot log says of devices and settings.
#include "moat/fault/record.hpp"

#include "rows.hpp"

namespace moat::fault {

namespace {

using Kind = LogEvent::Kind;

constexpr std::array swiotlb_rows = {
    // swiotlb_tbl_map_single; before Linux 4.20 without the counts
    Row{.pattern =
            "swiotlb buffer is full (sz: {size} bytes){?, total {number:total} (slots), used "
            "{number:used} (slots)?}",
        .kind = Kind::bounce_full,
        .head = Head::device},
    Row{.pattern = "Out of SW-IOMMU space for {size} bytes{? at device {device}?}",
        .kind = Kind::bounce_full,
        .head = Head::device},
    Row{.pattern = "swiotlb: coherent allocation failed{text}", .kind = Kind::bounce_full},
    Row{.pattern = "software IO TLB: {text}", .kind = Kind::setting},
    Row{.pattern = "PCI-DMA: Using software bounce buffering for IO (SWIOTLB)",
        .kind = Kind::setting},
    Row{.pattern = "swiotlb={text}", .kind = Kind::setting},
    Row{.pattern = "swiotlb_{*}: {count} callbacks suppressed", .kind = Kind::suppressed},
};

constexpr std::array dma_debug_rows = {
    // err_printk: the device before it
    Row{.pattern = "DMA-API: device driver {text} [device address={addr}] [size={size} bytes]",
        .kind = Kind::driver_error,
        .head = Head::device},
    Row{.pattern = "DMA-API: device driver {text} [device address={addr}]",
        .kind = Kind::driver_error,
        .head = Head::device},
    Row{.pattern = "DMA-API: device driver {text} [addr={hex:memory}] [len={size}]",
        .kind = Kind::driver_error,
        .head = Head::device},
    Row{.pattern = "DMA-API: device driver {text}",
        .kind = Kind::driver_error,
        .head = Head::device,
        .may_wrap = true},
    Row{.pattern = "DMA-API: mapping sg {text}", .kind = Kind::driver_error, .head = Head::device},
    Row{.pattern = "DMA-API: cacheline tracking {text}",
        .kind = Kind::driver_error,
        .head = Head::device},
    // active_cacheline_insert and others: the device after it
    Row{.pattern = "DMA-API: {driver} {pci}: {text}", .kind = Kind::driver_error},
    Row{.pattern = "DMA-API: {driver}: cacheline tracking {text}", .kind = Kind::driver_error},
    Row{.pattern = "DMA-API: exceeded {text}", .kind = Kind::driver_error, .head = Head::device},
    Row{.pattern = "DMA-API: preallocated {text}", .kind = Kind::setting},
    Row{.pattern = "DMA-API: debugging {text}", .kind = Kind::setting},
    Row{.pattern = "DMA-API: {text}", .kind = Kind::driver_error, .head = Head::device},
};

/// Partitionable endpoints have numbers of their own; a later line may name the PCI function.
void interpret_partition(LogEvent& event) {
    event.device = "PHB#" + hexadecimal(event.number("phb").value_or(0)).substr(2);
    if (const auto endpoint = event.number("pe"))
        event.device += "-PE#" + hexadecimal(*endpoint).substr(2);
}

constexpr std::array eeh_rows = {
    // eeh_dev_check_failure, eeh_event_handler, eeh_handle_normal_event
    Row{.pattern = "Frozen PE#{hex:pe} on PHB#{hex:phb} detected",
        .kind = Kind::isolated,
        .interpret = interpret_partition},
    Row{.pattern = "Frozen PHB#{hex:phb}-PE#{hex:pe} detected",
        .kind = Kind::isolated,
        .interpret = interpret_partition},
    Row{.pattern = "EEH: Recovering PHB#{hex:phb}-PE#{hex:pe}", .kind = Kind::detail},
    Row{.pattern = "EEH: PHB#{hex:phb} failure detected",
        .kind = Kind::isolated,
        .interpret = interpret_partition},
    Row{.pattern = "EEH: PHB#{hex:phb}-PE#{hex:pe}: {text}", .kind = Kind::detail},
    Row{.pattern = "EEH: Unable to recover {text}", .kind = Kind::isolated},
    Row{.pattern = "EEH: {text}", .kind = Kind::detail},
};

constexpr std::array kernel_rows = {
    Row{.pattern = "Linux version {text}", .kind = Kind::kernel_version},
    Row{.pattern = "Kernel command line: {text}", .kind = Kind::setting},
    Row{.pattern = "Command line: {text}", .kind = Kind::setting},
    // drivers/pci/probe.c, pci_setup_device
    Row{.pattern = "pci {pci}: [{text}] type {*} class {hex:class}", .kind = Kind::device_name},
    // iommu.c, iommu_group_add_device, iommu_subsys_init, iommu_dma_setup
    Row{.pattern = "Adding to iommu group {number:group}",
        .kind = Kind::device_name,
        .head = Head::device},
    Row{.pattern = "Adding device {pci} to group {number:group}", .kind = Kind::device_name},
    Row{.pattern = "Removing from iommu group {number:group}",
        .kind = Kind::device_name,
        .head = Head::device},
    Row{.pattern = "Default domain type: {text}", .kind = Kind::setting},
    Row{.pattern = "DMA domain TLB invalidation policy: {text}", .kind = Kind::setting},
    Row{.pattern = "Failed to set up IOMMU {text}",
        .kind = Kind::unit_refused,
        .head = Head::device},
    Row{.pattern = "Using IOMMU {text}", .kind = Kind::setting, .head = Head::device},
    Row{.pattern = "Firmware has requested this device have a 1:1 IOMMU mapping{text}",
        .kind = Kind::device_refused,
        .head = Head::device},
    Row{.pattern = "Failed to create direct mappings{text}", .kind = Kind::unit_refused},
    Row{.pattern = "unaligned: iova {addr} pa {hex:physical} size {hsize}",
        .kind = Kind::map_failure},
    // iommu-debug-pagealloc.c: a page was freed while a device could reach it
    Row{.pattern = "Detected page leak!", .kind = Kind::driver_error},
    Row{.pattern = "page owner: {text}", .kind = Kind::note},
    // kernel/dma/direct.c, dma_direct_map_phys
    Row{.pattern = "DMA addr {addr}+{size} overflow (mask {hex:mask}, bus limit {hex:limit})",
        .kind = Kind::driver_error,
        .reason = Reason::address_size,
        .head = Head::device},
    Row{.pattern = "overflow {addr}+{size} of DMA mask {hex:mask}{? bus {*} {hex:limit}?}",
        .kind = Kind::driver_error,
        .reason = Reason::address_size,
        .head = Head::device},
    Row{.pattern = "overflow {addr}+{size} of device mask {hex:mask}",
        .kind = Kind::driver_error,
        .reason = Reason::address_size,
        .head = Head::device},
    Row{.pattern = "WARNING: {*}drivers/iommu/{text}", .kind = Kind::driver_error},
    Row{.pattern = "kernel BUG at drivers/iommu/{text}", .kind = Kind::driver_error},
    // frames of a stack, modules, processes, boot loaders, tools
    Row{.pattern = "+0x{hex:offset}/0x{hex:length}", .kind = Kind::note},
    Row{.pattern = "Modules linked in:{text}", .kind = Kind::note},
    Row{.pattern = "Comm: {text}", .kind = Kind::note},
    Row{.pattern = "PCI-DMA: {text}", .kind = Kind::setting},
    Row{.pattern = "intel_iommu={text}", .kind = Kind::setting},
    Row{.pattern = "amd_iommu={text}", .kind = Kind::setting},
    Row{.pattern = "iommu={text}", .kind = Kind::setting},
    Row{.pattern = "iommu.passthrough={text}", .kind = Kind::setting},
    Row{.pattern = "iommu.strict={text}", .kind = Kind::setting},
    Row{.pattern = "arm-smmu.{text}", .kind = Kind::setting},
    Row{.pattern = "iommu.forcedac={text}", .kind = Kind::setting},
    Row{.pattern = "vfio_iommu_type1.{text}", .kind = Kind::setting},
    Row{.pattern = "IOMMU group {text}", .kind = Kind::device_name},
    Row{.pattern = "/sys/kernel/iommu_groups{text}", .kind = Kind::device_name},
    Row{.pattern = "trace (iommu events)", .kind = Kind::note},
};

} // namespace

constinit const Dialect swiotlb_dialect = {Origin::swiotlb, "swiotlb|sw-iommu|software io tlb",
                                           swiotlb_rows};

constinit const Dialect dma_debug_dialect = {Origin::dma_debug, "dma-api", dma_debug_rows};

constinit const Dialect eeh_dialect = {Origin::eeh, "eeh", eeh_rows};

constinit const Dialect kernel_dialect = {Origin::kernel,
                                          "iommu|linux version|command line|class 0x|dma "
                                          "mask|device mask|bus limit|dma addr|smmu|pci-dma",
                                          kernel_rows};

} // namespace moat::fault
