// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Does what firmware does to a PCI bus: finds functions, walks and numbers bridges, sizes BARs and
// gives them addresses. How configuration space is reached is the caller's (qemu_machine.cpp).
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
    /// Where each BAR was put; nothing where it is absent, ports, or did not fit.
    std::array<std::optional<PhysicalAddress>, 6> bars{};
};

/// Gives every memory BAR an address in `window` and enables it; masters stay off. What it is told
/// is taken for hostile: the work is bounded, and no address leaves the window.
/// Return: every function but bridges, in order. Errors: limit (more buses than 32).
[[nodiscard]] Result<std::vector<PciFunction>> configure_bus(ConfigSpace& config,
                                                             PhysicalRange window);

/// Where the capability `id` begins in the function's configuration space; a list that does not
/// end is taken for one without it.
[[nodiscard]] std::optional<unsigned> find_capability(ConfigSpace& config, Bdf function,
                                                      std::uint8_t id);

} // namespace moat::machine::qemu
