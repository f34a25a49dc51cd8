// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Memory that is mapped for a device, in one piece or as a scatter list, and the direction of its
// data. Values only.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/fault/mapping.hpp"
#include "moat/page_table/attributes.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace moat::dma {

/// What the device may do: read, write, or both.
enum class Direction : std::uint8_t { to_device, from_device, bidirectional };

[[nodiscard]] constexpr std::string_view name(Direction direction) {
    constexpr std::array<std::string_view, 3> names = {"to-device", "from-device", "bidirectional"};
    return names[static_cast<std::size_t>(direction)];
}

[[nodiscard]] constexpr Attributes attributes_of(Direction direction) {
    return static_cast<Attributes>(static_cast<std::uint32_t>(direction) + 1);
}

static_assert(attributes_of(Direction::to_device) == Attributes::read &&
              attributes_of(Direction::from_device) == Attributes::write &&
              attributes_of(Direction::bidirectional) == read_write);

[[nodiscard]] constexpr fault::Allows allows_of(Direction direction) {
    return static_cast<fault::Allows>(static_cast<std::uint8_t>(direction) + 1);
}

static_assert(allows_of(Direction::to_device) == fault::Allows::read &&
              allows_of(Direction::from_device) == fault::Allows::write &&
              allows_of(Direction::bidirectional) == fault::Allows::read_write);

/// Contiguous memory: the CPU's view, and the domain's name for it (iommu/domain.hpp). Neither need
/// be aligned, but both are equal modulo the domain's page.
struct Memory {
    std::span<std::byte> bytes = {};
    PhysicalAddress physical = {};

    /// Memory of this process, for domains that use the process's own addresses.
    [[nodiscard]] static Memory own(std::span<std::byte> bytes) {
        return {bytes, PhysicalAddress(reinterpret_cast<std::uintptr_t>(bytes.data()))};
    }

    [[nodiscard]] ByteCount size() const { return ByteCount(bytes.size()); }
};

/// The limits of one segment of a device.
struct SegmentLimits {
    /// The longest segment.
    ByteCount longest{std::numeric_limits<std::uint32_t>::max()};
    /// A power of two; segments do not cross its multiples. 0: no boundary.
    ByteCount boundary{};
    /// Unmapped bytes between pieces, rounded up to pages: each piece is then its own segment, and
    /// accesses beside it fault. 0: no guard; adjacent pieces share a segment.
    ByteCount guard{};
};

/// The address and size that a device gets.
struct Segment {
    Iova iova = {};
    ByteCount size = {};

    friend bool operator==(const Segment&, const Segment&) = default;
};

/// A scatter list that is mapped.
struct MappedList {
    Iova start = {};                  ///< of its range, for `unmap`
    ByteCount size = {};              ///< of its range, whole pages, for `unmap`
    std::span<Segment> segments = {}; ///< for the device, in order, in the caller's memory
};

/// Places pieces one after the other: each on its own pages, at its offset in the page, after the
/// previous one's guard, and moved past a boundary that it would cross.
class ListLayout {
  public:
    ListLayout(const SegmentLimits& limits, std::uint64_t page_mask)
        : boundary_(limits.boundary.value()), page_mask_(page_mask),
          guard_((limits.guard.value() + page_mask) & ~page_mask) {}

    struct Place {
        std::uint64_t at;     ///< the offset of the piece's first page in the list
        std::uint64_t offset; ///< of the piece in its first page
        std::uint64_t bytes;  ///< of its pages
    };

    /// Return: where the next piece lies, if `piece` is the next.
    [[nodiscard, gnu::always_inline]] Place next(const Memory& piece) const {
        const std::uint64_t offset = piece.physical.value() & page_mask_;
        const std::uint64_t end = offset + piece.bytes.size();
        const std::uint64_t bytes = (end + page_mask_) & ~page_mask_;
        if (boundary_ == 0 || ((next_ + offset) ^ (next_ + end - 1)) < boundary_) [[likely]]
            return {next_, offset, bytes};
        return {(next_ + boundary_ - 1) & ~(boundary_ - 1), offset, bytes};
    }

