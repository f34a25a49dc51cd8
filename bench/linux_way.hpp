// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How Linux hands out I/O virtual addresses, as a peer for iova_bench.cpp and nothing else: written
// from a description of its behaviour, so iova_bench.cpp prints how it compares with the kernel.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace moat::bench {

/// One tree of ranges under one lock, searched from the top down, with magazines of 127 ranges of
/// 1, 2, 4, ... 32 pages for each thread in front of it.
class LinuxWay {
  public:
    class ThreadCaches;

    /// Hands out pages [1, limit_page).
    explicit LinuxWay(std::uint64_t limit_page) : limit_page_(limit_page) {
        cached_ = ranges_.emplace(limit_page, limit_page).first;
        anchor_ = cached_;
    }

    /// Return: the first page of a range of `pages`.
    std::optional<std::uint64_t> allocate(ThreadCaches& caches, std::uint64_t pages);
    void release(ThreadCaches& caches, std::uint64_t page, std::uint64_t pages);

  private:
    using Tree = std::map<std::uint64_t, std::uint64_t>;

    static constexpr unsigned orders = 6;
    static constexpr std::size_t magazine_size = 127;

    using Magazine = std::vector<std::uint64_t>;

    struct Depot {
        std::mutex mutex;
        std::vector<Magazine> full;
    };

    static std::uint64_t rounded(std::uint64_t pages) {
        return pages < (1U << (orders - 1)) ? std::bit_ceil(pages) : pages;
    }

    static bool is_cached(std::uint64_t rounded_pages) {
        return rounded_pages <= (1U << (orders - 1));
    }

    std::optional<std::uint64_t> allocate_in_tree(std::uint64_t pages) {
        const std::lock_guard lock(mutex_);
        if (pages >= failed_pages_)
            return std::nullopt;
        const std::uint64_t align = std::bit_ceil(pages) - 1;
        auto place = search(cached_, pages, align);
        if (!place && cached_ != anchor_)
            place = search(anchor_, pages, align);
        if (!place) {
            failed_pages_ = pages;
            return std::nullopt;
        }
        cached_ = ranges_.emplace_hint(place->second, place->first, place->first + pages);
        return place->first;
    }

    /// Walks down from the range `above`, one range at a time.
    std::optional<std::pair<std::uint64_t, Tree::iterator>>
    search(Tree::iterator above, std::uint64_t pages, std::uint64_t align) {
        for (;;) {
            const std::uint64_t end = above->first;
            if (end <= pages)
                return std::nullopt;
            const std::uint64_t start = (end - pages) & ~align;
            if (start == 0)
                return std::nullopt;
            if (above == ranges_.begin() || std::prev(above)->second <= start)
                return std::pair(start, above);
            --above;
        }
    }

    void release_in_tree(std::uint64_t page) {
        const std::lock_guard lock(mutex_);
        const auto gone = ranges_.find(page);
        failed_pages_ = limit_page_;
        const bool above_cached = gone->first >= cached_->first;
        const auto next = ranges_.erase(gone);
        if (above_cached)
            cached_ = next;
    }

    const std::uint64_t limit_page_;
    std::mutex mutex_;
    Tree ranges_;
    Tree::iterator cached_;
    Tree::iterator anchor_;
    std::uint64_t failed_pages_ = limit_page_;
    std::array<Depot, orders> depots_;
};

/// Two magazines for each order, and the lock that a drain by another thread needs.
class LinuxWay::ThreadCaches {
  private:
    friend class LinuxWay;

    struct Pair {
        std::mutex mutex;
        Magazine loaded;
        Magazine previous;
    };

    std::array<Pair, orders> pairs_;
};

inline std::optional<std::uint64_t> LinuxWay::allocate(ThreadCaches& caches, std::uint64_t pages) {
    const std::uint64_t size = rounded(pages);
    if (!is_cached(size))
        return allocate_in_tree(size);
    const auto order = static_cast<unsigned>(std::bit_width(size - 1));
    {
        ThreadCaches::Pair& pair = caches.pairs_[order];
        const std::lock_guard lock(pair.mutex);
        if (pair.loaded.empty() && !pair.previous.empty())
            std::swap(pair.loaded, pair.previous);
        if (pair.loaded.empty()) {
            Depot& depot = depots_[order];
            const std::lock_guard depot_lock(depot.mutex);
            if (!depot.full.empty()) {
                pair.loaded = std::move(depot.full.back());
                depot.full.pop_back();
            }
        }
        if (!pair.loaded.empty()) {
            const std::uint64_t page = pair.loaded.back();
            pair.loaded.pop_back();
            return page;
        }
    }
    return allocate_in_tree(size);
}

inline void LinuxWay::release(ThreadCaches& caches, std::uint64_t page, std::uint64_t pages) {
    const std::uint64_t size = rounded(pages);
    if (!is_cached(size))
        return release_in_tree(page);
    const auto order = static_cast<unsigned>(std::bit_width(size - 1));
    ThreadCaches::Pair& pair = caches.pairs_[order];
    const std::lock_guard lock(pair.mutex);
    if (pair.loaded.size() == magazine_size && pair.previous.size() < magazine_size)
        std::swap(pair.loaded, pair.previous);
    if (pair.loaded.size() == magazine_size) {
        Depot& depot = depots_[order];
        const std::lock_guard depot_lock(depot.mutex);
        depot.full.push_back(std::exchange(pair.loaded, {}));
    }
    if (pair.loaded.capacity() == 0)
        pair.loaded.reserve(magazine_size);
    pair.loaded.push_back(page);
}

} // namespace moat::bench
