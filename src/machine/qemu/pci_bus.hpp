// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sets up a PCI bus like firmware: finds functions, numbers bridges, sizes BARs and assigns
// addresses. The caller provides access to configuration space (qemu_machine.cpp).
// Source: PCI Local Bus 3.0, 6.2.5.1 (sizing); PCI-to-PCI Bridge 1.2, 3.2.5.
#pragma once

#include "moat/core/range.hpp"
#include "moat/core/result.hpp"

#include "machine/pci.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace moat::machine::qemu {

/// Configuration space of every function; offsets are multiples of 4.
class ConfigSpace {
  public:
    virtual ~ConfigSpace() = default;
    virtual std::uint32_t read(Bdf function, unsigned offset) = 0;
    virtual void write(Bdf function, unsigned offset, std::uint32_t value) = 0;
};

struct PciFunction {
    FunctionInfo info;
    /// The address of each BAR; nothing if it is absent, a port range, or did not fit.
    std::array<std::optional<PhysicalAddress>, 6> bars{};
};

/// Assigns every memory BAR an address in `window` and enables it; bus mastering stays off. Treats
/// devices as hostile: the work is bounded, and every address lies in the window. Return: every
/// function except bridges, in order. Errors: limit (more than 32 buses).
[[nodiscard]] Result<std::vector<PciFunction>> configure_bus(ConfigSpace& config,
                                                             PhysicalRange window);

/// The offset of capability `id` in the function's configuration space; nothing if the list does
/// not have it or does not end.
[[nodiscard]] std::optional<unsigned> find_capability(ConfigSpace& config, Bdf function,
                                                      std::uint8_t id);

} // namespace moat::machine::qemu
