// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Pages that the device reaches instead of a driver's memory: where they come from, and where in
// them a buffer lies. At their edge, the first byte past it faults; the rest is a red zone.
// exact_buffer.hpp moves the bytes.
#pragma once

#include "moat/dma/memory.hpp"
#include "moat/dma/options.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

namespace moat::dma {

/// Whole pages that the domain can map. Any thread; takes no lock under which the space is called.
struct PageSource {
    /// `size` is a multiple of the page, and so is where it lies. An empty answer: no memory.
    Memory (*allocate)(void* context, ByteCount size) = nullptr;
    void (*release)(void* context, const Memory& pages) = nullptr;
    void* context = nullptr;
};

/// Memory of this process, as Memory::own, aligned for pages of up to 64 KiB.
[[nodiscard]] inline PageSource own_pages() {
    constexpr std::size_t alignment = 64 << 10;
    return {[](void*, ByteCount size) {
                const std::size_t whole = (size.value() + alignment - 1) & ~(alignment - 1);
                auto* const bytes = static_cast<std::byte*>(std::aligned_alloc(alignment, whole));
                return bytes == nullptr ? Memory() : Memory::own({bytes, size.value()});
            },
            [](void*, const Memory& pages) { std::free(pages.bytes.data()); }, nullptr};
}

/// Keeps pages that a device may reach for ever: they are never released to their source.
void keep_for_good(const Memory& pages);

inline constexpr std::byte red_zone_byte{0xfa};

/// The part of whole `pages` at which a buffer of `size` lies, as near to the edge as `alignment`
/// (of its first byte, a power of two) allows.
[[nodiscard]] inline Memory place_at_edge(const Memory& pages, std::size_t size,
                                          Placement placement, std::size_t alignment) {
    const std::size_t slack = pages.bytes.size() - size;
    const std::size_t at = placement == Placement::left ? 0 : slack & ~(alignment - 1);
    return {pages.bytes.subspan(at, size), PhysicalAddress(pages.physical.value() + at)};
}

/// The whole pages around a bounced buffer.
[[nodiscard]] inline std::span<std::byte> pages_around(const Memory& bounce, std::uint64_t page) {
    const std::uint64_t before = bounce.physical.value() & (page - 1);
    const std::uint64_t all = (before + bounce.bytes.size() + page - 1) & ~(page - 1);
    return {bounce.bytes.data() - before, all};
}

} // namespace moat::dma
