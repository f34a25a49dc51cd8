// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// More of allocator.hpp: the checks of a release, and how a released range is reused or held.
// Only allocator.hpp includes this file.
#pragma once

#include "moat/iova/allocator.hpp"

namespace moat::iova {

namespace detail {

[[nodiscard]] inline std::unexpected<Error> empty_extent(Iova iova) {
    return fail(ErrorCode::empty, "a range, and each segment of one, has at least one byte",
                {"iova", iova.value()});
}

[[nodiscard]] inline std::unexpected<Error> not_latest_of_window(Iova iova,
                                                                 const ExtentPages& pages) {
    return fail(ErrorCode::refused, "only the latest range of the fixed window can be released",
                {"iova", iova.value()}, {"size", pages.payload << page_lg2});
}

} // namespace detail

/// The record of a live range. Errors: not_found, mismatch.
template <SyncPolicy Sync, GuardPolicy Guard>
auto Allocator<Sync, Guard>::find_live(Iova iova, const ExtentPages& pages) const -> Result<Live> {
    const std::uint64_t page = iova.value() >> page_lg2;
    const std::uint64_t size = pages.payload << page_lg2;
    typename LiveMap<Sync>::Leaf* const leaf =
        is_aligned(iova.value(), granule_lg2_) ? central_.map().find(page) : nullptr;
    Word* const word = leaf != nullptr ? &LiveMap<Sync>::word(*leaf, page) : nullptr;
    const std::uint32_t value = word != nullptr ? word->load(std::memory_order_acquire) : 0;
    switch (record::state_of(value)) {
    case State::none:
        return fail(ErrorCode::not_found, "no live range starts here", {"iova", iova.value()},
                    {"size", size});
    case State::cached:
    case State::queued:
    case State::quarantined:
        return fail(ErrorCode::not_found, "this range was released already", {"iova", iova.value()},
                    {"size", size},
                    {"allocated_size", central_.recorded({iova, word}).payload << page_lg2});
    case State::claimed:
        return fail(ErrorCode::not_found, "another thread is releasing this range",
                    {"iova", iova.value()}, {"size", size});
    case State::held:
        return fail(ErrorCode::not_found, "this range is held: its invalidation failed",
                    {"iova", iova.value()}, {"size", size});
    case State::live:
        break;
    }
    const Range range{iova, word};
    const Footprint footprint = central_.recorded(range);
    if (footprint.payload != pages.payload || footprint.segments != pages.segments)
        return fail(ErrorCode::mismatch, "this range was allocated with another size",
                    {"iova", iova.value()}, {"size", size},
                    {"allocated_size", footprint.payload << page_lg2},
                    {"allocated_segments", footprint.segments});
    return Live{range, value};
}

/// Moves a live range to `next`. Errors: not_found, mismatch.
template <SyncPolicy Sync, GuardPolicy Guard>
auto Allocator<Sync, Guard>::take_live(Iova iova, const ExtentPages& pages, State next)
    -> Result<Range> {
    const Result<Live> found = find_live(iova, pages);
    if (!found)
        return std::unexpected(found.error());
    std::uint32_t value = found->word;
    if (!found->range.word->compare_exchange_strong(value, record::with_state(value, next),
                                                    std::memory_order_acq_rel,
                                                    std::memory_order_acquire))
        return fail(ErrorCode::not_found, "another thread released this range meanwhile",
                    {"iova", iova.value()}, {"size", pages.payload << page_lg2});
    return found->range;
}

template <SyncPolicy Sync, GuardPolicy Guard>
Result<void> Allocator<Sync, Guard>::expect_live(Iova iova, const Extent& extent) const {
    const ExtentPages pages = in_pages(extent, granule_lg2_);
    const std::uint64_t page = iova.value() >> page_lg2;
    if (pages.payload == 0)
        return detail::empty_extent(iova);
    if (window_.contains(page)) {
        if (!is_aligned(iova.value(), granule_lg2_) || !window_.is_latest(page, pages.payload))
            return detail::not_latest_of_window(iova, pages);
        return {};
    }
    if (const Result<Live> found = find_live(iova, pages); !found)
        return std::unexpected(found.error());
    return {};
}

/// Caches the leaf for the thread's next try_claim.
template <SyncPolicy Sync, GuardPolicy Guard>
auto Allocator<Sync, Guard>::claim(Iova iova, const Extent& extent) -> Result<Claim> {
    const ExtentPages pages = in_pages(extent, granule_lg2_);
    if (pages.payload == 0)
        return detail::empty_extent(iova);
    if (window_.contains(iova.value() >> page_lg2))
        return fail(ErrorCode::unsupported, "ranges of the fixed window are released in one step",
                    {"iova", iova.value()}, {"size", pages.payload << page_lg2});
    const Result<Range> range = take_live(iova, pages, State::claimed);
    if (!range)
        return std::unexpected(range.error());
    const bool cacheable = pages.payload <= most_cached_pages &&
                           record::is_cacheable(range->word->load(std::memory_order_relaxed));
    Cache* const cache = cacheable ? caches_.local() : nullptr;
    if (cache != nullptr)
        (void)cache->leaves.load(central_.map(), iova.value());
    return Claim(*range, cache, pages.payload - 1);
}

template <SyncPolicy Sync, GuardPolicy Guard>
auto Allocator<Sync, Guard>::claim_at(Iova iova) const -> Claim {
    const std::uint64_t page = iova.value() >> page_lg2;
    typename LiveMap<Sync>::Leaf* const leaf = central_.map().find(page);
    MOAT_CHECK(leaf != nullptr, "a range that is claimed has a record");
    const Range range{iova, &LiveMap<Sync>::word(*leaf, page)};
    MOAT_CHECK(record::state_of(range.word->load(std::memory_order_relaxed)) == State::claimed,
               "the calling thread has claimed the range");
    return Claim(range, nullptr, central_.recorded(range).payload - 1);
}

template <SyncPolicy Sync, GuardPolicy Guard>
Result<void> Allocator<Sync, Guard>::release(const Claim& claim, When when) {
    Cache* const cache = caches_.local();
    if (when == When::now) {
        if (claim.cache_ != nullptr && try_release(claim))
            return {};
        set_state(claim.range(), State::cached);
        after_invalidation(claim.range(), cache);
        return {};
    }
    if (!queue_.enabled())
        return fail(ErrorCode::unsupported, "no invalidation was configured",
                    {"iova", claim.start_.value()});
    set_state(claim.range(), State::queued);
    return enqueue(claim.range(), cache);
}

template <SyncPolicy Sync, GuardPolicy Guard>
Result<void> Allocator<Sync, Guard>::release_slowly(Iova iova, const Extent& extent, When when) {
    const ExtentPages pages = in_pages(extent, granule_lg2_);
    const std::uint64_t page = iova.value() >> page_lg2;
    if (pages.payload == 0)
        return detail::empty_extent(iova);
    if (window_.contains(page)) {
        if (!is_aligned(iova.value(), granule_lg2_) || !window_.release(page, pages.payload))
            return detail::not_latest_of_window(iova, pages);
        return {};
    }
    if (when == When::after_invalidation && !queue_.enabled())
        return fail(ErrorCode::unsupported, "no invalidation was configured",
                    {"iova", iova.value()});
    Cache* const cache = caches_.local();
    // The hot path fails as well where the thread has not seen this part of the space lately.
    if (cache != nullptr && when == When::now && pages.segments == 1 &&
        pages.payload <= most_cached_pages && !cache->leaves.holds(iova.value()) &&
        cache->leaves.load(central_.map(), iova.value()) &&
        take_in(*cache, iova, pages.payload - 1))
        return {};
    const Result<Range> range =
        take_live(iova, pages, when == When::now ? State::cached : State::queued);
    if (!range)
        return std::unexpected(range.error());
    if (when == When::after_invalidation)
        return enqueue(*range, cache);
    after_invalidation(*range, cache);
    return {};
}

/// Flushes a full queue; invalidates here where there is no memory for a queue.
template <SyncPolicy Sync, GuardPolicy Guard>
Result<void> Allocator<Sync, Guard>::enqueue(const Range& range, Cache* cache) {
    using Pushed = typename FlushQueue<Sync>::Pushed;
    const unsigned shard = caches_.shelf_of(cache);
    Pushed pushed = queue_.push(shard, range);
    while (pushed == Pushed::full) {
        (void)flush(); // it makes room even where it fails
        pushed = queue_.push(shard, range);
    }
    if (pushed == Pushed::no_memory) {
        const Result<void> invalidated = queue_.invalidate();
        if (invalidated) {
            after_invalidation(range, cache);
        } else {
            const IovaRange payload = hold_one(range);
            if (held_listener_.held != nullptr)
                held_listener_.held(held_listener_.context, payload);
        }
        return invalidated;
    }
    if (!timer_armed_.load(std::memory_order_seq_cst) &&
        !timer_armed_.exchange(true, std::memory_order_seq_cst))
        timer_.arm(flush_delay_);
    return {};
}

/// Takes a range that a device may still reach out of use. Return: its payload.
template <SyncPolicy Sync, GuardPolicy Guard>
IovaRange Allocator<Sync, Guard>::hold_one(const Range& range) {
    const Footprint footprint = central_.recorded(range);
    set_state(range, State::held);
    held_.count(footprint.payload);
    return {range.start, ByteCount(span_pages(footprint) << page_lg2)};
}

template <SyncPolicy Sync, GuardPolicy Guard>
void Allocator<Sync, Guard>::hold_all(std::span<const Range> ranges) {
    for (const Range& each : ranges) {
        const IovaRange payload = hold_one(each);
        if (held_listener_.held != nullptr)
            held_.note(payload);
    }
}

/// No device can reach the range any more: the quarantine takes it, or it is reused.
template <SyncPolicy Sync, GuardPolicy Guard>
void Allocator<Sync, Guard>::after_invalidation(const Range& range, Cache* cache) {
    if (!quarantine_.enabled()) {
        reuse(range, cache);
        return;
    }
    set_state(range, State::quarantined);
    if (!quarantine_.put(range, central_.recorded(range)))
        reuse(range, cache);
    std::array<Range, 16> due;
    using Which = typename Quarantine<Sync>::Which;
    while (const std::size_t taken = quarantine_.take(Which::over_budget, due))
        for (const Range& each : std::span(due).first(taken))
            reuse(each, cache);
}

/// Makes the range allocatable again: from `cache`, or from a shared shelf where that is null.
template <SyncPolicy Sync, GuardPolicy Guard>
void Allocator<Sync, Guard>::reuse(const Range& range, Cache* cache) {
    const std::uint32_t word = range.word->load(std::memory_order_relaxed);
    const std::uint64_t payload = word & record::payload_mask;
    if (!record::is_cacheable(word)) {
        central_.take_back({&range, 1});
        return;
    }
    range.word->store(record::with_state(word, State::cached), std::memory_order_relaxed);
    if (cache != nullptr)
        caches_.put(cache, payload, range);
    else
        caches_.put_shared(0, payload, {&range, 1});
}

/// Puts neighbours of one size together onto the shelf where the threads that released them look
/// first. A range that finds no place there costs two searches of the free space.
template <SyncPolicy Sync, GuardPolicy Guard>
void Allocator<Sync, Guard>::reuse_all(unsigned shelf, std::span<const Range> ranges) {
    const auto cacheable_pages = [](const Range& range) -> std::uint64_t { // 0: not cacheable
        const std::uint32_t word = range.word->load(std::memory_order_relaxed);
        return record::is_cacheable(word) ? word & record::payload_mask : 0;
    };
    while (!ranges.empty()) {
        const std::uint64_t payload = cacheable_pages(ranges.front());
        std::size_t alike = 0;
        while (alike != ranges.size() && cacheable_pages(ranges[alike]) == payload) {
            if (payload != 0)
                set_state(ranges[alike], State::cached);
            ++alike;
        }
        if (payload != 0)
            caches_.put_shared(shelf, payload, ranges.first(alike));
        else
            central_.take_back(ranges.first(alike));
        ranges = ranges.subspan(alike);
    }
}

} // namespace moat::iova
