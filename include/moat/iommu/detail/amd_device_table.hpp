// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The entries of an AMD IOMMU's device table. amd.hpp stores them.
// Source: 48882, 2.2.2 (device table entry), tables 7 and 8.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/page_table/page_table.hpp"

#include <array>
#include <cstdint>

namespace moat::iommu::amd {

/// What fills the first words of 32 bytes. The others are 0: interrupts are not remapped.
using DeviceEntry = std::array<std::uint64_t, 2>;

inline constexpr unsigned device_entry_lg2 = 5;

/// A valid entry without permissions. An entry of zeros would let its device reach all of memory.
inline constexpr DeviceEntry blocked_device = {bit(0) | bit(1), 0};

/// Permits everything: the leaf decides. Walks snoop the processors' caches (SD is clear).
/// `caches`: the unit answers the function's translation requests (I).
[[nodiscard]] constexpr DeviceEntry translated_device(Root root, std::uint16_t domain,
                                                      bool caches) {
    constexpr std::uint64_t read = bit(61);
    constexpr std::uint64_t write = bit(62);
    return {blocked_device[0] | std::uint64_t{root.levels} << 9 | root.table.value() | read | write,
            domain | (caches ? bit(32) : 0)};
}

} // namespace moat::iommu::amd
