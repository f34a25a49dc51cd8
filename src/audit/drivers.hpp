// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The available drivers, one source file each in src/audit/; probe.cpp recognises their devices.
#pragma once

#include "audit/driver.hpp"

namespace moat::audit {

Start start_edu;        ///< QEMU's teaching device: a DMA engine with a buffer of 4096 bytes
Start start_nvme;       ///< any NVM Express controller, with one I/O queue
Start start_virtio_blk; ///< a virtio block device over modern PCI
Start start_ahci;       ///< the first disk of an AHCI controller
Start start_e1000e;     ///< an Intel 82574 network controller, looped back

/// Starts the first driver that supports the function. Errors: unsupported (none does), and those
/// of that driver.
[[nodiscard]] Start probe;

} // namespace moat::audit
