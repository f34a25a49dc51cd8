// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Space from level `track` on: mappings are registered, misuse is reported, small buffers are moved
// to an edge. Included by space.hpp, which has what every level does.
#pragma once

#include "moat/dma/space.hpp"

#include <algorithm>
#include <array>
#include <atomic>

namespace moat::dma {

template <iommu::Domain Domain, SyncPolicy Sync>
Result<std::unique_ptr<Space<Domain, Sync>>>
Space<Domain, Sync>::create(Domain& domain, const SpaceConfig& config) {
    const iommu::DomainLimits limits = domain.limits();
    const Options& options = config.options;
    const unsigned page_lg2 = alignment_lg2(limits.leaf_sizes);
    const bool defers = iommu::DeferringDomain<Domain> && limits.defers;
    if (options.unmapping == Unmapping::deferred && !defers)
        return fail(ErrorCode::unsupported,
                    "this domain invalidates at each unmap and cannot defer: "
                    "use unmapping=strict");
    if (options.level == Level::exact && config.pages.allocate == nullptr)
        return fail(ErrorCode::unsupported, "level exact needs pages for small buffers");
    if (options.stacks != 0 && config.capture == nullptr)
        return fail(ErrorCode::unsupported, "there is no way to take stacks");
    if (limits.aperture.start() > config.dma_mask)
        return fail(ErrorCode::out_of_range, "the device reaches nothing of the domain",
                    {"dma_mask", config.dma_mask.value()},
                    {"aperture", limits.aperture.start().value()});
    const std::array reachable = {IovaRange::inclusive(
        limits.aperture.start(), std::min(limits.aperture.last(), config.dma_mask))};
    iova::Config wanted = {.aperture = reachable, .granule_lg2 = page_lg2};
    if (options.quarantine != ByteCount(0))
        wanted.quarantine = {.bytes = options.quarantine, .entries = ~std::uint64_t{0}};
    if constexpr (iommu::DeferringDomain<Domain>)
        if (defers)
            wanted.invalidation = {
                [](void* context) { return static_cast<Domain*>(context)->invalidate_all(); },
                &domain};
    auto allocator = Allocator::create(wanted, {options.guard_before, options.guard});
    if (!allocator)
        return std::unexpected(allocator.error());
    for (const IovaRange& each : limits.reserved)
        if (const IovaRange inside = each.intersection(reachable[0]); !inside.empty())
            if (const auto reserved = (*allocator)->reserve(inside); !reserved)
                return std::unexpected(reserved.error());
    std::unique_ptr<Space> space(new Space(domain, config, page_lg2, std::move(*allocator)));
    space->allocator_->set_held_listener(
        {[](void* context, IovaRange range) { static_cast<Space*>(context)->report_held(range); },
         space.get()});
    if constexpr (requires { domain.set_bounds(iommu::ByteBounds{}); })
        if (options.level == Level::exact)
            domain.set_bounds({[](void* context, Iova start, ByteCount size) {
                                   return static_cast<Space*>(context)->bytes_inside(start, size);
                               },
                               space.get()});
    return space;
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<Iova> Space<Domain, Sync>::map_tracked(const Memory& memory, Direction direction,
                                              std::string_view label) {
    Memory bounce;
    if (options_.level == Level::exact && memory.size() != ByteCount(0) &&
        memory.size() <= ByteCount(page_mask_ + 1)) {
        const Result<Memory> edge = at_an_edge(memory);
        if (!edge)
            return std::unexpected(edge.error());
        bounce = *edge;
        copy_in(memory, bounce);
    }
    const Memory& mapped = bounce.bytes.empty() ? memory : bounce;
    const Result<Iova> iova = map_pages(mapped.physical, mapped.size(), attributes_of(direction));
    if (!iova) [[unlikely]] {
        release_pages(bounce);
        return iova;
    }
    const Result<void> added = registry_.add(*iova, [&](Registered& what) {
        what.mapping.range = {*iova, mapped.size()};
        what.mapping.guard_before = options_.guard_before;
        what.mapping.guard_after = options_.guard;
        what.mapping.allows = allows_of(direction);
        what.mapping.label = label;
        what.mapping.mapped = now_by_whom();
        what.direction = direction;
        what.is_part = false;
        what.memory = memory;
        what.bounce = bounce;
        what.checksum = options_.level == Level::exact ? checksum(memory, direction) : 0;
    });
    if (!added) [[unlikely]] {
        (void)unmap_pages(*iova, mapped.size());
        release_pages(bounce);
        return std::unexpected(added.error());
    }
    return iova;
}

/// The registry lets go first: an access that comes late is told as one of a past mapping.
template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::unmap_tracked(Iova iova, ByteCount size, Direction direction) {
    if (options_.level == Level::exact)
        return unmap_exact(iova, size, direction);
    return forget_and_unmap(iova, size, direction, [](const Registered&) {});
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::unmap_exact(Iova iova, ByteCount size, Direction direction) {
    Registered was;
    const Result<void> unmapped =
        forget_and_unmap(iova, size, direction, [&](const Registered& each) { was = each; });
    if (!unmapped)
        return unmapped;
    poison_.remove(was.mapping.range);
    check(was);
    copy_out(was);
    release_pages(was.bounce);
    return {};
}

template <iommu::Domain Domain, SyncPolicy Sync>
template <class See>
Result<void> Space<Domain, Sync>::forget_and_unmap(Iova iova, ByteCount size, Direction direction,
                                                   See&& see) {
    std::optional<fault::Mapping> was;
    const bool removed = registry_.remove(iova, [&](const Registered& each) {
        was.emplace(each.mapping);
        see(each);
        return each.mapping.range.size() == size && each.direction == direction && !each.is_part;
    });
    if (!removed) [[unlikely]] {
        if (guarded_lists_.remove(iova, [&](const Registered& each) {
                return each.mapping.range.size() == size && each.direction == direction;
            })) {
            forget_parts({iova, size});
            return unmap_pages(iova, size);
        }
        const bool same_size = was && was->range.size() == size;
        return report_misuse(!was        ? DriverErrorKind::not_mapped
                             : same_size ? DriverErrorKind::wrong_direction
                                         : DriverErrorKind::wrong_size,
                             {iova, size}, was ? &*was : nullptr);
    }
    registry_.note_past(*was, now_by_whom());
    return unmap_pages(iova, size);
}

template <iommu::Domain Domain, SyncPolicy Sync>
template <class Act>
Result<void> Space<Domain, Sync>::sync(Iova iova, ByteCount offset, ByteCount size, Act&& act) {
    if (!tracks())
        return {}; // the device and the CPU see the same bytes
    Registered found;
    const Result<void> known = registry_.with(iova, [&](Registered& each) -> Result<void> {
        found = each;
        return {};
    });
    const IovaRange named(Iova(iova.value() + offset.value()), size);
    if (!known)
        return report_misuse(DriverErrorKind::not_mapped, named, nullptr);
    if (!found.mapping.range.contains(named))
        return report_misuse(DriverErrorKind::outside, named, &found.mapping);
    act(found);
    return registry_.with(iova, [&](Registered& each) -> Result<void> {
        each.checksum = found.checksum;
        return {};
    });
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<Memory> Space<Domain, Sync>::at_an_edge(const Memory& memory) {
    const Memory pages = pages_.allocate(pages_.context, ByteCount(page_mask_ + 1));
    if (pages.bytes.empty())
        return fail(ErrorCode::no_memory, "no page for a small buffer");
    std::ranges::fill(pages.bytes, red_zone_byte);
    const std::uint64_t alignment =
        memory.physical.value() == 0
            ? page_mask_ + 1
            : bit(std::min(edge_alignment_lg2, alignment_lg2(memory.physical.value())));
    return place_at_edge(pages, memory.bytes.size(), options_.placement, alignment);
}

template <iommu::Domain Domain, SyncPolicy Sync>
void Space<Domain, Sync>::release_pages(const Memory& bounce) {
    if (bounce.bytes.empty())
        return;
    const auto all = pages_around(bounce, page_mask_ + 1);
    pages_.release(pages_.context, {all, PhysicalAddress(bounce.physical.value() & ~page_mask_)});
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::poison(Iova start, ByteCount size) {
    const Result<IovaRange> range = range_to_poison(start, size);
    if (!range)
        return std::unexpected(range.error());
    if constexpr (iommu::DeferringDomain<Domain>)
        return poison_and_wait(poison_, domain_, *range);
    return {};
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::unpoison(Iova start, ByteCount size) {
    const Result<IovaRange> range = range_to_poison(start, size);
    if (!range)
        return std::unexpected(range.error());
    poison_.remove(*range);
    return {};
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<IovaRange> Space<Domain, Sync>::range_to_poison(Iova start, ByteCount size) const {
    bool asked = false; // at each access
    if constexpr (requires { domain_.bounds().inside; })
        asked = options_.level == Level::exact && domain_.bounds().inside != nullptr;
    if (!asked)
        return fail(ErrorCode::unsupported, "bytes are poisoned at level exact, behind an IOMMU "
                                            "that asks for bounds; others know only pages");
    if (size == ByteCount(0))
        return fail(ErrorCode::empty, "there is nothing to poison");
    const Result<IovaRange> range = IovaRange::make(start, size);
    const auto found = registry_.at_or_below(start);
    if (!range || !found || !found->mapping.range.contains(*range))
        return fail(ErrorCode::not_found, "the range lies in no one mapping",
                    {"iova", start.value()}, {"size", size.value()});
    return range;
}

template <iommu::Domain Domain, SyncPolicy Sync>
fault::Event Space<Domain, Sync>::sampled_event() {
    if (events_.fetch_add(1, std::memory_order_relaxed) % options_.stacks != 0)
        return {};
    std::array<std::uintptr_t, StackDepot<Sync>::most_frames> frames;
    const std::size_t count = capture_(frames);
    return {.time_ns = Sync::now(), .stack = stacks_.keep({frames.data(), count})};
}

/// What happened to a buffer while it was the device's.
template <iommu::Domain Domain, SyncPolicy Sync>
void Space<Domain, Sync>::check(const Registered& each) {
    if (options_.level != Level::exact)
        return;
    if (checksum(each.memory, each.direction) != each.checksum)
        report({DriverErrorKind::cpu_wrote, each.mapping.range, each.mapping, {}});
    if (each.bounce.bytes.empty())
        return;
    if (const auto changed = changed_red_zone(each, page_mask_ + 1))
        report({DriverErrorKind::red_zone, *changed, each.mapping, {}});
}

template <iommu::Domain Domain, SyncPolicy Sync>
std::unexpected<Error> Space<Domain, Sync>::report_misuse(DriverErrorKind kind, IovaRange named,
                                                          const fault::Mapping* found) {
    DriverError error = {kind, named, found != nullptr ? *found : fault::Mapping{}, {}};
    if (found == nullptr)
        error.past = registry_.latest_at(named);
    report(error);
    return fail(found == nullptr                   ? ErrorCode::not_found
                : kind == DriverErrorKind::outside ? ErrorCode::out_of_range
                                                   : ErrorCode::mismatch,
                found == nullptr ? "no mapping begins here" : "the mapping here is another one",
                {"iova", named.start().value()}, {"size", named.size().value()},
                {"mapped", error.mapping.range.start().value()},
                {"mapped_size", error.mapping.range.size().value()});
}

/// For deferred unmaps, and where the range is not in the thread's caches.
template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::unmap_slowly(Iova iova, ByteCount size) {
    if (size == ByteCount(0))
        return fail(ErrorCode::empty, "there is nothing to unmap", {"iova", iova.value()});
    if (size.value() > most_bytes)
        return fail(ErrorCode::overflow, "no mapping has so many bytes", {"iova", iova.value()},
                    {"size", size.value()});
    const std::uint64_t offset = iova.value() & page_mask_;
    const ByteCount bytes(whole_pages(offset, size.value()));
    const Iova start(iova.value() - offset);
    auto claim = allocator_->try_claim(start, bytes);
    if (!claim) {
        const auto claimed = allocator_->claim(start, bytes);
        if (!claimed)
            return std::unexpected(claimed.error());
        claim = *claimed;
    }
    if constexpr (iommu::DeferringDomain<Domain>)
        if (options_.unmapping == Unmapping::deferred)
            return finish_unmap(claim, {start, bytes}, domain_.unmap_deferred(start, bytes));
    return finish_unmap(claim, {start, bytes}, domain_.unmap(start, bytes));
}

/// What becomes of a claimed range. A failure that leaves the mapping as it was makes it live
/// again.
template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::finish_unmap(const typename Allocator::Claim& claim,
                                               IovaRange range, const Result<void>& unmapped) {
    if (unmapped)
        return allocator_->release(claim, options_.unmapping == Unmapping::strict
                                              ? iova::When::now
                                              : iova::When::after_invalidation);
    if (unmapped.error().code() == ErrorCode::io) {
        allocator_->hold(claim);
        report_held(range);
    } else {
        allocator_->unclaim(claim);
    }
    return unmapped;
}

/// From level `track` on the mapping is known, unless the history has lost it.
template <iommu::Domain Domain, SyncPolicy Sync>
void Space<Domain, Sync>::report_held(IovaRange range) {
    DriverError error = {DriverErrorKind::not_invalidated, range, {}, {}};
    if (tracks()) {
        const auto living = registry_.at_or_below(range.last());
        if (living && living->mapping.range.overlaps(range))
            error.mapping = living->mapping;
        else if (const auto past = registry_.latest_at(range))
            error.mapping = past->mapping;
    }
    report(error);
}

template <iommu::Domain Domain, SyncPolicy Sync>
void Space<Domain, Sync>::report_leaks() {
    registry_.for_each([&](const Registered& each) {
        report({DriverErrorKind::leak, each.mapping.range, each.mapping, {}});
        if (each.is_part)
            return;
        (void)unmap_pages(each.mapping.range.start(), each.mapping.range.size());
        release_pages(each.bounce);
    });
    guarded_lists_.for_each([&](const Registered& each) {
        (void)unmap_pages(each.mapping.range.start(), each.mapping.range.size());
    });
}

} // namespace moat::dma
