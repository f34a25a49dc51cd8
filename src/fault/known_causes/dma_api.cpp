// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Bounce buffers, and the kernel's checks of drivers.
#include "table.hpp"

namespace moat::fault {

namespace {

constexpr KnownCause dma_api_rows[] = {
    {.id = "swiotlb-full",
     .when = {.kind = Kind::bounce_full},
     .verdict = Verdict::data_at_risk,
     .cause = "No bounce buffer was free: a device with a short DMA mask, an untrusted "
              "(Thunderbolt) port or a confidential guest copies all its DMA.",
     .next = "cat /sys/kernel/debug/swiotlb/io_tlb_used /sys/kernel/debug/swiotlb/io_tlb_nslabs",
     .helps = "swiotlb=65536 doubles the default of 64 MiB; the memory is lost to everything else",
     .source = "Linux 6.12 kernel/dma/swiotlb.c, swiotlb_tbl_map_single; kernel-parameters.txt, "
               "swiotlb="},
    {.id = "dma-debug-overlap",
     .when = {.kind = Kind::driver_error, .texts = "overlap|EEXIST|cacheline"},
     .verdict = Verdict::data_at_risk,
     .cause = "The driver mapped two buffers that share a cache line; on machines without coherent "
              "DMA one destroys the other.",
     .next = "dmesg | grep -A25 DMA-API    # the stack names the function",
     .helps =
         "none: the driver must align its buffers (kmalloc, not the stack or parts of a structure)",
     .source = "Linux 6.12 kernel/dma/debug.c, add_dma_entry"},
    {.id = "dma-debug-wrong-free",
     .when = {.kind = Kind::driver_error,
              .texts = "frees|not mapped|wrong function|different size"},
     .verdict = Verdict::data_at_risk,
     .cause = "The driver unmapped a buffer in another way than it had mapped it: another address, "
              "size, direction or function.",
     .next = "dmesg | grep -A25 DMA-API    # the stack names the function",
     .helps = "none: with an IOMMU the rest of the buffer stays mapped, or a neighbour is unmapped",
     .source = "Linux 6.12 kernel/dma/debug.c, check_unmap"},
    {.id = "page-freed-while-mapped",
     .when = {.kind = Kind::driver_error, .texts = "page leak"},
     .verdict = Verdict::data_at_risk,
     .cause = "A page was freed while a device could still reach it: the device may overwrite its "
              "next owner.",
     .next = "dmesg | grep -A25 iommu    # the stack names who freed it",
     .source = "Linux 7.0 drivers/iommu/iommu-debug-pagealloc.c, __iommu_debug_check_unmapped"},
    {.id = "dma-debug-other",
     .when = {.kind = Kind::driver_error},
     .verdict = Verdict::data_at_risk,
     .cause = "The kernel's checks found a wrong call of the DMA API.",
     .next = "dmesg | grep -A25 DMA-API    # the stack names the function",
     .source = "Linux 6.12 kernel/dma/debug.c"},
};

} // namespace

constinit const std::span<const KnownCause> dma_api_causes = dma_api_rows;

} // namespace moat::fault
