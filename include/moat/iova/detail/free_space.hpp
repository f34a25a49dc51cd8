// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Where in the free space to put a range: under a limit, congruent, or beside its own kind.
// The space itself is run_tree.hpp; guards and records are central.hpp's, which holds the lock.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/iova/detail/run_tree.hpp"

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
    /// Payloads of 1 to this many pages have chunks of their own, as far as there are enough.
    static constexpr std::uint64_t most_classes = 512;

    FreeSpace(std::uint64_t end_page, Preference preference)
        : tree_(end_page), end_(end_page), four_gib_((std::uint64_t{1} << 32) >> page_lg2),
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

    /// Up to `most` ranges of `count` pages in a row, for payloads of size class `size_class`: in a
    /// chunk where the class has been, else in a chunk that is all free, else wherever one fits.
    /// Return: a run of one or more ranges; none where not one fits.
    [[nodiscard]] std::optional<PageRun> find_batch(std::uint64_t size_class, std::uint64_t count,
                                                    std::uint64_t most) {
        if (count > Chunk::pages / 2)
            return find_large_batch(count, std::min<std::uint64_t>(most, 16));
        if (const auto run = find_beside_its_own(size_class, count, most))
            return run;
        if (const auto free = find(Need{.count = 2 * Chunk::pages - 1, .limit = end_})) {
            const std::uint64_t start = align_up(*free, RunTree<Sync>::chunk_lg2);
            if (tree_.prepare(start)) {
                Chunk& chunk = *tree_.chunk(start);
                chunk.size_class = static_cast<std::uint16_t>(size_class);
                list(chunk, start);
                return batch(start, count, std::min(most, Chunk::pages / count));
            }
        }
        const auto start = find(Need{.count = count, .limit = end_});
        return start ? std::optional(PageRun{*start, count}) : std::nullopt;
    }

    /// A range of this class became free: the class of its chunk may find room there.
    void returned(std::uint64_t page) {
        if (Chunk* const chunk = tree_.chunk(page); chunk != nullptr && chunk->size_class != 0)
            list(*chunk, page);
    }

    [[nodiscard]] std::uint64_t end_page() const { return end_; }

  private:
    /// Chunks of the class that may have room, newest first. One without room leaves the list,
    /// until something in it becomes free; so each look in vain was paid for by a release.
    [[nodiscard]] std::optional<PageRun>
    find_beside_its_own(std::uint64_t size_class, std::uint64_t count, std::uint64_t most) {
        constexpr unsigned tries = 3;
        for (unsigned i = 0; i != tries && lists_[size_class] != nullptr; ++i) {
            Chunk& chunk = *lists_[size_class];
            if (chunk.size_class != size_class) {
                unlist_first(size_class);
                list(chunk, chunk.first_page);
                continue;
            }
            // On the way down the chunk learns what its parents know better.
            MOAT_CHECK(tree_.chunk(chunk.first_page) == &chunk, "a chunk stays where it is");
            RunSearch search{.count = count, .from = chunk.first_page, .limit = end_};
            const bool found = chunk.find(search, chunk.first_page);
            tree_.count_steps(search.steps);
            if (found) {
                const std::uint64_t room =
                    chunk.run_length(static_cast<unsigned>(search.found - chunk.first_page));
                return batch(search.found, count, std::min(most, room / count));
            }
            unlist_first(size_class);
        }
        return std::nullopt;
    }

    /// Fewer ranges than there could be, if then the next batch begins with a cache line of
    /// records: it may be another thread's.
    static PageRun batch(std::uint64_t start, std::uint64_t count, std::uint64_t ranges) {
        constexpr std::uint64_t records = 16;
        std::uint64_t fewer = ranges;
        while (fewer > ranges / 2 && (start + fewer * count) % records >= count)
            --fewer;
        return {start, (fewer > ranges / 2 ? fewer : ranges) * count};
    }

    void unlist_first(std::uint64_t size_class) {
        lists_[size_class]->listed = false;
        lists_[size_class] = lists_[size_class]->next;
    }

    [[nodiscard]] std::optional<PageRun> find_large_batch(std::uint64_t count, std::uint64_t most) {
        for (const std::uint64_t ranges : {most, std::uint64_t{1}})
            if (const auto start = find(Need{.count = count * ranges, .limit = end_}))
                return PageRun{*start, count * ranges};
        return std::nullopt;
    }

    void list(Chunk& chunk, std::uint64_t page) {
        if (chunk.listed)
            return;
        chunk.first_page = align_down(page, RunTree<Sync>::chunk_lg2);
        chunk.listed = true;
        chunk.next = lists_[chunk.size_class];
        lists_[chunk.size_class] = &chunk;
    }

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
    std::array<Chunk*, most_classes + 1> lists_{};
};

} // namespace moat::iova
