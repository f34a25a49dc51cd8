// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Level exact, whatever the domain: a small buffer gets pages of its own and lies at their edge, so
// that the first byte past it faults; what is left of the pages is a red zone of known content.
// Functions of a registered mapping; when they are called, space.hpp says.
#pragma once

#include "moat/dma/options.hpp"
#include "moat/dma/registry.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>

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

/// The bytes go where the device finds them; nothing where there is no bounce. Also those that it
/// only writes: what it leaves alone comes back as it was.
inline void copy_in(const Memory& memory, const Memory& bounce) {
    if (!bounce.bytes.empty())
        std::memcpy(bounce.bytes.data(), memory.bytes.data(), memory.bytes.size());
}

/// And what it wrote comes back.
inline void copy_out(const Registered& each) {
    if (!each.bounce.bytes.empty() && each.direction != Direction::to_device)
        std::memcpy(each.memory.bytes.data(), each.bounce.bytes.data(), each.memory.bytes.size());
}

/// Of what the CPU must leave alone while the device may read it (FNV-1a, 64 bits); 0 where the
/// device writes, since its writes cannot be told from the CPU's, and of lists and regions, whose
/// bytes are not remembered.
[[nodiscard]] inline std::uint64_t checksum(const Memory& memory, Direction direction) {
    if (direction != Direction::to_device || memory.bytes.empty())
        return 0;
    std::uint64_t sum = 0xcbf29ce484222325;
    for (const std::byte byte : memory.bytes)
        sum = (sum ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3;
    return sum;
}

/// From the first to the last byte of the red zones that is not what it was, as addresses of the
/// device; nothing where all is well.
[[nodiscard]] inline std::optional<IovaRange> changed_red_zone(const Registered& each,
                                                               std::uint64_t page) {
    const std::span<std::byte> all = pages_around(each.bounce, page);
    const auto first_of_buffer = static_cast<std::size_t>(each.bounce.bytes.data() - all.data());
    std::optional<std::size_t> first;
    std::size_t last = 0;
    for (std::size_t at = 0; at != all.size(); ++at) {
        if (at == first_of_buffer)
            at += each.bounce.bytes.size();
        if (at == all.size())
            break;
        if (all[at] == red_zone_byte)
            continue;
        first = first.value_or(at);
        last = at;
    }
    if (!first)
        return std::nullopt;
    const std::uint64_t base = each.mapping.range.start().value() - first_of_buffer;
    return IovaRange(Iova(base + *first), ByteCount(last - *first + 1));
}

} // namespace moat::dma
