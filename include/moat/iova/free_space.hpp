// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Where in the free space to put a range: under a limit, congruent, or beside its own kind.
// The space itself is run_tree.hpp; guards and records are central.hpp's, which holds the lock.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/iova/run_tree.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>

namespace moat::iova {

/// Which half of a large aperture is used first.
enum class Preference : std::uint8_t {
    above_4gib, ///< leaves the low addresses to devices that reach no further
    below_4gib, ///< short addresses first: one address cycle on the bus, fewer table levels
};

/// What a single range needs, in pages.
struct Need {
    /// Payload and guards.
    std::uint64_t count = 0;
    /// The distance from the range's first page to the page that placement speaks of.
    std::uint64_t lead = 0;
    unsigned modulus_lg2 = 0;
    std::uint64_t remainder = 0;
    /// The range ends here at the latest.
    std::uint64_t limit = 0;
};

template <SyncPolicy Sync>
class FreeSpace {
  public:
    /// Sizes up to this many payload pages remember where their last ranges were cut.
    static constexpr std::uint64_t most_classes = 512;
    static constexpr std::uint64_t slab_pages = 512;

    FreeSpace(std::uint64_t end_page, unsigned granule_lg2, Preference preference)
        : tree_(end_page), end_(end_page), four_gib_((std::uint64_t{1} << 32) >> granule_lg2),
          preference_(preference) {}

    [[nodiscard]] RunTree<Sync>& tree() { return tree_; }

    /// The lowest place in the preferred half that satisfies `need`, or in the other half, or
    /// across both. With a modulus: any run of count + modulus - 1 pages serves and is found in
    /// O(log n); shorter ones serve where one of the first few that are long enough happens to lie
    /// right.
    [[nodiscard]] std::optional<std::uint64_t> find(const Need& need) {
        if (four_gib_ >= end_ || four_gib_ >= need.limit)
            return find_within(need, 0);
        Need low = need;
        low.limit = four_gib_;
        const bool low_first = preference_ == Preference::below_4gib;
        auto found = low_first ? find_within(low, 0) : find_within(need, four_gib_);
        if (!found)
            found = low_first ? find_within(need, four_gib_) : find_within(low, 0);
        return found ? found : find_within(need, 0);
    }

    /// Up to `most` ranges of `count` pages in a row, for payloads of size class `size_class`:
    /// where the class cut its last ones, else in a fresh slab, else wherever one fits. Return: a
    /// run of one or more ranges; none where not one fits.
    [[nodiscard]] std::optional<PageRun> find_batch(std::uint64_t size_class, std::uint64_t count,
                                                    std::uint64_t most) {
        PageRun& slab = slabs_[size_class % slabs_.size()];
        auto start = tree_.find(count, slab.start, slab.end());
        if (!start) {
            const std::uint64_t pages = std::max(slab_pages, count * 16);
            start = find(Need{.count = pages, .limit = end_});
            if (start)
                slab = {*start, pages};
            else
                start = find(Need{.count = count, .limit = end_});
        }
        if (!start)
            return std::nullopt;
        const std::uint64_t in_slab = slab.end() > *start ? (slab.end() - *start) / count : 0;
        for (std::uint64_t ranges = std::min(most, in_slab); ranges > 1; ranges /= 2)
            if (tree_.is_free({*start, ranges * count}))
                return PageRun{*start, ranges * count};
        return PageRun{*start, count};
    }

    /// A class that gets a range back looks there first.
    void prefer(std::uint64_t size_class, std::uint64_t page) {
        slabs_[size_class % slabs_.size()] = {page & ~(slab_pages - 1), slab_pages};
    }

    [[nodiscard]] std::uint64_t end_page() const { return end_; }

  private:
    [[nodiscard]] std::optional<std::uint64_t> find_within(const Need& need, std::uint64_t from) {
        if (need.modulus_lg2 == 0)
            return tree_.find(need.count, from, need.limit);
        constexpr unsigned tries = 4;
        std::uint64_t next = from;
        for (unsigned i = 0; i != tries; ++i) {
            const auto run = tree_.find(need.count, next, need.limit);
            if (!run)
                return std::nullopt;
            next = congruent_from(*run, need);
            if (next == *run)
                return run;
        }
        const std::uint64_t slack = low_bits(need.modulus_lg2);
        if (need.count + slack < slack)
            return std::nullopt;
        const auto run = tree_.find(need.count + slack, from, need.limit);
        if (!run)
            return std::nullopt;
        return congruent_from(*run, need);
    }

    /// The first page at or above `page` that puts the payload where it must lie.
    static std::uint64_t congruent_from(std::uint64_t page, const Need& need) {
        const std::uint64_t mask = low_bits(need.modulus_lg2);
        return page + ((need.remainder - (page + need.lead)) & mask);
    }

    RunTree<Sync> tree_;
    std::uint64_t end_;
    std::uint64_t four_gib_;
    Preference preference_;
    std::array<PageRun, most_classes + 1> slabs_{};
};

} // namespace moat::iova
