// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a caller maps: one buffer, or a list of segments that share a request.
// Requests and releases both carry one, so that the two describe a mapping in the same words.
#pragma once

#include "moat/core/types.hpp"

#include <cstdint>
#include <span>

namespace moat::iova {

/// One size, or a list of them; the list is the caller's and outlives the call.
class Extent {
  public:
    constexpr explicit(false) Extent(ByteCount size) : size_(size) {}

    constexpr explicit(false) Extent(std::span<const ByteCount> segments) : segments_(segments) {}

    [[nodiscard]] constexpr bool is_list() const { return segments_.data() != nullptr; }

    [[nodiscard]] constexpr ByteCount size() const { return size_; }

    [[nodiscard]] constexpr std::span<const ByteCount> segments() const { return segments_; }

  private:
    ByteCount size_{};
    std::span<const ByteCount> segments_{};
};

/// The allocator counts in pages of 4 KiB whatever the IOMMU's granule, so that hot paths shift by
/// a constant. All starts and sizes are multiples of the granule, because those of the aperture, of
/// every payload and of every guard are.
inline constexpr unsigned page_lg2 = 12;

/// An extent in pages, each segment rounded up to the granule. `payload` is 0 where a segment is
/// empty, and `too_many` where the sum does not fit.
struct ExtentPages {
    /// More than any aperture has.
    static constexpr std::uint64_t too_many = std::uint64_t{1} << 52;

    std::uint64_t payload = 0;
    std::uint64_t segments = 1;
};

/// Bytes in pages, rounded up to the granule; 0 for 0 and for what would round up past 2^64.
[[nodiscard]] constexpr std::uint64_t whole_pages(ByteCount bytes, unsigned granule_lg2) {
    const std::uint64_t granules =
        (bytes.value() + ((std::uint64_t{1} << granule_lg2) - 1)) >> granule_lg2;
    return granules << (granule_lg2 - page_lg2);
}

[[nodiscard]] constexpr ExtentPages in_pages(const Extent& extent, unsigned granule_lg2) {
    const ByteCount one = extent.size();
    const std::span<const ByteCount> all =
        extent.is_list() ? extent.segments() : std::span<const ByteCount>(&one, 1);
    ExtentPages sum{0, all.size()};
    for (const ByteCount each : all) {
        if (each.value() == 0)
            return {0, sum.segments};
        const std::uint64_t pages = whole_pages(each, granule_lg2);
        if (pages == 0 || pages >= ExtentPages::too_many - sum.payload)
            return {ExtentPages::too_many, sum.segments};
        sum.payload += pages;
    }
    return sum;
}

} // namespace moat::iova
