// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The tables of dialects, one file a family of IOMMUs or programs. Each row cites the function that
// prints the line, above it. all.cpp, the only caller, puts them in order.
#pragma once

#include "fault/pattern.hpp"

namespace moat::fault {

extern const Dialect xen_dialect;
extern const Dialect openbsd_dialect;
extern const Dialect freebsd_dialect;
extern const Dialect intel_dialect;
extern const Dialect amd_dialect;
extern const Dialect smmu_v3_dialect;
extern const Dialect smmu_v2_dialect;
extern const Dialect soc_dialect;
extern const Dialect riscv_dialect;
extern const Dialect virtio_dialect;
extern const Dialect qemu_dialect;
extern const Dialect vfio_dialect;
extern const Dialect dpdk_dialect;
extern const Dialect swiotlb_dialect;
extern const Dialect dma_debug_dialect;
extern const Dialect eeh_dialect;
extern const Dialect kernel_dialect;

/// VT-d's fault reasons: "fault reason 0x05".
void interpret_intel_reason(LogEvent& event);
/// The flags of AMD's events, for the event that `text` names.
void interpret_amd_flags(LogEvent& event);

} // namespace moat::fault
