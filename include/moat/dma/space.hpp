// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Space: the DMA API. It maps memory for the devices of one domain, at addresses with guards around
// them, and finds misuse. docs/life_of_a_mapping.md follows one mapping through the parts.
#pragma once

#include "moat/dma/detail/buffer_watch.hpp"
#include "moat/dma/detail/byte_access.hpp"
#include "moat/dma/detail/double_mappings.hpp"
#include "moat/dma/detail/list_mapper.hpp"
#include "moat/dma/detail/page_mapper.hpp"
#include "moat/dma/detail/tracker.hpp"
#include "moat/dma/memory.hpp"
#include "moat/dma/options.hpp"
#include "moat/iommu/soft_domain.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace moat::dma {

/// Thread-safe: any thread may map, and unmap what another one mapped, but not from inside a
/// device's access. Outlives its mappings; at levels `track` and `exact` its destructor reports
/// each remaining mapping as a leak and unmaps it.
template <iommu::Domain Domain, SyncPolicy Sync>
class Space {
  public:
    /// `domain` has no mappings and no other user, and outlives the space. Errors: out_of_range
    /// (the mask excludes the whole aperture); unsupported (deferred unmapping of a domain that
    /// cannot defer; exact or sampling without pages; stacks without `capture`; a page size other
    /// than 4K, 16K and 64K); busy (another space registered byte bounds); no_memory.
    [[nodiscard]] static Result<std::unique_ptr<Space>> create(Domain& domain,
                                                               const SpaceConfig& config = {});

    ~Space() {
        report_leaks();
        (void)flush(); // the tracker reports what a failure holds
        pages_.close();
    }

    Space(const Space&) = delete;
    Space& operator=(const Space&) = delete;

    /// Maps `memory` (not empty) for `direction`. Devices reach whole pages; at level `exact` only
    /// its bytes. `label` outlives the space; usually a literal.
    /// Return: the device's address of the first byte.
    /// Errors: empty, no_space, no_memory, out_of_range (reported as `not_addressable`), and the
    /// domain's; nothing is mapped then.
    [[nodiscard, gnu::always_inline]] Result<Iova> map(const Memory& memory, Direction direction,
                                                       std::string_view label = {}) {
        if (entry_ == Care::guard || (entry_ < Care::guard && !watch_.samples_next())) [[likely]]
            return map_pages(memory, direction);
        return entry_ == Care::track ? map_tracked(memory, direction, label)
                                     : map_otherwise(memory, direction, label);
    }

    /// The same, compiled as a part of the caller at level `track`, too: for a function that does
    /// little else.
    [[nodiscard, gnu::always_inline]] Result<Iova>
    map_inline(const Memory& memory, Direction direction, std::string_view label = {}) {
        if (entry_ == Care::track) [[likely]]
            return map_tracked_inline(memory, direction, label);
        return map(auto(memory), direction, label); // a copy, so that `memory` stays in registers
    }

    /// Whether `map` and `unmap` do nothing else: level `guard` without sampling and a recorder.
    [[nodiscard]] bool maps_pages_only() const { return entry_ == Care::guard; }

    /// `map` where `maps_pages_only()`, compiled as a part of the caller.
    [[nodiscard, gnu::always_inline]] Result<Iova> map_pages_inline(const Memory& memory,
                                                                    Direction direction) {
        return pages_.map(memory.physical, memory.size(), attributes_of(direction));
    }

    /// `unmap` where `maps_pages_only()`, compiled as a part of the caller.
    [[gnu::always_inline]] Result<void> unmap_pages_inline(Iova iova, ByteCount size) {
        return pages_.unmap(iova, size);
    }

    /// Maps `pieces` into one range, in order, each on its own pages. Writes the segments for the
    /// device to `segments`, which has at least as many elements as `pieces`. Adjacent pieces share
    /// a segment where `limits` allow it. With a guard, each piece is a segment, and from level
    /// `track` on a fault names its segment. `unmap` of the whole range undoes it. Devices reach
    /// whole pages, also at level `exact`, except with a guard. Errors: measure_list's and map's;
    /// nothing is mapped then.
    [[nodiscard]] Result<MappedList> map_list(std::span<const Memory> pieces, Direction direction,
                                              std::span<Segment> segments,
                                              const SegmentLimits& limits = {},
                                              std::string_view label = {});

