// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Memory that is mapped for a device, and the direction of its data. Values only.
#pragma once

#include "moat/core/types.hpp"
#include "moat/fault/mapping.hpp"
#include "moat/page_table/attributes.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace moat::dma {

/// What the device may do: read, write, or both.
enum class Direction : std::uint8_t { to_device, from_device, bidirectional };

[[nodiscard]] constexpr std::string_view name(Direction direction) {
    constexpr std::array<std::string_view, 3> names = {"to-device", "from-device", "bidirectional"};
    return names[static_cast<std::size_t>(direction)];
}

[[nodiscard]] constexpr Attributes attributes_of(Direction direction) {
    constexpr std::array<Attributes, 3> attributes = {Attributes::read, Attributes::write,
                                                      read_write};
    return attributes[static_cast<std::size_t>(direction)];
}

[[nodiscard]] constexpr fault::Allows allows_of(Direction direction) {
    constexpr std::array<fault::Allows, 3> allows = {fault::Allows::read, fault::Allows::write,
                                                     fault::Allows::read_write};
    return allows[static_cast<std::size_t>(direction)];
}

/// Contiguous memory: the CPU's view, and the domain's name for it (iommu/domain.hpp). Neither need
/// be aligned, but both are equal modulo the domain's page.
struct Memory {
    std::span<std::byte> bytes = {};
    PhysicalAddress physical = {};

    /// Memory of this process, for domains that use the process's own addresses.
    [[nodiscard]] static Memory own(std::span<std::byte> bytes) {
        return {bytes, PhysicalAddress(reinterpret_cast<std::uintptr_t>(bytes.data()))};
    }

    [[nodiscard]] ByteCount size() const { return ByteCount(bytes.size()); }
};

} // namespace moat::dma
