// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Space's scatter lists, coherent memory and regions of devices. Included by space.hpp, which has
// what every mapping does.
#pragma once

#include "moat/dma/space.hpp"

#include <array>
#include <bit>

namespace moat::dma {

template <iommu::Domain Domain, SyncPolicy Sync>
Result<MappedList> Space<Domain, Sync>::map_list(std::span<const Memory> pieces,
                                                 Direction direction, std::span<Segment> segments,
                                                 const SegmentLimits& limits,
                                                 std::string_view label) {
    if (const auto good = check_list(pieces, limits, page_mask_); !good)
        return std::unexpected(good.error());
    if (segments.size() < pieces.size())
        return fail(ErrorCode::out_of_range, "there is less room for segments than pieces",
                    {"segments", segments.size()}, {"pieces", pieces.size()});
    ListLayout sizes(limits, page_mask_);
    for (const Memory& each : pieces)
        (void)sizes.place(each);
    const std::uint64_t boundary = limits.boundary.value();
    const unsigned aligned_lg2 =
        boundary != 0 && sizes.size().value() > page_mask_ + 1
            ? std::min<unsigned>(alignment_lg2(boundary), floor_lg2(sizes.size().value() - 1) + 1)
            : 0;
    const Result<Iova> start = allocator_->allocate(
        {.extent = sizes.size(), .placement = iova::Congruence::aligned(aligned_lg2)});
    if (!start)
        return std::unexpected(start.error());
    const auto mapped = map_list_at(*start, pieces, direction, segments, limits);
    if (!mapped) {
        give_back(*start, sizes.size());
        return std::unexpected(mapped.error());
    }
    const MappedList list = {*start, sizes.size(), *mapped};
    if (tracks())
        if (const auto noted = limits.guard == ByteCount(0)
                                   ? note_list(list, direction, label)
                                   : note_parts(list, direction, limits, label);
            !noted) {
            (void)unmap_pages(*start, sizes.size());
            return std::unexpected(noted.error());
        }
    return list;
}

/// Pieces whose memory and addresses both follow one another are mapped as one, so that large
/// leaves fit; some dozens are handed to the domain at once.
template <iommu::Domain Domain, SyncPolicy Sync>
Result<std::span<Segment>>
Space<Domain, Sync>::map_list_at(Iova start, std::span<const Memory> pieces, Direction direction,
                                 std::span<Segment> segments, const SegmentLimits& limits) {
    ListLayout layout(limits, page_mask_);
    SegmentWriter writer(segments, limits);
    std::array<iommu::Piece, 64> runs;
    std::size_t count = 0;
    std::uint64_t done = 0; // all below is mapped, from `start`
    const auto map_runs = [&]() -> Result<void> {
        const auto mapped =
            iommu::map_pieces(domain_, std::span(runs).first(count), attributes_of(direction));
        if (mapped && count != 0)
            done = runs[count - 1].start.value() + runs[count - 1].size.value() - start.value();
        else if (!mapped && done != 0)
            (void)domain_.unmap(start, ByteCount(done));
        count = 0;
        return mapped;
    };
    for (const Memory& each : pieces) {
        const std::uint64_t at = start.value() + layout.place(each);
        const std::uint64_t offset = each.physical.value() & page_mask_;
        writer.add(Iova(at + offset), each.size());
        const iommu::Piece run = {Iova(at), ByteCount(whole_pages(offset, each.bytes.size())),
                                  PhysicalAddress(each.physical.value() - offset)};
        if (count != 0 && follows(runs[count - 1], run)) {
            runs[count - 1].size += run.size;
            continue;
        }
        if (count == runs.size())
            if (const auto mapped = map_runs(); !mapped)
                return std::unexpected(mapped.error());
        runs[count++] = run;
    }
    if (const auto mapped = map_runs(); !mapped)
        return std::unexpected(mapped.error());
    return writer.written();
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<Iova> Space<Domain, Sync>::map_coherent(const Memory& memory, std::string_view label) {
    const ByteCount bytes(whole_pages(0, memory.bytes.size()));
    if (memory.bytes.empty())
        return fail(ErrorCode::empty, "there is nothing to map");
    if ((memory.physical.value() & page_mask_) != 0)
        return fail(ErrorCode::unaligned, "coherent memory begins at a page",
                    {"memory", memory.physical.value()}, {"page", page_mask_ + 1});
    const Result<Iova> start =
        allocator_->allocate({.extent = bytes, .placement = iova::Congruence::natural(bytes)});
    if (!start)
        return start;
    if (const auto mapped = domain_.map(*start, bytes, memory.physical, read_write); !mapped) {
        give_back(*start, bytes);
        return std::unexpected(mapped.error());
    }
    if (tracks())
        if (const auto noted =
                note_list({*start, memory.size(), {}}, Direction::bidirectional, label);
            !noted) {
            (void)unmap_pages(*start, bytes);
            return std::unexpected(noted.error());
        }
    return start;
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<Iova> Space<Domain, Sync>::map_region(PhysicalAddress region, ByteCount size,
                                             Direction direction, std::string_view label) {
    if (((region.value() | size.value()) & page_mask_) != 0)
        return fail(ErrorCode::unaligned, "a region of a device is whole pages",
                    {"region", region.value()}, {"size", size.value()}, {"page", page_mask_ + 1});
    const Attributes how = domain_.limits().known & Attributes::uncached;
    const Result<Iova> start = map_pages(region, size, attributes_of(direction) | how);
    if (!start || !tracks())
        return start;
    if (const auto noted = note_list({*start, size, {}}, direction, label); !noted) {
        (void)unmap_pages(*start, size);
        return std::unexpected(noted.error());
    }
    return start;
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::note_list(const MappedList& list, Direction direction,
                                            std::string_view label) {
    return registry_.add(list.start, [&](Registered& what) {
        what = {};
        what.mapping = {.range = {list.start, list.size},
                        .guard_before = options_.guard_before,
                        .guard_after = options_.guard,
                        .allows = allows_of(direction),
                        .label = label,
                        .mapped = now_by_whom()};
        what.direction = direction;
    });
}

/// The list in one place, and each segment where faults are looked up: so what leaves a segment is
/// told as that one's.
template <iommu::Domain Domain, SyncPolicy Sync>
Result<void> Space<Domain, Sync>::note_parts(const MappedList& list, Direction direction,
                                             const SegmentLimits& limits, std::string_view label) {
    const Result<void> noted = guarded_lists_.add(list.start, [&](Registered& what) {
        what = {};
        what.mapping.range = {list.start, list.size};
        what.mapping.label = label;
        what.direction = direction;
    });
    if (!noted)
        return noted;
    const fault::Event mapped = now_by_whom();
    for (const Segment& each : list.segments) {
        const bool first = &each == &list.segments.front();
        const bool last = &each == &list.segments.back();
        const Result<void> added = registry_.add(each.iova, [&](Registered& what) {
            what = {};
            what.mapping = {.range = {each.iova, each.size},
                            .guard_before = first ? options_.guard_before : limits.guard,
                            .guard_after = last ? options_.guard : limits.guard,
                            .allows = allows_of(direction),
                            .label = label,
                            .mapped = mapped};
            what.direction = direction;
            what.is_part = true;
        });
        if (!added) {
            (void)guarded_lists_.remove(list.start, [](const Registered&) { return true; });
            forget_parts({list.start, list.size});
            return added;
        }
    }
    return {};
}

template <iommu::Domain Domain, SyncPolicy Sync>
void Space<Domain, Sync>::forget_parts(IovaRange list) {
    const fault::Event now = now_by_whom();
    for (auto part = registry_.first_from(list.start()); part && list.contains(part->range);
         part = registry_.first_from(list.start())) {
        (void)registry_.remove(part->range.start(), [](const Registered&) { return true; });
        registry_.note_past(*part, now);
    }
    poison_.remove(list);
}

} // namespace moat::dma