    /// Maps memory that driver and device share for long, such as a ring, for both directions, at a
    /// multiple of its size (rounded up to a power of two). `memory` begins at a page; `unmap` of
    /// the same size, bidirectional, undoes it. Errors: map's; unaligned.
    [[nodiscard]] Result<Iova> map_coherent(const Memory& memory, std::string_view label = {});

    /// Maps whole pages of another device's BAR (peer to peer), uncached where the domain supports
    /// it. The CPU has no memory there, so nothing is copied or checked. `unmap` of the same size
    /// and direction undoes it. Errors: map's; unaligned.
    [[nodiscard]] Result<Iova> map_region(PhysicalAddress region, ByteCount size,
                                          Direction direction, std::string_view label = {});

    /// Undoes `map` of the same size and direction. Strict: on return no device reaches the memory.
    /// Deferred: after `flush`; but mappings that are watched to the byte are unmapped strictly.
    /// The memory then has what the device wrote, except bytes that the CPU changed after
    /// sync_for_cpu. Errors: empty, overflow, not_found, mismatch (reported from level `track` on);
    /// nothing is changed then. io: the invalidation failed, and devices may still reach the
    /// memory; `not_invalidated` is reported and the address is never used again (Stats::held).
    [[gnu::always_inline]] Result<void> unmap(Iova iova, ByteCount size, Direction direction) {
        if (entry_ == Care::guard || (entry_ < Care::guard && !watch_.is_sampled(iova)))
            [[likely]] {
            if (pages_.unmaps_commonly(size)) [[likely]]
                return unmap_commonly(iova, size);
            return pages_.unmap_otherwise(iova, size);
        }
        return entry_ == Care::track ? unmap_tracked(iova, size, direction)
                                     : unmap_otherwise(iova, size, direction);
    }

    /// The same, as `map_inline`.
    [[gnu::always_inline]] Result<void> unmap_inline(Iova iova, ByteCount size,
                                                     Direction direction) {
        if (entry_ == Care::track) [[likely]]
            return unmap_tracked_inline(iova, size, direction);
        return unmap(iova, size, direction);
    }

    /// Makes the device the owner of [iova + offset, + size): it finds what the CPU wrote there.
    /// Other bytes of the mapping do not change. `iova` is what `map` returned. Reports
    /// `missing_sync` if the device wrote there and the CPU has since taken no byte of the mapping.
    /// Errors: not_found, out_of_range (reported as `outside`), no_memory; nothing is changed then.
    Result<void> sync_for_device(Iova iova, ByteCount offset, ByteCount size) {
        return needs_care(iova) ? sync(iova, offset, size, Owner::device) : Result<void>{};
    }

    /// Makes the CPU the owner of [iova + offset, + size): it finds what the device wrote there,
    /// except bytes that the CPU changed since it took them. Other bytes of the mapping do not
    /// change. Checks the red zones. Reports `cpu_wrote` if the CPU wrote there while the device
    /// owned it. Errors: as sync_for_device.
    Result<void> sync_for_cpu(Iova iova, ByteCount offset, ByteCount size) {
        return needs_care(iova) ? sync(iova, offset, size, Owner::cpu) : Result<void>{};
    }

    /// Denies devices [start, start + size), bytes of one mapping, until `unpoison` or `unmap`; on
    /// return no device reaches them. The caller keeps the mapping meanwhile. For sub-allocators.
    /// Errors: unsupported (below level exact, and for a domain that checks only pages), empty,
    /// not_found (not inside one living mapping); nothing is changed then.
    Result<void> poison(Iova start, ByteCount size) { return bytes_.poison(start, size); }

    /// Allows devices the poisoned bytes of the range again. Errors: poison's.
    Result<void> unpoison(Iova start, ByteCount size) { return bytes_.unpoison(start, size); }

