// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The free pages of a space of up to 2^52 pages: a radix tree, eight children a node, over chunks.
// Every block knows its free runs, so that a search enters only blocks that have one.
// free_space.hpp chooses where to search; its caller holds the lock.
#pragma once

#include "moat/iova/detail/chunk.hpp"
#include "moat/iova/detail/free_runs.hpp"
#include "moat/iova/detail/pages.hpp"
#include "moat/sync/concept.hpp"

#include <array>
#include <cstdint>
#include <optional>

namespace moat::iova {

/// A node is made when a range first ends inside its block, and stays. Below a block that is all
/// free or all used the nodes may be stale; entering them refreshes them.
template <SyncPolicy Sync>
class RunTree {
  public:
    static constexpr unsigned fan_out_lg2 = 3;
    static constexpr unsigned fan_out = 1U << fan_out_lg2;
    static constexpr unsigned chunk_lg2 = 9;

    /// Covers pages [0, end_page), all of them used.
    explicit RunTree(std::uint64_t end_page) {
        while (fan_out * block_pages(top_) < end_page)
            ++top_;
    }

    ~RunTree() { destroy_below(root_, top_); }

    RunTree(const RunTree&) = delete;
    RunTree& operator=(const RunTree&) = delete;

    /// Makes the nodes that `set` needs for a range that begins or ends at `page`.
    /// Return: false when memory failed; nothing else changed then.
    [[nodiscard]] bool prepare(std::uint64_t page) {
        Node* node = &root_;
        for (unsigned level = top_; level != 0; --level) {
            const unsigned i = child_index(page, level);
            if (!enter(*node, i, level) && !make_below(*node, i, level))
                return false;
            node = static_cast<Node*>(node->below[i]);
        }
        const unsigned i = child_index(page, 0);
        return enter(*node, i, 0) || make_below(*node, i, 0);
    }

    /// Marks a whole run. Both of its ends must have been prepared.
    void set(PageRun run, Fill fill) {
        set_in(root_, top_, 0, run, fill);
        if (fill == Fill::free)
            free_pages_ += run.count;
        else
            free_pages_ -= run.count;
    }

    /// The lowest run of `count` free pages within [from, limit).
    [[nodiscard]] std::optional<std::uint64_t> find(std::uint64_t count, std::uint64_t from,
                                                    std::uint64_t limit) {
        if (whole_longest() < count) {
            ++steps_;
            return std::nullopt;
        }
        RunSearch search{.count = count, .from = from, .limit = limit};
        const bool found = find_in(root_, top_, 0, search);
        steps_ += search.steps;
        if (!found || search.found > limit || limit - search.found < count)
            return std::nullopt;
        return search.found;
    }

    [[nodiscard]] bool is_free(PageRun run) {
        const auto found = find(run.count, run.start, run.end());
        return found && *found == run.start;
    }

    /// The chunk of a page, or nullptr where no range has ended in it.
    [[nodiscard]] Chunk* chunk(std::uint64_t page) {
        Node* node = &root_;
        for (unsigned level = top_; level != 0; --level) {
            const unsigned i = child_index(page, level);
            if (!enter(*node, i, level))
                return nullptr;
            node = static_cast<Node*>(node->below[i]);
        }
        const unsigned i = child_index(page, 0);
        return enter(*node, i, 0) ? static_cast<Chunk*>(node->below[i]) : nullptr;
    }

    void count_steps(unsigned steps) { steps_ += steps; }

    [[nodiscard]] std::uint64_t free_pages() const { return free_pages_; }

    /// The longest free run, in pages.
    [[nodiscard]] std::uint64_t longest() const { return whole_longest(); }

    /// Summaries and bitmap words that searches have read since creation.
    [[nodiscard]] std::uint64_t steps() const { return steps_; }

  private:
    struct Node {
        std::array<FreeRuns, fan_out> runs{};
        std::array<void*, fan_out> below{};
    };

    /// The pages of one child of a node of this level; a child at level 0 is a chunk.
    static constexpr std::uint64_t block_pages(unsigned level) {
        return std::uint64_t{1} << (chunk_lg2 + fan_out_lg2 * level);
    }

    static unsigned child_index(std::uint64_t page, unsigned level) {
        return static_cast<unsigned>(page >> (chunk_lg2 + fan_out_lg2 * level)) % fan_out;
    }

    [[nodiscard]] std::uint64_t whole_longest() const { return whole_.longest; }

