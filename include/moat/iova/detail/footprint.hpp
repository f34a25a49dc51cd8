// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The one place where a guard is added to a mapping, and the one where it is removed.
// The width comes from guard_policy.hpp; central.hpp calls both, for every path there is.
#pragma once

#include "moat/iova/detail/extent.hpp"
#include "moat/iova/detail/guard_policy.hpp"

#include <cstdint>

namespace moat::iova {

/// Consecutive pages of the space.
struct PageRun {
    std::uint64_t start = 0;
    std::uint64_t count = 0;

    [[nodiscard]] constexpr std::uint64_t end() const { return start + count; }

    friend constexpr bool operator==(const PageRun&, const PageRun&) = default;
};

/// What a mapping occupies: every segment with its own guard before and after it.
///
///     | before | segment | after | before | segment | after |
///     ^ start   ^ payload page, which the caller knows
struct Footprint {
    std::uint64_t payload = 0;
    std::uint64_t segments = 1;
    GuardPages guard{};

    [[nodiscard]] constexpr std::uint64_t guard_total() const { return segments * guard.both(); }
};

/// How many pages to ask of the free space for a footprint.
[[nodiscard]] constexpr std::uint64_t padded_pages(const Footprint& footprint) {
    return footprint.payload + footprint.guard_total();
}

/// Between the outer guards: the payload, and the guards between its segments.
[[nodiscard]] constexpr std::uint64_t span_pages(const Footprint& footprint) {
    return padded_pages(footprint) - footprint.guard.both();
}

/// Pads: the payload page of a footprint that starts at page `start`.
[[nodiscard]] constexpr std::uint64_t payload_page(std::uint64_t start,
                                                   const Footprint& footprint) {
    return start + footprint.guard.before;
}

/// Un-pads: every page that the mapping with this payload page occupies.
[[nodiscard]] constexpr PageRun occupied(std::uint64_t page, const Footprint& footprint) {
    return {page - footprint.guard.before, padded_pages(footprint)};
}

} // namespace moat::iova
