// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Bounce buffers, and the kernel's checks of drivers.
#include "table.hpp"

namespace moat::fault {

namespace {

constexpr KnownCause dma_api_rows[] = {
    {.id = "swiotlb-full",
     .when = {.kind = EventKind::bounce_full},
     .verdict = Verdict::data_at_risk,
     .cause = "No bounce buffer was free: a device with a short DMA mask, an untrusted "
              "(Thunderbolt) port or a confidential guest copies all its DMA.",
     .next = "cat /sys/kernel/debug/swiotlb/io_tlb_used /sys/kernel/debug/swiotlb/io_tlb_nslabs",
     .helps = "swiotlb=65536 doubles the default of 64 MiB; the memory is lost to everything else",
     .source = "Linux 6.12 kernel/dma/swiotlb.c, swiotlb_tbl_map_single; kernel-parameters.txt, "
               "swiotlb="},
    {.id = "dma-mask",
     .when = {.kind = EventKind::driver_error, .reason = Reason::address_size},
     .verdict = Verdict::device_unusable,
     .cause =
         "The memory lies above what the device can address (its DMA mask), and no bounce buffer "
         "took its place: the kernel refused the mapping.",
     .next = "dmesg | grep -i -e swiotlb -e 'DMA mask'",
     .helps =
         "swiotlb=force,65536 gives bounce buffers, which cost memory and time; an IOMMU needs "
         "none",
     .source = "Linux 6.12 kernel/dma/direct.h, dma_direct_map_page"},
    {.id = "dma-debug-overlap",
     .when = {.kind = EventKind::driver_error, .texts = "overlap|EEXIST|cacheline"},
     .verdict = Verdict::data_at_risk,
     .cause = "The driver mapped two buffers that share a cache line; on machines without coherent "
              "DMA one destroys the other.",
     .next = "dmesg | grep -A25 DMA-API    # the stack names the function",
     .helps =
         "none: the driver must align its buffers (kmalloc, not the stack or parts of a structure)",
     .source = "Linux 6.12 kernel/dma/debug.c, add_dma_entry"},
    {.id = "dma-debug-wrong-free",
     .when = {.kind = EventKind::driver_error,
              .texts = "frees|not mapped|wrong function|different size"},
     .verdict = Verdict::data_at_risk,
     .cause = "The driver unmapped a buffer in another way than it had mapped it: another address, "
              "size, direction or function.",
     .next = "dmesg | grep -A25 DMA-API    # the stack names the function",
     .helps = "none: with an IOMMU the rest of the buffer stays mapped, or a neighbour is unmapped",
     .source = "Linux 6.12 kernel/dma/debug.c, check_unmap"},
    {.id = "page-freed-while-mapped",
     .when = {.kind = EventKind::driver_error, .texts = "page leak"},
     .verdict = Verdict::data_at_risk,
     .cause = "A page was freed while a device could still reach it: the device may overwrite its "
              "next owner.",
     .next = "dmesg | grep -A25 iommu    # the stack names who freed it",
     .source = "Linux 7.0 drivers/iommu/iommu-debug-pagealloc.c, __iommu_debug_check_unmapped"},
    {.id = "dma-debug-leak",
     .when = {.kind = EventKind::driver_error, .texts = "pending DMA"},
     .verdict = Verdict::data_at_risk,
     .cause = "The driver let the device go without unmapping its buffers: the device may still "
              "write to them, and their memory is lost.",
     .next = "dmesg | grep -A25 DMA-API    # the leaked mapping, and the stack",
     .source = "Linux 6.12 kernel/dma/debug.c, dma_debug_device_change"},
    {.id = "iommu-driver-bug",
     .when = {.kind = EventKind::driver_error, .origin = Origin::kernel, .texts = "drivers/iommu"},
     .verdict = Verdict::device_unusable,
     .cause = "The IOMMU's driver met a state that it does not handle: often a fault that no "
              "driver handles, or a second mapping of an address.",
     .next = "dmesg | grep -B5 -A30 drivers/iommu    # the stack names the caller",
     .source = "Linux Documentation/admin-guide/bug-hunting.rst"},
    {.id = "dma-debug-other",
     .when = {.kind = EventKind::driver_error},
     .verdict = Verdict::data_at_risk,
     .cause = "The kernel's checks found a wrong call of the DMA API.",
     .next = "dmesg | grep -A25 DMA-API    # the stack names the function",
     .source = "Linux 6.12 kernel/dma/debug.c"},
};

} // namespace

constinit const std::span<const KnownCause> dma_api_causes = dma_api_rows;

} // namespace moat::fault