    /// On return no device reaches what was unmapped before the call. Errors: io; devices may then
    /// reach every range that waited, each is reported as `not_invalidated` and never used again.
    /// The same holds for a flush by the timer or of a full queue; the next flush invalidates
    /// again.
    Result<void> flush() { return pages_.allocator().flush(); }

    /// Reports each living mapping to the listener as a leak, and keeps it: for a driver that ends
    /// before its space. From level `track` on; otherwise sampled mappings.
    void report_living() { tracker_.report_living(); }

    /// Reports what the IOMMU recorded to the listener, with the mapping that is affected; level
    /// `guard` knows none. Return: the diagnosis, whose labels and stacks live as long as the
    /// space.
    fault::Diagnosis fault(const fault::Record& record) {
        if (recorder_.fault != nullptr)
            recorder_.fault(recorder_.context, record);
        return tracker_.report_fault(record);
    }

    /// `fault`, for an IOMMU in software to call.
    [[nodiscard]] iommu::FaultHandler fault_handler() {
        return {[](void* context, const fault::Record& record) {
                    static_cast<Space*>(context)->fault(record);
                },
                this};
    }

    /// How many of the bytes from `start` on, up to `size`, lie in one mapping and are not
    /// poisoned: for an IOMMU in software to ask (iommu::ByteBounds). From level `track` on.
    [[nodiscard]] ByteCount bytes_inside(Iova start, ByteCount size) const {
        return bytes_.bytes_inside(start, size);
    }

    /// The options in effect.
    [[nodiscard]] const Options& options() const { return options_; }

    [[nodiscard]] Domain& domain() { return pages_.domain(); }

    [[nodiscard]] iova::Stats stats() { return pages_.allocator().stats(); }

  private:
    /// What happens to a mapping. One comparison with `guard` tells the first three apart.
    enum class Care : std::int8_t {
        sample = -1, ///< as `guard`, except a few that are watched to the byte
        guard = 0,   ///< pages are mapped and unmapped
        track,       ///< each is registered
        watch,       ///< the same, and its bytes are watched
        record,      ///< each is passed to the recorder, and treated as `care_` says
    };

    Space(const SpaceConfig& config, PageMapper<Domain, Sync> pages)
        : pages_(std::move(pages)), options_(config.options), care_(care_of(options_)),
          entry_(config.recorder.map != nullptr ? Care::record : care_), recorder_(config.recorder),
          tracker_(config), watch_(config, tracker_, pages_), bytes_(pages_.domain(), tracker_) {
        pages_.set_held_listener({[](void* context, IovaRange range) {
                                      static_cast<Tracker<Sync>*>(context)->report_held(range);
                                  },
                                  &tracker_});
    }

    [[nodiscard]] static Result<void> check_config(const iommu::DomainLimits& limits,
                                                   const SpaceConfig& config);

    [[nodiscard]] static Care care_of(const Options& options) {
        if (options.sample != 0)
            return Care::sample;
        if (options.level == Level::guard)
            return Care::guard;
        return BufferWatch<Domain, Sync>::watches(options) ? Care::watch : Care::track;
    }

    [[nodiscard]] bool tracks() const { return care_ == Care::track || care_ == Care::watch; }

    [[nodiscard]] bool tracks_to_the_byte() const {
        return tracks() && options_.level == Level::exact;
    }

    [[nodiscard]] bool looks_for_double_mappings() const {
        return tracks_to_the_byte() && options_.double_mapping != DoubleMapping::ignore;
    }

    [[nodiscard, gnu::always_inline]] bool needs_care(Iova iova) {
        return care_ != Care::guard && (care_ != Care::sample || watch_.is_sampled(iova));
    }

    /// The same from level `track` on, for the result of a map.
    [[nodiscard]] Result<Iova> track(const Result<Iova>& mapped, ByteCount size,
                                     Direction direction, std::string_view label) {
        return mapped && tracks() ? track(*mapped, size, direction, label) : mapped;
    }

