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
    const Result<ByteCount> size = measure_list(pieces, limits, page_mask_);
    if (!size)
        return std::unexpected(size.error());
    if (segments.size() < pieces.size())
        return fail(ErrorCode::out_of_range, "there is less room for segments than pieces",
                    {"segments", segments.size()}, {"pieces", pieces.size()});
    const std::uint64_t boundary = limits.boundary.value();
    const unsigned aligned_lg2 =
        boundary != 0 && size->value() > page_mask_ + 1
            ? std::min<unsigned>(alignment_lg2(boundary), floor_lg2(size->value() - 1) + 1)
            : 0;
    const Result<Iova> start = allocator_->allocate(
        {.size = *size, .placement = iova::Congruence::aligned(aligned_lg2)});
    if (!start)
        return std::unexpected(start.error());
    const auto mapped = map_list_at(*start, pieces, direction, segments, limits);
    if (!mapped) {
        give_back(*start, *size, mapped.error());
        return std::unexpected(mapped.error());
    }
    const MappedList list = {*start, *size, *mapped};
    if (tracks())
        if (const auto noted = limits.guard == ByteCount(0)
                                   ? note_list(list, direction, label)
                                   : note_parts(list, direction, limits, label);
            !noted) {
            (void)unmap_pages(*start, *size);
            return std::unexpected(noted.error());
        }
    look_for_double_mapping(describe({list.start, list.size}, direction, label, {}), pieces,
                            direction);
    return list;
}

/// Some dozens of runs are handed to the domain at once.
template <iommu::Domain Domain, SyncPolicy Sync>
Result<std::span<Segment>>
Space<Domain, Sync>::map_list_at(Iova start, std::span<const Memory> pieces, Direction direction,
                                 std::span<Segment> segments, const SegmentLimits& limits) {
    ListLayout layout(limits, page_mask_);
    SegmentWriter writer(segments, limits);
    std::array<iommu::Piece, 64> room;
    std::uint64_t done = 0; // all below is mapped, from `start`
    while (!pieces.empty()) {
        const auto runs = next_runs(start, pieces, layout, writer, room);
        if (const auto mapped = iommu::map_pieces(domain_, runs, attributes_of(direction));
            !mapped) {
            if (done != 0)
                if (const auto undone = domain_.unmap(start, ByteCount(done)); !undone)
                    return std::unexpected(undone.error());
            return std::unexpected(mapped.error());
        }
        done = runs.back().start.value() + runs.back().size.value() - start.value();
    }
    return writer.written();
}

/// Lays pieces out, and takes them from `pieces`, until the room is full. Those whose memory and
/// addresses both follow one another are one run, so that large leaves fit. Inlined, so that where
/// the last one ended stays in registers: kept in memory, it doubles the time of a list.
template <iommu::Domain Domain, SyncPolicy Sync>
[[gnu::always_inline]] inline std::span<const iommu::Piece>
Space<Domain, Sync>::next_runs(Iova start, std::span<const Memory>& pieces, ListLayout& layout,
                               SegmentWriter& writer, std::span<iommu::Piece> room) const {
    std::uint64_t next = 0;        // where an address would follow the last run
    std::uint64_t next_memory = 0; // and memory
    std::size_t count = 0;
    std::size_t taken = 0;
    for (const Memory& each : pieces) {
        const ListLayout before = layout;
        const std::uint64_t at = start.value() + layout.place(each);
        const std::uint64_t offset = each.physical.value() & page_mask_;
        const std::uint64_t memory = each.physical.value() - offset;
        const std::uint64_t bytes = whole_pages(offset, each.bytes.size());
        if (at == next && memory == next_memory && count != 0) {
            room[count - 1].size += ByteCount(bytes);
        } else if (count == room.size()) {
            layout = before;
            break;
        } else {
            room[count++] = {Iova(at), ByteCount(bytes), PhysicalAddress(memory)};
        }
        next = at + bytes;
        next_memory = memory + bytes;
        writer.add(Iova(at + offset), each.size());
        ++taken;
    }
    pieces = pieces.subspan(taken);
    return room.first(count);
}

template <iommu::Domain Domain, SyncPolicy Sync>
Result<Iova> Space<Domain, Sync>::map_coherent(const Memory& memory, std::string_view label) {
    if (memory.bytes.size() - 1 >= most_bytes)
        return cannot_map(memory.size());
    const ByteCount bytes(whole_pages(0, memory.bytes.size()));
    if ((memory.physical.value() & page_mask_) != 0)
        return fail(ErrorCode::unaligned, "coherent memory begins at a page",
                    {"memory", memory.physical.value()}, {"page", page_mask_ + 1});
    const Result<Iova> start =
        allocator_->allocate({.size = bytes, .placement = iova::Congruence::natural(bytes)});
    if (!start)
        return start;
    if (const auto mapped = domain_.map(*start, bytes, memory.physical, read_write); !mapped) {
        give_back(*start, bytes, mapped.error());
        return std::unexpected(mapped.error());
    }
    if (tracks())
        if (const auto noted =
                note_list({*start, memory.size(), {}}, Direction::bidirectional, label);
            !noted) {
            (void)unmap_pages(*start, bytes);
            return std::unexpected(noted.error());
        }
    look_for_double_mapping(describe({*start, memory.size()}, Direction::bidirectional, label, {}),
                            {&memory, 1}, Direction::bidirectional);
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
    const fault::Mapping mapping =
        describe({list.start, list.size}, direction, label, now_by_whom());
    return registry_.add(
        list.start, [&](Registered& what) { what = {.mapping = mapping, .direction = direction}; });
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