    [[gnu::always_inline]] void add(const Place& place) { next_ = place.at + place.bytes + guard_; }

    /// The size of the list; at least one piece was placed.
    [[nodiscard]] ByteCount size() const { return ByteCount(next_ - guard_); }

  private:
    std::uint64_t boundary_;
    std::uint64_t page_mask_;
    std::uint64_t guard_;
    std::uint64_t next_ = 0;
};

/// Longer than any aperture.
inline constexpr std::uint64_t longest_list = std::uint64_t{1} << 57;

/// Return: the size of the list's range, whole pages. Errors: empty; unsupported (a boundary that
/// is not a power of two, or below a page); out_of_range (a piece longer than a segment or the
/// boundary; a guard or a list longer than any aperture).
[[nodiscard]] inline Result<ByteCount>
measure_list(std::span<const Memory> pieces, const SegmentLimits& limits, std::uint64_t page_mask) {
    const std::uint64_t boundary = limits.boundary.value();
    if (boundary != 0 && (!std::has_single_bit(boundary) || boundary <= page_mask))
        return fail(ErrorCode::unsupported, "a boundary is a power of two, of a page or more",
                    {"boundary", boundary});
    if (pieces.empty())
        return fail(ErrorCode::empty, "the list has no pieces");
    if (limits.guard.value() > longest_list)
        return fail(ErrorCode::out_of_range, "the guard is longer than any aperture",
                    {"guard", limits.guard.value()});
    const std::uint64_t longest = std::min(limits.longest.value(), longest_list);
    ListLayout layout(limits, page_mask);
    for (const Memory& each : pieces) {
        const std::uint64_t size = each.bytes.size();
        if (size - 1 >= longest ||
            (boundary != 0 && (each.physical.value() & page_mask) + size > boundary)) [[unlikely]] {
            if (size == 0)
                return fail(ErrorCode::empty, "a piece of the list is empty");
            return fail(ErrorCode::out_of_range, "a piece is longer than a segment may be",
                        {"size", size}, {"longest", longest}, {"boundary", boundary});
        }
        layout.add(layout.next(each));
        if (layout.size().value() > longest_list) [[unlikely]]
            return fail(ErrorCode::out_of_range, "the list is longer than any aperture",
                        {"size", layout.size().value()}, {"boundary", boundary},
                        {"guard", limits.guard.value()});
    }
    return layout.size();
}

/// Collects segments, and joins adjacent ones within the limits.
class SegmentWriter {
  public:
    SegmentWriter(std::span<Segment> room, const SegmentLimits& limits)
        : room_(room), limits_(limits) {}

    void add(Iova iova, ByteCount size) {
        if (count_ != 0 && joins(last_, iova, size)) {
            last_.size += size;
            return;
        }
        if (count_ != 0)
            room_[count_ - 1] = last_;
        last_ = {iova, size};
        ++count_;
    }

    /// Call after the last `add`.
    [[nodiscard]] std::span<Segment> written() const {
        if (count_ != 0)
            room_[count_ - 1] = last_;
        return room_.first(count_);
    }

  private:
    [[nodiscard]] bool joins(const Segment& last, Iova iova, ByteCount size) const {
        const std::uint64_t boundary = limits_.boundary.value();
        const std::uint64_t end = last.iova.value() + last.size.value();
        return end == iova.value() && last.size + size <= limits_.longest &&
               (boundary == 0 ||
                ((last.iova.value() ^ (iova.value() + size.value() - 1)) & ~(boundary - 1)) == 0);
    }

    std::span<Segment> room_;
    SegmentLimits limits_;
    std::size_t count_ = 0;
    Segment last_; ///< not in the room yet, so that it grows in registers
};

} // namespace moat::dma
