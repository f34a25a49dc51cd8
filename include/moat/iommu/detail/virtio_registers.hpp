// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The registers of a virtio-iommu on PCI, and the policy that accesses them. virtio.hpp uses both.
// Source: virtio 1.2, 2.1 "Device Status Field", 4.1.4.3 "Common configuration structure layout",
// 5.13.3 "Feature bits", 5.13.4 "Device configuration layout".
#pragma once

#include "moat/core/bits.hpp"
#include "moat/iommu/unit_registers.hpp"

#include <concepts>
#include <cstdint>

namespace moat::iommu::virtio {

/// Access to the BAR that has the device's structures, also to fields of 8 and 16 bits.
template <class R>
concept UnitRegisters =
    iommu::UnitRegisters<R> && requires(R& registers, unsigned offset, std::uint16_t value) {
        { registers.read8(offset) } -> std::same_as<std::uint8_t>;
        { registers.read16(offset) } -> std::same_as<std::uint16_t>;
        registers.write8(offset, static_cast<std::uint8_t>(value));
        registers.write16(offset, value);
    };

/// Offsets of the structures in the BAR, from the device's PCI capabilities (4.1.4).
struct Layout {
    std::uint64_t common = 0;
    std::uint64_t notify = 0;
    std::uint32_t notify_multiplier = 0;
    std::uint64_t device = 0;
};

namespace reg { // of the common structure
inline constexpr unsigned offered_select = 0x00;
inline constexpr unsigned offered = 0x04;
inline constexpr unsigned accepted_select = 0x08;
inline constexpr unsigned accepted = 0x0c;
inline constexpr unsigned status = 0x14;
inline constexpr unsigned queue_select = 0x16;
inline constexpr unsigned queue_size = 0x18;
inline constexpr unsigned queue_enable = 0x1c;
inline constexpr unsigned queue_notify = 0x1e;
inline constexpr unsigned queue_descriptors = 0x20;
inline constexpr unsigned queue_available = 0x28;
inline constexpr unsigned queue_used = 0x30;
} // namespace reg

namespace config { // of the device's structure
inline constexpr unsigned page_sizes = 0x00;
inline constexpr unsigned first_input = 0x08;
inline constexpr unsigned last_input = 0x10;
inline constexpr unsigned first_domain = 0x18;
inline constexpr unsigned last_domain = 0x1c;
inline constexpr unsigned bypass = 0x24;
} // namespace config

namespace status {
inline constexpr unsigned acknowledge = 1;
inline constexpr unsigned driver = 2;
inline constexpr unsigned running = 4;
inline constexpr unsigned features = 8;
} // namespace status

namespace features {
inline constexpr std::uint64_t input_range = bit(0);
inline constexpr std::uint64_t domain_range = bit(1);
inline constexpr std::uint64_t map = bit(2);
inline constexpr std::uint64_t bypass = bit(6); ///< the driver chooses, by config::bypass
inline constexpr std::uint64_t version_1 = bit(32);
} // namespace features

} // namespace moat::iommu::virtio
