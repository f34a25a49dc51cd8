// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Chooses where a range lies in the free space (run_tree.hpp): under a limit, congruent, or beside
// ranges of its size. central.hpp holds the lock and adds guards and records.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/iova/detail/run_tree.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>

namespace moat::iova {

/// The demands on a single range, in pages.
struct Need {
    /// Payload and guards.
    std::uint64_t count = 0;
    /// The distance from the range's first page to its payload, to which the modulus applies.
    std::uint64_t lead = 0;
    unsigned modulus_lg2 = 0;
    std::uint64_t remainder = 0;
    /// The range's exclusive end, at most.
    std::uint64_t limit = 0;
};

template <SyncPolicy Sync>
class FreeSpace {
  public:
    /// Payloads of 1 to this many pages get chunks of their own while there are free ones.
    static constexpr std::uint64_t most_classes = 512;

    explicit FreeSpace(std::uint64_t end_page) : tree_(end_page), end_(end_page) {}

    [[nodiscard]] RunTree<Sync>& tree() { return tree_; }

    /// The lowest place that satisfies `need`: above 4 GiB first, which leaves the low addresses
    /// to devices that reach no further, then below, then across. With a modulus: finds any run of
    /// count + modulus - 1 pages, in O(log n), and a shorter one only among the first few that are
    /// long enough.
    [[nodiscard]] std::optional<std::uint64_t> find(const Need& need) {
        if (four_gib < end_ && four_gib < need.limit) {
            if (const auto found = find_within(need, four_gib))
                return found;
            Need low = need;
            low.limit = four_gib;
            if (const auto found = find_within(low, 0))
                return found;
        }
        return find_within(need, 0);
    }

    /// Up to `most` ranges of `count` pages in a row, for payloads of size class `size_class`: in a
    /// chunk of this class, else in a chunk that is all free, else the first that fits.
    /// Return: a run of at least one range; none where not even one fits.
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

    /// Lists the chunk of a freed page again: its class may find room there.
    void returned(std::uint64_t page) {
        if (Chunk* const chunk = tree_.chunk(page); chunk != nullptr && chunk->size_class != 0)
            list(*chunk, page);
    }

    [[nodiscard]] std::uint64_t end_page() const { return end_; }

  private:
    static constexpr std::uint64_t four_gib = std::uint64_t{1} << (32 - page_lg2);

    /// Searches the chunks of the class that may have room, newest first. A full chunk leaves the
    /// list until a release in it, so that releases pay for the searches in vain.
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
            // Looking a chunk up refreshes it from its parents.
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

    /// Trims a batch so that the next one, which may be another thread's, starts a cache line of
    /// records.
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
    const std::uint64_t end_;
    std::array<Chunk*, most_classes + 1> lists_{};
};

} // namespace moat::iova
