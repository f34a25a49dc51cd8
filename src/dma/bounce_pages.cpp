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

BouncePages::Pages BouncePages::take_pages(ByteCount whole) {
    if (whole != ByteCount(page_bytes_))
        return {source_.allocate(source_.context, whole), 0, whole.value()};
    const std::lock_guard lock(mutex_);
    if (free_.empty() && !add_block())
        return {};
    const Pages page = free_.back();
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
        free_.push_back({.all = {block.bytes.subspan(at, page_bytes_),
                                 PhysicalAddress(block.physical.value() + at)},
                         .size = page_bytes_});
    }
    return true;
}

Result<Memory> BouncePages::allocate(const Memory& memory, Placement placement) {
    const std::size_t size = memory.bytes.size();
    const ByteCount whole((size + page_bytes_ - 1) & ~(page_bytes_ - 1));
    const Pages pages = take_pages(whole);
    if (pages.all.bytes.empty())
        return fail(ErrorCode::no_memory, "no pages for a buffer", {"size", whole.value()});
    const std::uint64_t alignment =
        memory.physical.value() == 0
            ? page_bytes_
            : bit(std::min(most_alignment_lg2, alignment_lg2(memory.physical.value())));
    const std::size_t at =
        placement == Placement::left ? 0 : (whole.value() - size) & ~(alignment - 1);
    fill_outside(pages.all.bytes, pages.first, pages.size, at, size);
    return Memory{pages.all.bytes.subspan(at, size),
                  PhysicalAddress(pages.all.physical.value() + at)};
}

void BouncePages::release(const Memory& bounce, RedZones zones) {
    if (bounce.bytes.empty())
        return;
    const PhysicalAddress first(bounce.physical.value() & ~(page_bytes_ - 1));
    const Memory pages = {pages_around(bounce, page_bytes_), first};
    if (pages.bytes.size() != page_bytes_)
        return source_.release(source_.context, pages);
    const bool intact = zones == RedZones::intact;
    const std::lock_guard lock(mutex_);
    free_.push_back({pages, intact ? bounce.physical.value() - first.value() : 0,
                     intact ? bounce.bytes.size() : page_bytes_});
}

void BouncePages::keep_for_good(const Memory& bounce) {
    if (bounce.bytes.empty())
        return;
    const std::span<std::byte> pages = pages_around(bounce, page_bytes_);
    if (pages.size() != page_bytes_)
        return keep_reachable(bounce);
    const std::lock_guard lock(mutex_);
    for (Block& each : blocks_) {
        const std::span<std::byte> all = each.pages.bytes;
        each.kept |= pages.data() >= all.data() && pages.data() < all.data() + all.size();
    }
}

} // namespace moat::dma
