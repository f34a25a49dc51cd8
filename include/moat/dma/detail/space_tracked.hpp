// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Space from level `track` on: mappings are registered, and misuse is reported. Included by
// space.hpp, which has what every level does; space_watched.hpp has what level exact adds.
#pragma once

#include "moat/dma/space.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>

namespace moat::dma {

template <iommu::Domain Domain, SyncPolicy Sync>
Space<Domain, Sync>::Space(Domain& domain, const SpaceConfig& config, unsigned page_lg2,
                           typename Allocator::Owner allocator,
                           std::unique_ptr<Sampling<Sync>> sampling)
    : domain_(domain), options_(effective(config.options)), care_(care_of(config.options)),
      watch_(tracks() && cpu_watch::present() ? config.options.cpu : CpuWatch::off),
      listener_(config.listener), capture_(config.capture), pages_(config.pages),
      page_mask_(low_bits(page_lg2)), allocator_(std::move(allocator)),
      sampling_(std::move(sampling)),
      // What has left the quarantine may belong to a mapping that is not sampled.
      registry_(sampling_ ? Sampling<Sync>::remembered : config.options.history) {}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<std::unique_ptr<Space<Domain, Sync>>>
Space<Domain, Sync>::create(Domain& domain, const SpaceConfig& config) {
    const iommu::DomainLimits limits = domain.limits();
    if (const auto possible = check_config(limits, config); !possible)
        return std::unexpected(possible.error());
    const unsigned page_lg2 = alignment_lg2(limits.leaf_sizes);
    auto allocator = create_allocator(domain, config, page_lg2);
    if (!allocator)
        return std::unexpected(allocator.error());
    std::unique_ptr<Sampling<Sync>> sampling;
    if (config.options.sample != 0)
        sampling = std::make_unique<Sampling<Sync>>(config.options.sample);
    std::unique_ptr<Space> space(
        new Space(domain, config, page_lg2, std::move(*allocator), std::move(sampling)));
    space->allocator_->set_held_listener(
        {[](void* context, IovaRange range) { static_cast<Space*>(context)->report_held(range); },
         space.get()});
    if (const auto registered = space->register_bounds(); !registered)
        return std::unexpected(registered.error());
    return space;
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::check_config(const iommu::DomainLimits& limits,
                                               const SpaceConfig& config) {
    const Options& options = config.options;
    const bool defers = iommu::DeferringDomain<Domain> && limits.defers;
    if (options.unmapping == Unmapping::deferred && !defers)
        return fail(ErrorCode::unsupported,
                    "this domain invalidates at each unmap and cannot defer: "
                    "use unmapping=strict");
    if (options.level == Level::exact && config.pages.allocate == nullptr)
        return fail(ErrorCode::unsupported, "level exact needs pages for small buffers");
    if (options.sample != 0 && config.pages.allocate == nullptr)
        return fail(ErrorCode::unsupported, "sampling needs pages for small buffers",
                    {"sample", options.sample});
    if (options.stacks != 0 && config.capture == nullptr)
        return fail(ErrorCode::unsupported, "there is no way to take stacks",
                    {"stacks", options.stacks});
    if (limits.aperture.start() > config.dma_mask)
        return fail(ErrorCode::out_of_range, "the device reaches nothing of the domain",
                    {"dma_mask", config.dma_mask.value()},
                    {"aperture", limits.aperture.start().value()});
    return {};
}

template <iommu::Domain Domain, SyncPolicy Sync>
auto Space<Domain, Sync>::create_allocator(Domain& domain, const SpaceConfig& config,
                                           unsigned page_lg2) -> Result<typename Allocator::Owner> {
    const iommu::DomainLimits limits = domain.limits();
    const Options& options = config.options;
    const std::array reachable = {IovaRange::inclusive(
        limits.aperture.start(), std::min(limits.aperture.last(), config.dma_mask))};
    iova::Config wanted = {.aperture = reachable,
                           .granule_lg2 = page_lg2,
                           .guard = {options.guard_before, options.guard}};
    if (options.quarantine != ByteCount(0))
        wanted.quarantine = {.bytes = options.quarantine, .entries = ~std::uint64_t{0}};
    if constexpr (iommu::DeferringDomain<Domain>)
        if (limits.defers)
            wanted.invalidation = {
                [](void* context) { return static_cast<Domain*>(context)->invalidate_all(); },
                &domain};
    auto allocator = Allocator::create(wanted);
    if (!allocator)
        return allocator;
    for (const IovaRange& each : limits.reserved)
        if (const IovaRange inside = each.intersection(reachable[0]); !inside.empty())
            if (const auto reserved = (*allocator)->reserve(inside); !reserved)
                return std::unexpected(reserved.error());
    return allocator;
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::register_bounds() {
    if constexpr (iommu::BoundedDomain<Domain>) {
        if (!tracks() || options_.level != Level::exact || !domain_.limits().byte_bounds)
            return {};
        auto registered = domain_.register_bounds(
            {[](void* context, Iova start, ByteCount size) {
                 return static_cast<Space*>(context)->bytes_inside(start, size);
             },
             this});
        if (!registered)
            return std::unexpected(registered.error());
        bounds_.emplace(std::move(*registered));
    }
    return {};
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<Iova> Space<Domain, Sync>::map_with_care(const Memory& memory, Direction direction,
                                                std::string_view label) {
    return watches_buffers() ? map_watched(memory, direction, label)
                             : map_tracked(memory, direction, label);
}

template <iommu::Domain Domain, SyncPolicy Sync>
fault::Mapping Space<Domain, Sync>::describe(IovaRange range, Direction direction,
                                             std::string_view label,
                                             const fault::Event& mapped) const {
    return {.range = range,
            .guard_before = options_.guard_before,
            .guard_after = options_.guard,
            .allows = allows_of(direction),
            .label = label,
            .mapped = mapped,
            .sampled_of = sampling_ ? sampling_->one_in() : 0};
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<Iova> Space<Domain, Sync>::map_tracked(const Memory& memory, Direction direction,
                                              std::string_view label) {
    const Result<Iova> iova = map_pages(memory.physical, memory.size(), attributes_of(direction));
    if (!iova) [[unlikely]]
        return iova;
    const fault::Event mapped = now_by_whom(); // not under the registry's lock
    const Result<void> added = registry_.add(*iova, [&](Registered& what) {
        what.mapping.range = {*iova, memory.size()};
        what.mapping.guard_before = options_.guard_before;
        what.mapping.guard_after = options_.guard;
        what.mapping.allows = allows_of(direction);
        what.mapping.label = label;
        what.mapping.mapped = mapped;
        what.direction = direction;
        what.is_part = false;
    });
    if (!added) [[unlikely]] {
        (void)unmap_pages(*iova, memory.size());
        return std::unexpected(added.error());
    }
    return iova;
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::unmap_tracked(Iova iova, ByteCount size, Direction direction) {
    std::optional<fault::Mapping> was;
    if (const auto forgotten = forget(iova, size, direction, was); !forgotten) [[unlikely]]
        return forgotten;
    return watches_buffers() ? unmap_watched(iova, size, was) : unmap_pages(iova, size);
}

/// The registry forgets the mapping first: an access that comes late is reported as one of a past
/// mapping. `was` stays empty where the mapping is a list with guards.
template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::forget(Iova iova, ByteCount size, Direction direction,
                                         std::optional<fault::Mapping>& was) {
    const bool removed = registry_.remove(iova, [&](const Registered& each) {
        was.emplace(each.mapping);
        return each.mapping.range.size() == size && each.direction == direction && !each.is_part;
    });
    if (removed) [[likely]] {
        registry_.note_past(*was, now_by_whom());
        return {};
    }
    if (guarded_lists_.remove(iova, [&](const Registered& each) {
            return each.mapping.range.size() == size && each.direction == direction;
        })) {
        was.reset();
        forget_parts({iova, size});
        return {};
    }
    const bool same_size = was && was->range.size() == size;
    return report_misuse(!was        ? DriverErrorKind::not_mapped
                         : same_size ? DriverErrorKind::wrong_direction
                                     : DriverErrorKind::wrong_size,
                         iova, size, was ? &*was : nullptr);
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::sync(Iova iova, ByteCount offset, ByteCount size, Owner next) {
    std::optional<fault::Mapping> mapping;
    const Result<void> known = registry_.with(iova, [&](Registered& each) -> Result<void> {
        mapping.emplace(each.mapping);
        return {};
    });
    const std::uint64_t end = std::numeric_limits<std::uint64_t>::max();
    const Iova first(offset.value() > end - iova.value() ? end : iova.value() + offset.value());
    if (!known)
        return report_misuse(DriverErrorKind::not_mapped, first, size, nullptr);
    const ByteCount all = mapping->range.size();
    if (offset > all || size.value() > all.value() - offset.value())
        return report_misuse(DriverErrorKind::outside, first, size, &*mapping);
    const BufferPointer buffer = watches_buffers() ? buffers_.find(iova) : nullptr;
    if (buffer == nullptr || size == ByteCount(0))
        return {}; // the device and the CPU see the same bytes
    const auto found = next == Owner::cpu ? buffer->take(offset.value(), size.value())
                                          : buffer->give(offset.value(), size.value());
    if (!found)
        return std::unexpected(found.error());
    report(*found, *mapping);
    return {};
}

template <iommu::Domain Domain, SyncPolicy Sync>
fault::Event Space<Domain, Sync>::every_so_often() {
    if (events_.fetch_add(1, std::memory_order_relaxed) % options_.stacks != 0)
        return {};
    return now_with_stack();
}

template <iommu::Domain Domain, SyncPolicy Sync>
fault::Event Space<Domain, Sync>::now_with_stack() {
    if (capture_ == nullptr)
        return {.time_ns = Sync::now()};
    std::array<std::uintptr_t, StackDepot<Sync>::most_frames> frames;
    const std::size_t count = capture_(frames);
    return {.time_ns = Sync::now(), .stack = stacks_.keep({frames.data(), count})};
}

/// Of a call that named [iova, iova + size), cut off at 2^64.
template <iommu::Domain Domain, SyncPolicy Sync>
std::unexpected<Error> Space<Domain, Sync>::report_misuse(DriverErrorKind kind, Iova iova,
                                                          ByteCount size,
                                                          const fault::Mapping* found) {
    const std::uint64_t left = std::numeric_limits<std::uint64_t>::max() - iova.value();
    const IovaRange named(iova, size.value() > left ? ByteCount(left) : size);
    DriverError error = {.kind = kind, .range = named};
    if (found != nullptr)
        error.mapping = *found;
    else
        error.past = registry_.latest_at(named);
    report(error);
    return fail(found == nullptr                   ? ErrorCode::not_found
                : kind == DriverErrorKind::outside ? ErrorCode::out_of_range
                                                   : ErrorCode::mismatch,
                found == nullptr ? "no mapping begins here" : "the mapping here is another one",
                {"iova", iova.value()}, {"size", size.value()},
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
    DriverError error = {.kind = DriverErrorKind::not_invalidated, .range = range};
    if (tracks()) {
        const auto living = registry_.at_or_below(range.last());
        if (living && living->range.overlaps(range))
            error.mapping = *living;
        else if (const auto past = registry_.latest_at(range))
            error.mapping = past->mapping;
    }
    report(error);
}

template <iommu::Domain Domain, SyncPolicy Sync>
void Space<Domain, Sync>::report_leaks() {
    registry_.for_each([&](const Registered& each) {
        const IovaRange range = each.mapping.range;
        if (!each.is_part && watches_buffers())
            (void)unmap_watched(range.start(), range.size(), each.mapping);
        else if (!each.is_part)
            (void)unmap_pages(range.start(), range.size());
        report({.kind = DriverErrorKind::leak, .range = range, .mapping = each.mapping});
    });
    guarded_lists_.for_each([&](const Registered& each) {
        (void)unmap_pages(each.mapping.range.start(), each.mapping.range.size());
    });
}

} // namespace moat::dma
