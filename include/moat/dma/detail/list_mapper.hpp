// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// ListMapper: maps the pieces of a scatter list into one range. memory.hpp lays them out,
// page_mapper.hpp provides the addresses.
#pragma once

#include "moat/dma/detail/page_mapper.hpp"
#include "moat/dma/memory.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

namespace moat::dma {

/// A view of `pages`, without state.
template <iommu::Domain Domain, SyncPolicy Sync>
class ListMapper {
  public:
    explicit ListMapper(PageMapper<Domain, Sync>& pages) : pages_(pages) {}

    /// Errors: Space::map_list's; nothing is mapped then.
    [[nodiscard]] Result<MappedList> map(std::span<const Memory> pieces, Direction direction,
                                         std::span<Segment> segments, const SegmentLimits& limits) {
        const Result<ByteCount> size = measure_list(pieces, limits, pages_.page_mask());
        if (!size)
            return std::unexpected(size.error());
        if (segments.size() < pieces.size())
            return fail(ErrorCode::out_of_range,
                        "the span of segments is shorter than the list of pieces",
                        {"segments", segments.size()}, {"pieces", pieces.size()});
        const std::uint64_t boundary = limits.boundary.value();
        const unsigned aligned_lg2 =
            boundary != 0 && size->value() > pages_.page_mask() + 1
                ? std::min<unsigned>(alignment_lg2(boundary), floor_lg2(size->value() - 1) + 1)
                : 0;
        const Result<Iova> start = pages_.allocator().allocate(
            {.size = *size, .placement = iova::Congruence::aligned(aligned_lg2)});
        if (!start)
            return std::unexpected(start.error());
        const auto mapped = map_at(*start, pieces, direction, segments, limits);
        if (!mapped) {
            pages_.release_unmapped(*start, *size, mapped.error());
            return std::unexpected(mapped.error());
        }
        return MappedList{*start, *size, *mapped};
    }

  private:
    /// Hands up to 64 runs to the domain at once.
    [[nodiscard]] Result<std::span<Segment>> map_at(Iova start, std::span<const Memory> pieces,
                                                    Direction direction,
                                                    std::span<Segment> segments,
                                                    const SegmentLimits& limits) {
        Domain& domain = pages_.domain();
        ListLayout layout(limits, pages_.page_mask());
        SegmentWriter writer(segments, limits);
        std::array<iommu::Piece, 64> room;
        std::uint64_t done = 0; // so many bytes from `start` on are mapped
        while (!pieces.empty()) {
            const auto runs = next_runs(start, pieces, layout, writer, room);
            if (const auto mapped = iommu::map_pieces(domain, runs, attributes_of(direction));
                !mapped) {
                if (done != 0)
                    if (const auto undone = domain.unmap(start, ByteCount(done)); !undone)
                        return std::unexpected(undone.error());
                return std::unexpected(mapped.error());
            }
            done = runs.back().start.value() + runs.back().size.value() - start.value();
        }
        return writer.written();
    }

    /// Lays pieces out, and takes them from `pieces`, until `room` is full. Pieces whose memory and
    /// addresses both follow one another form one run, which large leaves can map. Inlined, so that
    /// the end of the last run stays in registers: in memory, it doubles the time of a list.
    [[nodiscard, gnu::always_inline]] std::span<const iommu::Piece>
    next_runs(Iova start, std::span<const Memory>& pieces, ListLayout& layout,
              SegmentWriter& writer, std::span<iommu::Piece> room) const {
        std::uint64_t next = 0;        // the address after the last run
        std::uint64_t next_memory = 0; // and the memory
        std::size_t count = 0;
        std::size_t taken = 0;
        for (const Memory& each : pieces) {
            const ListLayout::Place place = layout.next(each);
            const std::uint64_t at = start.value() + place.at;
            const std::uint64_t memory = each.physical.value() - place.offset;
            if (at == next && memory == next_memory && count != 0)
                room[count - 1].size += ByteCount(place.bytes);
            else if (count == room.size())
                break;
            else
                room[count++] = {Iova(at), ByteCount(place.bytes), PhysicalAddress(memory)};
            layout.add(place);
            next = at + place.bytes;
            next_memory = memory + place.bytes;
            writer.add(Iova(at + place.offset), each.size());
            ++taken;
        }
        pieces = pieces.subspan(taken);
        return room.first(count);
    }

    PageMapper<Domain, Sync>& pages_;
};

} // namespace moat::dma
