// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What is mapped for a device, and which way data flows. Values only.
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

/// Who may do what while the mapping lives: the device reads, writes, or both.
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

/// Contiguous memory: where the CPU sees it, and by what a domain names it (iommu/domain.hpp).
/// Neither need be aligned, but both are equal modulo the domain's page.
struct Memory {
    std::span<std::byte> bytes = {};
    PhysicalAddress physical = {};

    /// Memory of this process, for domains that name it by its own address.
    [[nodiscard]] static Memory own(std::span<std::byte> bytes) {
        return {bytes, PhysicalAddress(reinterpret_cast<std::uintptr_t>(bytes.data()))};
    }

    [[nodiscard]] ByteCount size() const { return ByteCount(bytes.size()); }
};

} // namespace moat::dma
