// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Bytes in pages. The allocator counts in pages of 4 KiB whatever the IOMMU's granule, so that hot
// paths shift by a constant. Apertures, payloads and guards are multiples of the granule.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/range.hpp"

#include <cstdint>

namespace moat::iova {

inline constexpr unsigned page_lg2 = 12;

/// Consecutive pages of the space.
struct PageRun {
    std::uint64_t start = 0;
    std::uint64_t count = 0;

    [[nodiscard]] constexpr std::uint64_t end() const { return start + count; }

    friend constexpr bool operator==(const PageRun&, const PageRun&) = default;
};

/// Bytes in pages, rounded up to the granule; 0 only for 0.
[[nodiscard]] constexpr std::uint64_t whole_pages(ByteCount bytes, unsigned granule_lg2) {
    if (bytes.value() == 0)
        return 0;
    return (((bytes.value() - 1) >> granule_lg2) + 1) << (granule_lg2 - page_lg2);
}

/// The pages of the whole granules inside a range of bytes.
[[nodiscard]] constexpr PageRun inner_pages(IovaRange range, unsigned granule_lg2) {
    if (range.empty())
        return {};
    const std::uint64_t first = whole_pages(ByteCount(range.start().value()), granule_lg2);
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

} // namespace moat::iova