    /// Refreshes the block below child i. Return: false where there is none.
    static bool enter(Node& node, unsigned i, unsigned level) {
        if (node.below[i] == nullptr)
            return false;
        if (node.runs[i].uniform(block_pages(level)))
            refresh(node, i, level);
        return true;
    }

    /// Copies the parent's summary into a uniform child.
    static void refresh(Node& node, unsigned i, unsigned level) {
        const Fill fill = node.runs[i].longest == 0 ? Fill::used : Fill::free;
        if (level == 0)
            static_cast<Chunk*>(node.below[i])->set_all(fill);
        else
            static_cast<Node*>(node.below[i])->runs.fill(uniform_runs(level - 1, fill));
    }

    static FreeRuns uniform_runs(unsigned level, Fill fill) {
        return fill == Fill::free ? FreeRuns::all_free(block_pages(level)) : FreeRuns::all_used();
    }

    static bool make_below(Node& node, unsigned i, unsigned level) {
        if (level == 0)
            node.below[i] = Sync::template make<Chunk>(Fill::used);
        else
            node.below[i] = Sync::template make<Node>();
        return enter(node, i, level);
    }

    void set_in(Node& node, unsigned level, std::uint64_t base, PageRun run, Fill fill) {
        const std::uint64_t block = block_pages(level);
        const std::uint64_t first = run.start > base ? (run.start - base) / block : 0;
        for (auto i = static_cast<unsigned>(first); i != fan_out; ++i) {
            const std::uint64_t child = base + i * block;
            if (child >= run.end())
                break;
            if (run.start <= child && run.end() >= child + block) {
                node.runs[i] = uniform_runs(level, fill);
                continue;
            }
            MOAT_CHECK(enter(node, i, level), "the ends of a run were prepared");
            if (level == 0) {
                Chunk& chunk = *static_cast<Chunk*>(node.below[i]);
                chunk.set(run.start > child ? static_cast<unsigned>(run.start - child) : 0,
                          run.end() - child < block ? static_cast<unsigned>(run.end() - child)
                                                    : static_cast<unsigned>(block),
                          fill);
                node.runs[i] = chunk.runs();
            } else {
                Node& below = *static_cast<Node*>(node.below[i]);
                set_in(below, level - 1, child, run, fill);
                node.runs[i] = combine(below.runs, block_pages(level - 1));
            }
        }
        if (level == top_)
            whole_ = combine(node.runs, block);
    }

    bool find_in(Node& node, unsigned level, std::uint64_t base, RunSearch& search) {
        const std::uint64_t block = block_pages(level);
        const std::uint64_t first = search.from > base ? (search.from - base) / block : 0;
        for (auto i = static_cast<unsigned>(first); i < fan_out; ++i) {
            const std::uint64_t child = base + i * block;
            if (child >= search.limit)
                return false;
            ++search.steps;
            const FreeRuns& runs = node.runs[i];
            const std::uint64_t skipped = search.from > child ? search.from - child : 0;
            if (runs.uniform(block)) {
                if (runs.longest == 0) {
                    search.carry = 0;
                    continue;
                }
                if (search.carry + (block - skipped) >= search.count) {
                    search.found = child + skipped - search.carry;
                    return true;
                }
                search.carry += block - skipped;
                continue;
            }
            if (skipped == 0 && search.carry + runs.start >= search.count) {
                search.found = child - search.carry;
                return true;
            }
            // A run lies inside, or the search begins inside.
            if (skipped != 0 || runs.longest >= search.count) {
                const bool found =
                    level == 0
                        ? static_cast<Chunk*>(node.below[i])->find(search, child)
                        : find_in(*static_cast<Node*>(node.below[i]), level - 1, child, search);
                if (found)
                    return true;
                continue;
            }
            search.carry = runs.end;
        }
        return false;
    }

    static void destroy_below(Node& node, unsigned level) {
        for (void* each : node.below) {
            if (each == nullptr)
                continue;
            if (level == 0) {
                Sync::destroy(static_cast<Chunk*>(each));
                continue;
            }
            destroy_below(*static_cast<Node*>(each), level - 1);
            Sync::destroy(static_cast<Node*>(each));
        }
    }

    Node root_{};
    FreeRuns whole_{};
    unsigned top_ = 0;
    std::uint64_t free_pages_ = 0;
    std::uint64_t steps_ = 0;
};

} // namespace moat::iova
