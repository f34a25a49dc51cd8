// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sets up a PCI bus like firmware: finds functions, numbers bridges, sizes BARs and assigns
// addresses. qemu_machine.cpp calls it.
// Source: PCI Local Bus 3.0, 6.2.5.1 (sizing); PCI-to-PCI Bridge 1.2, 3.2.5.
#pragma once

#include "moat/core/range.hpp"
#include "moat/core/result.hpp"

#include "machine/qemu/qtest.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace moat::machine::qemu {

/// Where a machine has its configuration space (ECAM, one megabyte per bus), and room for BARs.
struct PciWindows {
    PhysicalAddress ecam;
    unsigned buses; ///< a power of two, 32 at most
    PhysicalRange bars;
};

/// A function's configuration space, through ECAM.
class ConfigRegisters final : public MemoryRegisters {
  public:
    ConfigRegisters(Qtest& qtest, PhysicalAddress ecam, Bdf function)
        : MemoryRegisters(qtest, ecam + ByteCount(std::uint64_t{function.requester()} << 12),
                          ByteCount(4096)) {}
};

struct PciFunction {
    FunctionInfo info;
    /// The address of each BAR; nothing if it is absent, a port range, or did not fit.
    std::array<std::optional<PhysicalAddress>, 6> bars{};
    unsigned ats = 0; ///< the offset of its capability, where the machine enables it
};

/// Assigns every memory BAR an address in `windows` and enables it; bus mastering stays off.
/// Treats devices as hostile: the work is bounded, and every address lies in the window. Return:
/// every function except bridges, in order. Errors: limit (more buses than the machine has).
[[nodiscard]] Result<std::vector<PciFunction>> configure_bus(Qtest& qtest,
                                                             const PciWindows& windows);

} // namespace moat::machine::qemu
