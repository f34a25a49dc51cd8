// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Places bounce buffers in their pages, and keeps pages that are never released.
#include "moat/dma/detail/bounce_pages.hpp"

#include "moat/core/bits.hpp"

#include <algorithm>
#include <mutex>
#include <new>
#include <vector>

namespace moat::dma {

/// A device may need its buffers aligned; a moved buffer keeps its alignment up to this one.
static constexpr unsigned most_alignment_lg2 = 6;

Result<Memory> BouncePages::allocate(const Memory& memory, Placement placement) const {
    const std::size_t size = memory.bytes.size();
    const ByteCount whole((size + page_bytes_ - 1) & ~(page_bytes_ - 1));
    const Memory pages = source_.allocate(source_.context, whole);
    if (pages.bytes.empty())
        return fail(ErrorCode::no_memory, "no pages for a buffer", {"size", whole.value()});
    const std::uint64_t alignment =
        memory.physical.value() == 0
            ? page_bytes_
            : bit(std::min(most_alignment_lg2, alignment_lg2(memory.physical.value())));
    const std::size_t at =
        placement == Placement::left ? 0 : (pages.bytes.size() - size) & ~(alignment - 1);
    return Memory{pages.bytes.subspan(at, size), PhysicalAddress(pages.physical.value() + at)};
}

void BouncePages::release(const Memory& bounce) const {
    if (bounce.bytes.empty())
        return;
    const PhysicalAddress first(bounce.physical.value() & ~(page_bytes_ - 1));
    source_.release(source_.context, {pages_around(bounce, page_bytes_), first});
}

void BouncePages::keep_for_good(const Memory& bounce) {
    struct Kept {
        std::mutex mutex;
        std::vector<Memory> all; ///< makes them reachable for leak checkers
    };

    static Kept* const kept = new Kept;
    if (bounce.bytes.empty())
        return;
    const std::lock_guard lock(kept->mutex);
    try {
        kept->all.push_back(bounce);
    } catch (const std::bad_alloc&) { // they are kept nevertheless
    }
}

} // namespace moat::dma