    /// Adds what was mapped to the tracker; unmaps it if that fails.
    [[nodiscard, gnu::always_inline]] Result<Iova>
    track(Iova iova, ByteCount size, Direction direction, std::string_view label) {
        if (const auto added = tracker_.add(iova, size, direction, label); !added) [[unlikely]] {
            (void)pages_.unmap(iova, size);
            return std::unexpected(added.error());
        }
        return iova;
    }

    // One function for each care, which saves registers for its own body only.
    [[nodiscard]] Result<Iova> map_pages(const Memory& memory, Direction direction) {
        return map_pages_inline(memory, direction);
    }

    Result<void> unmap_commonly(Iova iova, ByteCount size) {
        return pages_.unmap(iova, size, true);
    }

    [[gnu::noinline]] Result<Iova> map_tracked(const Memory& memory, Direction direction,
                                               std::string_view label) {
        return map_tracked_inline(memory, direction, label);
    }

    [[gnu::noinline]] Result<void> unmap_tracked(Iova iova, ByteCount size, Direction direction) {
        return unmap_tracked_inline(iova, size, direction);
    }

    [[gnu::always_inline]] Result<Iova>
    map_tracked_inline(const Memory& memory, Direction direction, std::string_view label) {
        const Result<Iova> mapped =
            pages_.map(memory.physical, memory.size(), attributes_of(direction));
        if (!mapped) [[unlikely]]
            return mapped;
        return track(*mapped, memory.size(), direction, label);
    }

    [[gnu::always_inline]] Result<void> unmap_tracked_inline(Iova iova, ByteCount size,
                                                             Direction direction) {
        const Result<void> removed = tracker_.remove(iova, size, direction);
        return removed ? pages_.unmap(iova, size) : removed;
    }

    [[gnu::noinline]] Result<Iova> map_otherwise(const Memory& memory, Direction direction,
                                                 std::string_view label) {
        return entry_ == Care::record ? map_recorded(memory, direction, label)
                                      : map_watched(memory, direction, label);
    }

    [[gnu::noinline]] Result<void> unmap_otherwise(Iova iova, ByteCount size, Direction direction) {
        return entry_ == Care::record ? unmap_recorded(iova, size, direction)
                                      : unmap_watched(iova, size, direction);
    }

    [[gnu::noinline]] Result<Iova> map_watched(const Memory& memory, Direction direction,
                                               std::string_view label);
    [[gnu::noinline]] Result<void> unmap_watched(Iova iova, ByteCount size, Direction direction);
    [[gnu::noinline]] Result<Iova> map_recorded(const Memory& memory, Direction direction,
                                                std::string_view label);
    [[gnu::noinline]] Result<void> unmap_recorded(Iova iova, ByteCount size, Direction direction);

    void record_map(IovaRange range, PhysicalAddress memory, Direction direction,
                    std::string_view label) {
        if (recorder_.map != nullptr)
            recorder_.map(recorder_.context, {range, memory, direction, label});
    }

    [[gnu::noinline]] Result<void> sync(Iova iova, ByteCount offset, ByteCount size, Owner next);
    void look_for_double_mapping(IovaRange range, std::span<const Memory> pieces,
                                 Direction direction, std::string_view label);
    void report_double_mapping(IovaRange range, Iova other, Direction direction,
                               std::string_view label);
    void report_leaks();

    // First, so that the hot paths need no register for its address beside that of the space.
    PageMapper<Domain, Sync> pages_;
    const Options options_;
    const Care care_;
    const Care entry_; ///< where map and unmap begin: `care_`, or `record`
    const Recorder recorder_;
    Tracker<Sync> tracker_;
    BufferWatch<Domain, Sync> watch_;
    ByteAccess<Domain, Sync> bytes_;
    DoubleMappings<Sync> double_mappings_;
};

