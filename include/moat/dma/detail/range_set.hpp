// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RangeSet: a set of 64-bit numbers, stored as ranges that neither overlap nor touch. Not thread-
// safe. Used for poison (poison.hpp) and ownership (exact_buffer.hpp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory_resource>

namespace moat::dma {

/// Every range is [first, last] with first <= last. A change costs O(log n) per range that it
/// touches.
class RangeSet {
  public:
    /// `memory` outlives the set.
    explicit RangeSet(std::pmr::memory_resource* memory = std::pmr::new_delete_resource())
        : last_by_first_(memory) {}

    [[nodiscard]] bool empty() const { return last_by_first_.empty(); }

    void clear() { last_by_first_.clear(); }

    /// Throws std::bad_alloc; the set does not change then.
    void add(std::uint64_t first, std::uint64_t last) {
        auto each = touching(first, last);
        std::uint64_t joined_first = first;
        std::uint64_t joined_last = last;
        for (auto at = each; at != last_by_first_.end() && begins_by(at->first, last); ++at) {
            joined_first = std::min(joined_first, at->first);
            joined_last = std::max(joined_last, at->second);
        }
        const auto [here, added] = last_by_first_.try_emplace(joined_first, joined_last);
        here->second = joined_last;
        for (auto at = std::next(here); at != last_by_first_.end() && at->first <= joined_last;)
            at = last_by_first_.erase(at);
    }

    /// Throws std::bad_alloc; the set does not change then.
    void remove(std::uint64_t first, std::uint64_t last) {
        if (const auto end = last_by_first_.upper_bound(last); end != last_by_first_.begin())
            if (const auto longest = std::prev(end); longest->second > last) {
                last_by_first_.emplace_hint(end, last + 1, longest->second);
                longest->second = last;
            }
        auto each = last_by_first_.lower_bound(first);
        if (each != last_by_first_.begin())
            if (const auto before = std::prev(each); before->second >= first)
                before->second = first - 1;
        while (each != last_by_first_.end() && each->first <= last)
            each = last_by_first_.erase(each);
    }

    /// How many numbers from `at` on, up to `most`, precede one of the set.
    [[nodiscard]] std::uint64_t clear_from(std::uint64_t at, std::uint64_t most) const {
        const auto next = last_by_first_.upper_bound(at);
        if (next != last_by_first_.begin() && std::prev(next)->second >= at)
            return 0;
        return next == last_by_first_.end() ? most : std::min(most, next->first - at);
    }

    struct Piece {
        std::uint64_t last = 0;
        bool inside = false; ///< wholly inside the set, else wholly outside
    };

    /// The longest piece from `at` to `most` at the latest that is wholly inside or wholly outside
    /// the set.
    [[nodiscard]] Piece piece_from(std::uint64_t at, std::uint64_t most) const {
        const auto next = last_by_first_.upper_bound(at);
        if (next != last_by_first_.begin() && std::prev(next)->second >= at)
            return {std::min(most, std::prev(next)->second), true};
        if (next != last_by_first_.end() && next->first <= most)
            return {next->first - 1, false};
        return {most, false};
    }

  private:
    using Ranges = std::pmr::map<std::uint64_t, std::uint64_t>;

    /// Whether a range that begins at `first` overlaps or touches one that ends at `last`.
    [[nodiscard]] static bool begins_by(std::uint64_t first, std::uint64_t last) {
        return first <= last || first - last == 1;
    }

    /// The first range that overlaps or touches [first, last], or the one after it.
    [[nodiscard]] Ranges::iterator touching(std::uint64_t first, std::uint64_t last) {
        auto each = last_by_first_.upper_bound(last);
        while (each != last_by_first_.begin()) {
            const auto before = std::prev(each);
            if (before->second < first && first - before->second != 1)
                break;
            each = before;
        }
        return each;
    }

    Ranges last_by_first_;
};

} // namespace moat::dma
