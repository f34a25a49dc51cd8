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

/// Pages that hold a bounce buffer, and red zones in the rest of them.
class BouncedPages {
  public:
    BouncedPages() = default;

    explicit BouncedPages(const Memory& all) : all_(all), size_(all.bytes.size()) {}

    [[nodiscard]] const Memory& all() const { return all_; }

    [[nodiscard]] bool empty() const { return all_.bytes.empty(); }

    /// The buffer that was placed last, which the device reaches.
    [[nodiscard]] Memory buffer() const {
        return {all_.bytes.subspan(at_, size_), PhysicalAddress(all_.physical.value() + at_)};
    }

    [[nodiscard]] std::span<std::byte> red_zone_before() const { return all_.bytes.first(at_); }

    [[nodiscard]] std::span<std::byte> red_zone_after() const {
        return all_.bytes.subspan(at_ + size_);
    }

    /// Makes room for a buffer of `memory`'s size, which is not longer than the pages, with its
    /// alignment up to 64 bytes, at the edge that `placement` names. The red zones are filled; the
    /// buffer's bytes are undefined.
    void place(const Memory& memory, Placement placement);

    /// Forgets the red zones, which a device may have overwritten.
    void distrust() {
        at_ = 0;
        size_ = all_.bytes.size();
    }

  private:
    Memory all_ = {};
    std::size_t at_ = 0;
    std::size_t size_ = 0; ///< from `at_` on; all other bytes are intact red zones
};

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

    /// Pages for `size` bytes. Return: empty without memory.
    [[nodiscard]] BouncedPages allocate(ByteCount size);

    /// Releases what is not empty.
    void release(const BouncedPages& pages);

    /// Never releases the pages, since a device may still reach them.
    void keep_for_good(const BouncedPages& pages);

  private:
    struct Block {
        Memory pages;
        bool kept = false; ///< a device may still reach a page
    };

    [[nodiscard]] bool add_block();

    static constexpr std::uint64_t block_pages = 16;

    const PageSource source_;
    const std::uint64_t page_bytes_;
    std::mutex mutex_;               ///< of what follows
    std::vector<BouncedPages> free_; ///< single pages, with room for those of all blocks
    std::vector<Block> blocks_;
};

} // namespace moat::dma
