// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The order of dialects: a line belongs to the first one with a matching row. Hypervisors come
// before the kernels whose words they use.
#include "rows.hpp"

namespace moat::fault {

std::span<const Dialect> dialects() {
    static const std::array all = {
        xen_dialect,    openbsd_dialect, freebsd_dialect, qemu_dialect,    intel_dialect,
        amd_dialect,    smmu_v2_dialect, smmu_v3_dialect, soc_dialect,     riscv_dialect,
        virtio_dialect, vfio_dialect,    dpdk_dialect,    swiotlb_dialect, dma_debug_dialect,
        eeh_dialect,    kernel_dialect};
    return all;
}

} // namespace moat::fault
