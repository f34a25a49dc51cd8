// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// More of allocator.hpp: creation, special wishes and errors. allocator_release.hpp has the
// releases. Only allocator.hpp includes this file.
#pragma once

#include "moat/iova/allocator.hpp"

namespace moat::iova {

namespace detail {

/// The pages of the whole granules inside a range of bytes.
[[nodiscard]] constexpr PageRun inner_pages(IovaRange range, unsigned granule_lg2) {
    if (range.empty())
        return {};
    const std::uint64_t start = range.start().value(); // may lie within a granule of 2^64
    const std::uint64_t first =
        start == 0 ? 0 : (((start - 1) >> granule_lg2) + 1) << (granule_lg2 - page_lg2);
    const std::uint64_t granules =
        (range.last().value() >> granule_lg2) +
        (((range.last().value() + 1) & low_bits(granule_lg2)) == 0 ? 1 : 0);
    const std::uint64_t end = granules << (granule_lg2 - page_lg2);
    return {first, end > first ? end - first : 0};
}

/// The pages of every granule that a range of bytes touches.
[[nodiscard]] constexpr PageRun outer_pages(IovaRange range, unsigned granule_lg2) {
    if (range.empty())
        return {};
    const std::uint64_t first = range.start().value() >> granule_lg2;
    const std::uint64_t count = (range.last().value() >> granule_lg2) - first + 1;
    return {first << (granule_lg2 - page_lg2), count << (granule_lg2 - page_lg2)};
}

/// The size of an extent in errors: the caller's number, or the pages of a list.
[[nodiscard]] constexpr std::uint64_t size_in_error(const Extent& extent,
                                                    const ExtentPages& pages) {
    if (!extent.is_list())
        return extent.size().value();
    return pages.payload < ExtentPages::too_many ? pages.payload << page_lg2
                                                 : std::numeric_limits<std::uint64_t>::max();
}

/// With a quarantine, threads keep nothing: every release has to pass through it.
[[nodiscard]] constexpr CacheBudget cache_budget(const Config& config) {
    std::uint64_t pages = 0;
    for (const IovaRange& each : config.aperture)
        pages += inner_pages(each, config.granule_lg2).count;
    const std::uint64_t thread = std::min(pages / 128, std::uint64_t{1} << 18);
    return {config.quarantine.enabled() ? 0 : thread, pages / 16, pages / 128};
}

} // namespace detail

template <SyncPolicy Sync, GuardPolicy Guard>
Allocator<Sync, Guard>::Allocator(const Config& config, const Guard& guard, std::uint64_t end_page)
    : granule_mask_(low_bits(config.granule_lg2)), granule_lg2_(config.granule_lg2),
      end_page_(end_page), flush_delay_(config.flush_delay_nanoseconds),
      central_(end_page, config.granule_lg2, guard, config.preference, config.seed),
      caches_(central_, detail::cache_budget(config), guard.widest(config.granule_lg2).both()),
      quarantine_(config.quarantine), queue_(config.invalidation),
      window_(config.fixed_window ? detail::inner_pages(*config.fixed_window, config.granule_lg2)
                                  : PageRun{}),
      timer_(&timer_fires, this) {}

template <SyncPolicy Sync, GuardPolicy Guard>
Allocator<Sync, Guard>::~Allocator() {
    timer_.cancel();
    (void)flush(); // the HeldListener reports a failure
}

template <SyncPolicy Sync, GuardPolicy Guard>
auto Allocator<Sync, Guard>::create(const Config& config, const Guard& guard) -> Result<Owner> {
    if (config.granule_lg2 != 12 && config.granule_lg2 != 14 && config.granule_lg2 != 16)
        return fail(ErrorCode::unsupported, "a granule is 4K, 16K or 64K",
                    {"granule_lg2", config.granule_lg2});
    if (config.aperture.empty())
        return fail(ErrorCode::empty, "an aperture has at least one range");
    constexpr std::uint64_t most = std::uint64_t{1} << 57;
    std::uint64_t previous_end = 0;
    for (const IovaRange& each : config.aperture) {
        if (each.empty() || each.last().value() >= most)
            return fail(ErrorCode::out_of_range, "an aperture's ranges lie below 2^57",
                        {"start", each.start().value()}, {"size", each.size().value()});
        if (each.start().value() < previous_end)
            return fail(ErrorCode::overlap, "an aperture's ranges ascend and do not overlap",
                        {"start", each.start().value()}, {"previous_end", previous_end});
        previous_end = each.end().value();
    }
    const GuardPages widest = guard.widest(config.granule_lg2);
    if (std::max(widest.before, widest.after) > most_guard_pages)
        return fail(ErrorCode::out_of_range, "a guard has less than 1 GiB on a side",
                    {"before", widest.before}, {"after", widest.after});
    const std::uint64_t end_page = previous_end >> config.granule_lg2
                                                       << (config.granule_lg2 - page_lg2);
    Owner made(Sync::template make<Allocator>(config, guard, end_page));
    const Error no_memory(ErrorCode::no_memory, "no memory for an allocator of addresses");
    if (made == nullptr)
        return std::unexpected(no_memory);
    for (const IovaRange& each : config.aperture)
        if (const PageRun pages = detail::inner_pages(each, config.granule_lg2); pages.count != 0)
            if (!made->central_.open(pages))
                return std::unexpected(no_memory);
    if (!made->central_.close())
        return std::unexpected(no_memory);
    if (config.fixed_window)
        if (const auto reserved = made->reserve(*config.fixed_window);
            !reserved && reserved.error().code() != ErrorCode::out_of_range)
            return std::unexpected(reserved.error());
    return made;
}

template <SyncPolicy Sync, GuardPolicy Guard>
Result<Iova> Allocator<Sync, Guard>::allocate_slowly(const Request& request) {
    if (request.source == Source::fixed_window)
        return allocate_in_window(request);
    const ExtentPages pages = in_pages(request.extent, granule_lg2_);
    if (pages.payload == 0 || pages.segments == 0)
        return fail(ErrorCode::empty, "a range, and each segment of one, has at least one byte",
                    {"size", request.extent.size().value()}, {"segments", pages.segments});
    if (pages.segments > record::most_segments)
        return fail(ErrorCode::limit, "a list has fewer than 2^28 segments",
                    {"segments", pages.segments});
    if (pages.payload > end_page())
        return no_space(request);
    if (request.is_plain() && pages.payload <= most_cached_pages)
        return allocate_cacheable(pages.payload, request);
    return allocate_directly(pages, request);
}

template <SyncPolicy Sync, GuardPolicy Guard>
Result<Iova> Allocator<Sync, Guard>::allocate_in_window(const Request& request) {
    const ExtentPages pages = in_pages(request.extent, granule_lg2_);
    if (pages.payload == 0)
        return fail(ErrorCode::empty, "a range has at least one byte");
    if (request.at || request.placement.modulus_lg2 > granule_lg2_)
        return fail(ErrorCode::unsupported, "the fixed window takes no address and no placement",
                    {"at", request.at ? request.at->value() : 0},
                    {"modulus_lg2", request.placement.modulus_lg2});
    const auto page = window_.allocate(pages.payload, limit_of(request));
    if (!page)
        return fail(ErrorCode::no_space, "the fixed window has no room below the limit",
                    {"size", detail::size_in_error(request.extent, pages)},
                    {"last", request.last.value()});
    return Iova(*page << page_lg2);
}

template <SyncPolicy Sync, GuardPolicy Guard>
Result<Iova> Allocator<Sync, Guard>::allocate_cacheable(std::uint64_t payload,
                                                        const Request& request) {
    Cache* const cache = caches_.local();
    Range range;
    bool memory_failed = false;
    if (caches_.take(cache, payload, range, memory_failed))
        return hand_out(range, payload - 1);
    if (!memory_failed) {
        relieve(cache);
        if (caches_.take(cache, payload, range, memory_failed))
            return hand_out(range, payload - 1);
    }
    if (memory_failed)
        return fail(ErrorCode::no_memory, "no memory to record a range of addresses",
                    {"size", request.extent.size().value()});
    return no_space(request);
}

template <SyncPolicy Sync, GuardPolicy Guard>
Result<Iova> Allocator<Sync, Guard>::allocate_directly(const ExtentPages& pages,
                                                       const Request& request) {
    const Result<Spot> spot = spot_for(request);
    if (!spot)
        return std::unexpected(spot.error());
    std::uint64_t page = 0;
    Placed placed = central_.place(pages, *spot, page);
    if (placed == Placed::no_space || placed == Placed::overlap) {
        relieve(caches_.local());
        placed = central_.place(pages, *spot, page);
    }
    const std::uint64_t at = request.at ? request.at->value() : 0;
    const std::uint64_t size = detail::size_in_error(request.extent, pages);
    switch (placed) {
    case Placed::done:
        return Iova(page << page_lg2);
    case Placed::no_space:
        return no_space(request);
    case Placed::overlap:
        return fail(ErrorCode::overlap, "a range, or a guard, lies at the address that was asked",
                    {"at", at}, {"size", size});
    case Placed::out_of_range:
        return fail(ErrorCode::out_of_range,
                    "the range at the requested address leaves the aperture or passes `last`",
                    {"at", at}, {"size", size}, {"last", request.last.value()});
    case Placed::no_memory:
        break;
    }
    return fail(ErrorCode::no_memory, "no memory to record a range of addresses", {"size", size});
}

template <SyncPolicy Sync, GuardPolicy Guard>
Result<Spot> Allocator<Sync, Guard>::spot_for(const Request& request) const {
    Spot spot;
    spot.limit = limit_of(request);
    const unsigned modulus_lg2 = request.placement.modulus_lg2;
    if (modulus_lg2 > granule_lg2_) {
        if (modulus_lg2 > 57)
            return fail(ErrorCode::out_of_range, "an alignment is at most 2^57",
                        {"modulus_lg2", modulus_lg2});
        spot.modulus_lg2 = modulus_lg2 - page_lg2;
        spot.remainder = (request.placement.like & ~granule_mask_) >> page_lg2;
    }
    if (!request.at)
        return spot;
    const std::uint64_t at = request.at->value();
    if (!is_aligned(at, granule_lg2_))
        return fail(ErrorCode::unaligned, "a fixed address is a multiple of the granule",
                    {"at", at});
    spot.at = at >> page_lg2;
    if (((spot.at - spot.remainder) & low_bits(spot.modulus_lg2)) != 0)
        return fail(ErrorCode::unaligned, "a fixed address must satisfy its placement", {"at", at},
                    {"modulus_lg2", modulus_lg2}, {"like", request.placement.like});
    return spot;
}

/// The first page past those that the request may use.
template <SyncPolicy Sync, GuardPolicy Guard>
std::uint64_t Allocator<Sync, Guard>::limit_of(const Request& request) {
    const std::uint64_t last = request.last.value();
    return last == std::numeric_limits<std::uint64_t>::max() ? Spot::anywhere
                                                             : (last + 1) >> page_lg2;
}

template <SyncPolicy Sync, GuardPolicy Guard>
std::unexpected<Error> Allocator<Sync, Guard>::no_space(const Request& request) {
    const ExtentPages pages = in_pages(request.extent, granule_lg2_);
    return fail(ErrorCode::no_space, "no free range of addresses fits",
                {"size", detail::size_in_error(request.extent, pages)},
                {"last", request.last.value()},
                {"largest_hole", central_.counts().largest_hole_pages << page_lg2},
                {"modulus_lg2", request.placement.modulus_lg2});
}

/// In this order, so that what one step lets go the next takes further.
template <SyncPolicy Sync, GuardPolicy Guard>
void Allocator<Sync, Guard>::relieve(Cache* cache) {
    caches_.drain(cache);
    (void)flush(); // a failure frees nothing
    std::array<Range, 64> ranges;
    using Which = typename Quarantine<Sync>::Which;
    while (const std::size_t taken = quarantine_.take(Which::all, ranges))
        central_.take_back(std::span(ranges).first(taken));
}

template <SyncPolicy Sync, GuardPolicy Guard>
Result<ByteCount> Allocator<Sync, Guard>::segment_offset(Iova iova,
                                                         std::span<const ByteCount> segments,
                                                         std::size_t index) {
    if (index >= segments.size())
        return fail(ErrorCode::out_of_range, "the list has no such segment", {"index", index},
                    {"segments", segments.size()});
    const ExtentPages pages = in_pages(segments, granule_lg2_);
    const std::uint64_t page = iova.value() >> page_lg2;
    typename LiveMap<Sync>::Leaf* const leaf =
        is_aligned(iova.value(), granule_lg2_) ? central_.map().find(page) : nullptr;
    Word* const word = leaf != nullptr ? &LiveMap<Sync>::word(*leaf, page) : nullptr;
    const std::uint32_t value = word != nullptr ? word->load(std::memory_order_acquire) : 0;
    if (record::state_of(value) != State::live)
        return fail(ErrorCode::not_found, "no live range starts here", {"iova", iova.value()});
    const Footprint footprint = central_.recorded({iova, word});
    if (footprint.payload != pages.payload || footprint.segments != pages.segments)
        return fail(ErrorCode::mismatch, "this range was allocated with other segments",
                    {"iova", iova.value()}, {"allocated_segments", footprint.segments});
    std::uint64_t offset = index * footprint.guard.both();
    for (const ByteCount each : segments.first(index))
        offset += whole_pages(each, granule_lg2_);
    return ByteCount(offset << page_lg2);
}

template <SyncPolicy Sync, GuardPolicy Guard>
Result<void> Allocator<Sync, Guard>::reserve(IovaRange range) {
    const PageRun pages = detail::outer_pages(range, granule_lg2_);
    if (pages.count == 0 || pages.start >= end_page())
        return fail(ErrorCode::out_of_range, "a reserved region has bytes in the aperture",
                    {"start", range.start().value()}, {"size", range.size().value()});
    Placed placed = central_.reserve(pages);
    if (placed == Placed::overlap) {
        relieve(caches_.local());
        placed = central_.reserve(pages);
    }
    if (placed == Placed::done)
        return {};
    if (placed == Placed::no_memory)
        return fail(ErrorCode::no_memory, "no memory to reserve a region",
                    {"start", range.start().value()}, {"size", range.size().value()});
    return fail(ErrorCode::overlap, "a live range, or its guard, lies in the reserved region",
                {"start", range.start().value()}, {"size", range.size().value()});
}

template <SyncPolicy Sync, GuardPolicy Guard>
Stats Allocator<Sync, Guard>::stats() {
    const CentralCounts central = central_.counts();
    const auto caches = caches_.counts();
    const auto quarantine = quarantine_.counts();
    std::uint64_t queued_ranges = 0;
    std::uint64_t queued_pages = 0;
    queue_.visit([&](const Range& range) {
        queued_ranges += 1;
        queued_pages += central_.recorded(range).payload;
    });
    const std::uint64_t idle_ranges = caches.magazine_ranges + caches.depot_ranges +
                                      quarantine.entries + queued_ranges + held_.ranges();
    const std::uint64_t idle_pages = caches.magazine_pages + caches.depot_pages +
                                     quarantine.payload_pages + queued_pages + held_.pages();
    const auto bytes = [](std::uint64_t pages) { return ByteCount(pages << page_lg2); };
    return {
        .live_ranges = central.ranges - std::min(idle_ranges, central.ranges),
        .live = bytes(central.payload_pages - std::min(idle_pages, central.payload_pages)),
        .cached = bytes(caches.magazine_pages + caches.depot_pages),
        .private_to_threads = bytes(caches.magazine_pages),
        .quarantined = bytes(quarantine.payload_pages),
        .queued = bytes(queued_pages),
        .held = bytes(held_.pages()),
        .held_ranges = held_.ranges(),
        .failed_invalidations = queue_.failures(),
        .guard = bytes(central.guard_pages),
        .free = bytes(central.free_pages),
        .largest_hole = bytes(central.largest_hole_pages),
        .search_steps = central.search_steps,
    };
}

} // namespace moat::iova