template <iommu::Domain Domain, SyncPolicy Sync>
Result<std::unique_ptr<Space<Domain, Sync>>>
Space<Domain, Sync>::create(Domain& domain, const SpaceConfig& config) {
    if (const auto possible = check_config(domain.limits(), config); !possible)
        return std::unexpected(possible.error());
    SpaceConfig effective = config;
    if (config.options.level == Level::exact) // bytes are compared and copied after the last access
        effective.options.unmapping = Unmapping::strict;
    auto pages = PageMapper<Domain, Sync>::create(domain, effective);
    if (!pages)
        return std::unexpected(pages.error());
    std::unique_ptr<Space> space(new Space(effective, std::move(*pages)));
    if (space->tracks_to_the_byte())
        if (const auto enabled = space->bytes_.enable(); !enabled)
            return std::unexpected(enabled.error());
    return space;
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::check_config(const iommu::DomainLimits& limits,
                                               const SpaceConfig& config) {
    const Options& options = config.options;
    const bool defers = iommu::DeferringDomain<Domain> && limits.defers;
    if (options.unmapping == Unmapping::deferred && !defers)
        return fail(ErrorCode::unsupported, "this domain cannot defer invalidations: "
                                            "use unmapping=strict");
    if (options.level == Level::exact && config.pages.allocate == nullptr)
        return fail(ErrorCode::unsupported,
                    "level exact needs pages for small buffers: set SpaceConfig::pages");
    if (options.sample != 0 && config.pages.allocate == nullptr)
        return fail(ErrorCode::unsupported,
                    "sampling needs pages for small buffers: set SpaceConfig::pages",
                    {"sample", options.sample});
    if (options.stacks != 0 && config.capture == nullptr)
        return fail(ErrorCode::unsupported,
                    "stacks need a function that takes them: set SpaceConfig::capture",
                    {"stacks", options.stacks});
    return {};
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<Iova> Space<Domain, Sync>::map_recorded(const Memory& memory, Direction direction,
                                               std::string_view label) {
    const bool watched = care_ == Care::watch || (care_ == Care::sample && watch_.samples_next());
    const Result<Iova> iova = watched                ? map_watched(memory, direction, label)
                              : care_ == Care::track ? map_tracked(memory, direction, label)
                                                     : map_pages(memory, direction);
    if (iova)
        record_map({*iova, memory.size()}, memory.physical, direction, label);
    return iova;
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::unmap_recorded(Iova iova, ByteCount size, Direction direction) {
    const Result<void> unmapped = !needs_care(iova)      ? pages_.unmap(iova, size)
                                  : care_ == Care::track ? unmap_tracked(iova, size, direction)
                                                         : unmap_watched(iova, size, direction);
    if (unmapped)
        recorder_.unmap(recorder_.context, {iova, size});
    return unmapped;
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<Iova> Space<Domain, Sync>::map_watched(const Memory& memory, Direction direction,
                                              std::string_view label) {
    const Result<Iova> iova = watch_.map(memory, direction, label);
    if (!iova) [[unlikely]]
        return iova;
    if (looks_for_double_mappings())
        if (const auto other = double_mappings_.add(*iova, memory, direction)) [[unlikely]]
            report_double_mapping({*iova, memory.size()}, *other, direction, label);
    return *iova;
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::unmap_watched(Iova iova, ByteCount size, Direction direction) {
    PackedMapping was;
    if (const auto taken = tracker_.take(iova, size, direction, was); !taken)
        return taken;
    if (looks_for_double_mappings()) {
        if (const auto* const buffer = watch_.buffer_of(was); buffer != nullptr)
            double_mappings_.remove(iova, buffer->memory(), direction);
        else
            double_mappings_.remove_list(iova);
    }
    bytes_.forget({iova, size});
    return watch_.unmap(iova, size, was);
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::sync(Iova iova, ByteCount offset, ByteCount size, Owner next) {
    const Result<Registered> mapping = tracker_.find_for_sync(iova, offset, size);
    if (!mapping)
        return std::unexpected(mapping.error());
    return watch_.hand_over(*mapping, offset, size, next);
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<MappedList> Space<Domain, Sync>::map_list(std::span<const Memory> pieces,
                                                 Direction direction, std::span<Segment> segments,
                                                 const SegmentLimits& limits,
                                                 std::string_view label) {
    const Result<MappedList> list = ListMapper(pages_).map(pieces, direction, segments, limits);
    if (!list)
        return list;
    const IovaRange range(list->start, list->size);
    if (!tracks()) {
        record_map(range, pieces.front().physical, direction, label);
        return list;
    }
    const Result<void> added = limits.guard == ByteCount(0)
                                   ? tracker_.add(list->start, list->size, direction, label)
                                   : tracker_.add_parts(*list, direction, limits.guard, label);
    if (!added) {
        (void)pages_.unmap(list->start, list->size);
        return std::unexpected(added.error());
    }
    look_for_double_mapping(range, pieces, direction, label);
    record_map(range, pieces.front().physical, direction, label);
    return list;
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<Iova> Space<Domain, Sync>::map_coherent(const Memory& memory, std::string_view label) {
    if ((memory.physical.value() & pages_.page_mask()) != 0)
        return fail(ErrorCode::unaligned, "coherent memory begins at a page",
                    {"memory", memory.physical.value()}, {"page", pages_.page_mask() + 1});
    if (entry_ == Care::guard)
        return pages_.map_aligned(memory, read_write);
    constexpr Direction direction = Direction::bidirectional;
    const Result<Iova> iova =
        track(pages_.map_aligned(memory, read_write), memory.size(), direction, label);
    if (iova) {
        look_for_double_mapping({*iova, memory.size()}, {&memory, 1}, direction, label);
        record_map({*iova, memory.size()}, memory.physical, direction, label);
    }
    return iova;
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<Iova> Space<Domain, Sync>::map_region(PhysicalAddress region, ByteCount size,
                                             Direction direction, std::string_view label) {
    if (((region.value() | size.value()) & pages_.page_mask()) != 0)
        return fail(ErrorCode::unaligned, "a region of a device is whole pages",
                    {"region", region.value()}, {"size", size.value()},
                    {"page", pages_.page_mask() + 1});
    const Attributes uncached = domain().limits().known & Attributes::uncached;
    const Result<Iova> iova = track(pages_.map(region, size, attributes_of(direction) | uncached),
                                    size, direction, label);
    if (iova)
        record_map({*iova, size}, region, direction, label);
    return iova;
}

template <iommu::Domain Domain, SyncPolicy Sync>
void Space<Domain, Sync>::look_for_double_mapping(IovaRange range, std::span<const Memory> pieces,
                                                  Direction direction, std::string_view label) {
    if (looks_for_double_mappings())
        if (const auto other = double_mappings_.add_list(range.start(), pieces, direction))
            report_double_mapping(range, *other, direction, label);
}

template <iommu::Domain Domain, SyncPolicy Sync>
void Space<Domain, Sync>::report_double_mapping(IovaRange range, Iova other, Direction direction,
                                                std::string_view label) {
    const auto mapping = tracker_.find(range.start());
    DriverError error = {.kind = DriverErrorKind::double_mapping,
                         .range = range,
                         .mapping = mapping && mapping->range == range // a part of a list is not
                                        ? *mapping
                                        : tracker_.describe(range, direction, label),
                         .other = tracker_.find(other)};
    if (error.other) // another thread may have unmapped it
        tracker_.report(error);
}

template <iommu::Domain Domain, SyncPolicy Sync>
void Space<Domain, Sync>::report_leaks() {
    tracker_.for_each([&](const Registered& each) {
        const IovaRange range = each.mapping.range;
        if (!each.is_part && care_ != Care::track) {
            PackedMapping was;
            was.set(range.start(), range.size(), each.direction, each.mapping.label,
                    each.mapping.mapped, each.watched);
            (void)watch_.unmap(range.start(), range.size(), was);
        } else if (!each.is_part) {
            (void)pages_.unmap(range.start(), range.size());
        }
        tracker_.report_leak(each.mapping);
    });
    tracker_.for_each_list([&](const Registered& each) {
        (void)pages_.unmap(each.mapping.range.start(), each.mapping.range.size());
    });
}

} // namespace moat::dma
