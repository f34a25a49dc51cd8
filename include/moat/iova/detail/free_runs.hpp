// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A block's free runs in three numbers, and how blocks combine. chunk.hpp and run_tree.hpp are the
// blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace moat::iova {

/// Free runs of a block, in pages: the one it starts with, the longest, the one it ends with.
struct FreeRuns {
    std::uint64_t start = 0;
    std::uint64_t longest = 0;
    std::uint64_t end = 0;

    friend constexpr bool operator==(const FreeRuns&, const FreeRuns&) = default;

    [[nodiscard]] static constexpr FreeRuns all_used() { return {}; }

    [[nodiscard]] static constexpr FreeRuns all_free(std::uint64_t pages) {
        return {pages, pages, pages};
    }

    /// Whether a block of `pages` is all free or all used.
    [[nodiscard]] constexpr bool uniform(std::uint64_t pages) const {
        return longest == 0 || longest == pages;
    }
};

/// The runs of neighbouring blocks of `block_pages` each, taken together.
[[nodiscard]] constexpr FreeRuns combine(std::span<const FreeRuns> blocks,
                                         std::uint64_t block_pages) {
    FreeRuns all{};
    std::uint64_t run = 0;
    bool all_free_so_far = true;
    for (const FreeRuns& each : blocks) {
        all.longest = std::max({all.longest, run + each.start, each.longest});
        if (all_free_so_far) {
            all.start = run + each.start;
            all_free_so_far = each.longest == block_pages;
        }
        run = each.longest == block_pages ? run + block_pages : each.end;
    }
    all.end = run;
    return all;
}

} // namespace moat::iova
