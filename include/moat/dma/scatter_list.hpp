// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A scatter list: pieces of memory that get one range of addresses, and the segments that the
// device is told. The layout alone, without effects; space.hpp maps it.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/result.hpp"
#include "moat/dma/memory.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

namespace moat::dma {

/// What a device can take in one segment.
struct SegmentLimits {
    /// The longest segment.
    ByteCount longest{std::numeric_limits<std::uint32_t>::max()};
    /// No segment crosses a multiple of it; a power of two. 0: it may.
    ByteCount boundary{};
    /// Unmapped bytes between one piece and the next, rounded up to pages: each is a segment of its
    /// own then, and what leaves it faults. 0: none, and neighbours are one segment.
    ByteCount guard{};
};

/// What the device is told: where, and how much.
struct Segment {
    Iova iova = {};
    ByteCount size = {};

    friend bool operator==(const Segment&, const Segment&) = default;
};

/// Places one piece after the other: each on pages of its own, at its offset in the page, past the
/// guard of the one before, and past a boundary where it would cross one.
class ListLayout {
  public:
    ListLayout(const SegmentLimits& limits, std::uint64_t page_mask)
        : boundary_(limits.boundary.value()), page_mask_(page_mask),
          guard_((limits.guard.value() + page_mask) & ~page_mask) {}

    /// Return: where the piece's first page lies, from the list's start.
    [[nodiscard]] std::uint64_t place(const Memory& piece) {
        const std::uint64_t offset = piece.physical.value() & page_mask_;
        std::uint64_t at = next_;
        if (boundary_ != 0) {
            const std::uint64_t first = at + offset;
            if ((first & ~(boundary_ - 1)) != ((first + piece.bytes.size() - 1) & ~(boundary_ - 1)))
                at = (at + boundary_ - 1) & ~(boundary_ - 1);
        }
        next_ = at + ((offset + piece.bytes.size() + page_mask_) & ~page_mask_) + guard_;
        return at;
    }

    /// Of everything that was placed, one piece at least.
    [[nodiscard]] ByteCount size() const { return ByteCount(next_ - guard_); }

  private:
    std::uint64_t boundary_;
    std::uint64_t page_mask_;
    std::uint64_t guard_;
    std::uint64_t next_ = 0;
};

/// No list needs a longer range: no aperture has as much.
inline constexpr std::uint64_t longest_list = std::uint64_t{1} << 57;

/// Return: how long a range the list needs, whole pages. Errors, where a piece cannot be told to
/// the device: empty, unsupported (a boundary that is no power of two, or below a page),
/// out_of_range (a piece that is longer than a segment may be, or than the boundary; a guard, or
/// the list as a whole, that is longer than any aperture).
[[nodiscard]] inline Result<ByteCount>
measure_list(std::span<const Memory> pieces, const SegmentLimits& limits, std::uint64_t page_mask) {
    const std::uint64_t boundary = limits.boundary.value();
    if (boundary != 0 && (!std::has_single_bit(boundary) || boundary <= page_mask))
        return fail(ErrorCode::unsupported, "a boundary is a power of two, of a page or more",
                    {"boundary", boundary});
    if (pieces.empty())
        return fail(ErrorCode::empty, "the list has no pieces");
    const std::uint64_t longest = limits.longest.value();
    if (limits.guard.value() > longest_list)
        return fail(ErrorCode::out_of_range, "the guard is longer than any aperture",
                    {"guard", limits.guard.value()});
    ListLayout layout(limits, page_mask);
    for (const Memory& each : pieces) {
        const std::uint64_t size = each.bytes.size();
        if (size == 0)
            return fail(ErrorCode::empty, "a piece of the list is empty");
        if (size > longest || size > longest_list ||
            (boundary != 0 && (each.physical.value() & page_mask) + size > boundary))
            return fail(ErrorCode::out_of_range, "a piece is longer than a segment may be",
                        {"size", size}, {"longest", longest}, {"boundary", boundary});
        (void)layout.place(each);
        if (layout.size().value() > longest_list) [[unlikely]]
            return fail(ErrorCode::out_of_range, "the list is longer than any aperture",
                        {"size", layout.size().value()}, {"boundary", boundary},
                        {"guard", limits.guard.value()});
    }
    return layout.size();
}

/// Collects segments: what begins where the last one ends is added to it, as far as the limits go.
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

    /// When all were added.
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
    Segment last_; ///< not in the room yet: it grows in registers
};

} // namespace moat::dma
