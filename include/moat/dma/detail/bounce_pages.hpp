// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// BouncePages: pages that the device reaches in place of a driver's memory. A buffer lies at their
// edge, so that the first byte past it faults; the rest is a red zone. exact_buffer.hpp copies.
#pragma once

#include "moat/dma/memory.hpp"
#include "moat/dma/options.hpp"

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

namespace moat::dma {

inline constexpr std::byte red_zone_byte{0xfa};

enum class RedZones : std::uint8_t { unknown, intact };

/// Thread-safe if the source is. Single pages come from blocks of 16, which end with the object;
/// longer buffers from the source, and return to it.
class BouncePages {
  public:
    /// `page_bytes` is a power of two.
    BouncePages(const PageSource& source, std::uint64_t page_bytes)
        : source_(source), page_bytes_(page_bytes) {}

    BouncePages(const BouncePages&) = delete;
    BouncePages& operator=(const BouncePages&) = delete;

    ~BouncePages();

    [[nodiscard]] bool available() const { return source_.allocate != nullptr; }

    /// A bounce buffer of `memory`'s size, with its alignment up to 64 bytes, at the edge of pages
    /// that `placement` names. Its contents are undefined; red zones fill the rest of the pages.
    /// Errors: no_memory.
    [[nodiscard]] Result<Memory> allocate(const Memory& memory, Placement placement);

    /// Releases the pages of a bounce buffer; does nothing if it is empty. `zones`: whether the red
    /// zones were checked and restored; then the next buffer of its size needs none filled.
    void release(const Memory& bounce, RedZones zones = RedZones::unknown);

    /// Never releases the pages of a bounce buffer, since a device may still reach them.
    void keep_for_good(const Memory& bounce);

  private:
    struct Block {
        Memory pages;
        bool kept = false; ///< a device may still reach a page
    };

    /// Pages, and the part of them that is no red zone.
    struct Pages {
        Memory all = {};
        std::size_t first = 0;
        std::size_t size = 0;
    };

    /// Return: empty without memory.
    [[nodiscard]] Pages take_pages(ByteCount whole);
    [[nodiscard]] bool add_block();

    static constexpr std::uint64_t block_pages = 16;

    const PageSource source_;
    const std::uint64_t page_bytes_;
    std::mutex mutex_;        ///< of what follows
    std::vector<Pages> free_; ///< single pages, with room for those of all blocks
    std::vector<Block> blocks_;
};

/// The whole pages around a bounce buffer.
[[nodiscard]] inline std::span<std::byte> pages_around(const Memory& bounce, std::uint64_t page) {
    const std::uint64_t before = bounce.physical.value() & (page - 1);
    const std::uint64_t all = (before + bounce.bytes.size() + page - 1) & ~(page - 1);
    return {bounce.bytes.data() - before, all};
}

} // namespace moat::dma
