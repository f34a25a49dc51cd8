// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Places bounce buffers in their pages, and keeps pages that are never released.
#include "moat/dma/detail/bounce_pages.hpp"

#include "moat/core/bits.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

namespace moat::dma {

/// A device may need its buffers aligned; a moved buffer keeps its alignment up to this one.
static constexpr unsigned most_alignment_lg2 = 6;

/// Makes red zones of what is in [first, first + size) and not in [at, at + kept).
static void fill_outside(std::span<std::byte> pages, std::size_t first, std::size_t size,
                         std::size_t at, std::size_t kept) {
    const auto fill = [&](std::size_t from, std::size_t to) {
        if (from < to)
            std::memset(pages.data() + from, std::to_integer<int>(red_zone_byte), to - from);
    };
    fill(first, std::min(first + size, at));
    fill(std::max(first, at + kept), first + size);
}

void BouncedPages::place(const Memory& memory, Placement placement) {
    const std::size_t size = memory.bytes.size();
    const std::uint64_t alignment =
        memory.physical.value() == 0
            ? bit(most_alignment_lg2)
            : bit(std::min(most_alignment_lg2, alignment_lg2(memory.physical.value())));
    const std::size_t at =
        placement == Placement::left ? 0 : (all_.bytes.size() - size) & ~(alignment - 1);
    if (at != at_ || size != size_)
        fill_outside(all_.bytes, at_, size_, at, size);
    at_ = at;
    size_ = size;
}

/// Makes pages reachable for leak checkers for good.
static void keep_reachable(const Memory& pages) {
    struct Kept {
        std::mutex mutex;
        std::vector<Memory> all;
    };

    static Kept* const kept = new Kept;
    const std::lock_guard lock(kept->mutex);
    try {
        kept->all.push_back(pages);
    } catch (const std::bad_alloc&) { // they are kept nevertheless
    }
}

BouncePages::~BouncePages() {
    for (const Block& each : blocks_)
        if (each.kept)
            keep_reachable(each.pages);
        else
            source_.release(source_.context, each.pages);
}

BouncedPages BouncePages::allocate(ByteCount size) {
    const ByteCount whole((size.value() + page_bytes_ - 1) & ~(page_bytes_ - 1));
    if (whole != ByteCount(page_bytes_))
        return BouncedPages(source_.allocate(source_.context, whole));
    const std::lock_guard lock(mutex_);
    if (free_.empty() && !add_block())
        return {};
    const BouncedPages page = free_.back();
    free_.pop_back();
    return page;
}

/// A source that is nearly empty may have a single page.
bool BouncePages::add_block() {
    Memory block;
    try {
        blocks_.reserve(blocks_.size() + 1);
        free_.reserve((blocks_.size() + 1) * block_pages);
        for (const std::uint64_t pages : {block_pages, std::uint64_t{1}})
            if (block.bytes.empty())
                block = source_.allocate(source_.context, ByteCount(pages * page_bytes_));
    } catch (const std::bad_alloc&) {
        return false;
    }
    if (block.bytes.empty())
        return false;
    blocks_.push_back({block});
    for (std::uint64_t at = block.bytes.size(); at != 0;) {
        at -= page_bytes_;
        free_.push_back(BouncedPages(Memory{block.bytes.subspan(at, page_bytes_),
                                            PhysicalAddress(block.physical.value() + at)}));
    }
    return true;
}

void BouncePages::release(const BouncedPages& pages) {
    if (pages.empty())
        return;
    if (pages.all().bytes.size() != page_bytes_)
        return source_.release(source_.context, pages.all());
    const std::lock_guard lock(mutex_);
    free_.push_back(pages);
}

void BouncePages::keep_for_good(const BouncedPages& pages) {
    const std::span<std::byte> bytes = pages.all().bytes;
    if (bytes.empty())
        return;
    if (bytes.size() != page_bytes_)
        return keep_reachable(pages.all());
    const std::lock_guard lock(mutex_);
    for (Block& each : blocks_) {
        const std::span<std::byte> all = each.pages.bytes;
        each.kept |= bytes.data() >= all.data() && bytes.data() < all.data() + all.size();
    }
}

} // namespace moat::dma
