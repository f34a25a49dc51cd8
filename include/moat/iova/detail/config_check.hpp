// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What Allocator::create checks, and how much its caches may hold.
#pragma once

#include "moat/iova/detail/caches.hpp"

#include <algorithm>
#include <cstdint>

namespace moat::iova {

/// Return: the first page past the aperture. Errors: those of Allocator::create but `no_memory`.
[[nodiscard]] inline Result<std::uint64_t> checked_end_page(const Config& config) {
    const unsigned granule_lg2 = config.granule_lg2;
    if (granule_lg2 != 12 && granule_lg2 != 14 && granule_lg2 != 16)
        return fail(ErrorCode::unsupported, "a granule is 4K, 16K or 64K",
                    {"granule_lg2", granule_lg2});
    if (config.aperture.empty())
        return fail(ErrorCode::empty, "an aperture has at least one range");
    constexpr std::uint64_t most = std::uint64_t{1} << 57;
    std::uint64_t previous_end = 0;
    for (const IovaRange& each : config.aperture) {
        if (each.empty() || each.last().value() >= most)
            return fail(ErrorCode::out_of_range, "an aperture's ranges lie below 2^57",
                        {"start", each.start().value()}, {"size", each.size().value()});
        if (each.start().value() < previous_end)
            return fail(ErrorCode::overlap, "an aperture's ranges ascend and do not overlap",
                        {"start", each.start().value()}, {"previous_end", previous_end});
        previous_end = each.end().value();
    }
    const GuardPages guard(config.guard, granule_lg2);
    if (std::max(guard.before, guard.after) >= std::uint64_t{1} << (30 - page_lg2))
        return fail(ErrorCode::out_of_range, "a guard has less than 1 GiB on a side",
                    {"before", config.guard.before.value()}, {"after", config.guard.after.value()});
    return previous_end >> granule_lg2 << (granule_lg2 - page_lg2);
}

[[nodiscard]] constexpr CacheBudget cache_budget(const Config& config) {
    std::uint64_t pages = 0;
    for (const IovaRange& each : config.aperture)
        pages += inner_pages(each, config.granule_lg2).count;
    return {.thread_pages = std::min(pages / 32, std::uint64_t{1} << 18),
            .all_threads_pages = pages / 16,
            .shelf_pages = pages / 32,
            .quarantined = config.quarantine.enabled()};
}

} // namespace moat::iova
