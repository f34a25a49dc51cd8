// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// BouncePages: pages that the device reaches in place of a driver's memory. A buffer lies at their
// edge, so that the first byte past it faults; the rest is a red zone. exact_buffer.hpp copies.
#pragma once

#include "moat/dma/memory.hpp"
#include "moat/dma/options.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace moat::dma {

inline constexpr std::byte red_zone_byte{0xfa};

/// Thread-safe if the source is.
class BouncePages {
  public:
    /// `page_bytes` is a power of two.
    BouncePages(const PageSource& source, std::uint64_t page_bytes)
        : source_(source), page_bytes_(page_bytes) {}

    [[nodiscard]] bool available() const { return source_.allocate != nullptr; }

    /// A bounce buffer of `memory`'s size, with its alignment up to 64 bytes, at the edge of new
    /// pages that `placement` names. Errors: no_memory.
    [[nodiscard]] Result<Memory> allocate(const Memory& memory, Placement placement) const;

    /// Releases the pages of a bounce buffer; does nothing if it is empty.
    void release(const Memory& bounce) const;

    /// Never releases the pages of a bounce buffer, since a device may still reach them.
    static void keep_for_good(const Memory& bounce);

  private:
    PageSource source_;
    std::uint64_t page_bytes_;
};

/// The whole pages around a bounce buffer.
[[nodiscard]] inline std::span<std::byte> pages_around(const Memory& bounce, std::uint64_t page) {
    const std::uint64_t before = bounce.physical.value() & (page - 1);
    const std::uint64_t all = (before + bounce.bytes.size() + page - 1) & ~(page - 1);
    return {bounce.bytes.data() - before, all};
}

} // namespace moat::dma
