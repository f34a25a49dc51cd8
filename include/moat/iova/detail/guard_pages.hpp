// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The only place that adds a guard to a payload and removes it again. central.hpp calls it on every
// path.
#pragma once

#include "moat/iova/config.hpp"
#include "moat/iova/detail/pages.hpp"

#include <cstdint>

namespace moat::iova {

/// The guard of every range of an allocator, in pages.
///
///     | before | payload | after |
///     ^ start  ^ payload page, which the caller knows
struct GuardPages {
    std::uint64_t before = 0;
    std::uint64_t after = 0;

    constexpr GuardPages(const Guard& guard, unsigned granule_lg2)
        : before(whole_pages(guard.before, granule_lg2)),
          after(whole_pages(guard.after, granule_lg2)) {}

    [[nodiscard]] constexpr std::uint64_t both() const { return before + after; }

    /// Every page that the range with this payload occupies.
    [[nodiscard]] constexpr PageRun around(PageRun payload) const {
        return {payload.start - before, payload.count + both()};
    }
};

} // namespace moat::iova
