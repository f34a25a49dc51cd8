// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The available drivers, one source file each in src/audit/.
#pragma once

#include "audit/driver.hpp"

namespace moat::audit {

/// QEMU's teaching device: a DMA engine with a buffer of 4096 bytes.
[[nodiscard]] Result<std::unique_ptr<Driver>>
probe_edu(machine::Machine& machine, machine::Function& function, BufferSource& buffers);

/// Any NVM Express controller, with one I/O queue.
[[nodiscard]] Result<std::unique_ptr<Driver>>
probe_nvme(machine::Machine& machine, machine::Function& function, BufferSource& buffers);

/// A virtio block device over modern PCI.
[[nodiscard]] Result<std::unique_ptr<Driver>>
probe_virtio_blk(machine::Machine& machine, machine::Function& function, BufferSource& buffers);

/// The first disk of an AHCI controller.
[[nodiscard]] Result<std::unique_ptr<Driver>>
probe_ahci(machine::Machine& machine, machine::Function& function, BufferSource& buffers);

/// An Intel 82574 network controller, looped back.
[[nodiscard]] Result<std::unique_ptr<Driver>>
probe_e1000e(machine::Machine& machine, machine::Function& function, BufferSource& buffers);

/// Starts the first driver that supports the function. Errors: unsupported (none does), and those
/// of that driver.
[[nodiscard]] Result<std::unique_ptr<Driver>>
probe(machine::Machine& machine, machine::Function& function, BufferSource& buffers);

} // namespace moat::audit
