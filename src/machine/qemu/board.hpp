// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Board: what moat needs to know of a machine that QEMU emulates: the program and its arguments,
// the processor's first instructions, and addresses. The table of boards is in board.cpp.
#pragma once

#include "moat/core/range.hpp"

#include "machine/qemu/iommu_model.hpp"
#include "machine/qemu/pci_bus.hpp"
#include "machine/qemu/qtest.hpp"

#include <cstdint>
#include <span>
#include <string_view>

namespace moat::machine::qemu {

/// What an IOMMU records of an access that it blocks.
enum class FaultRecords : std::uint8_t { none, without_address, complete };

struct Board {
    std::string_view program;
    /// They select the machine, with memory "ram", and its IOMMU.
    std::span<const std::string_view> arguments;
    /// Halts the processor, so that only devices run, and virtual time with them.
    std::span<const std::uint8_t> firmware;
    std::uint64_t reset; ///< the offset of its first instruction in 64K of firmware
    /// What else the machine needs before its configuration space can be used.
    void (*enable_ecam)(Qtest& qtest);
    PciWindows pci;
    PhysicalAddress ram;
    ByteCount most_ram;
    PhysicalRange iommu; ///< its registers; empty without any at a fixed address
    FaultRecords records = FaultRecords::complete;
    /// For a QEMU that has no property `needs` in `arguments`.
    const Board* older = nullptr;
    std::string_view needs = {};
};

[[nodiscard]] const Board& board_of(IommuModel iommu);

} // namespace moat::machine::qemu
