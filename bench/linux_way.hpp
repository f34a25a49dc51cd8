// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How Linux hands out I/O virtual addresses, as a peer for iova_bench.cpp and nothing else: written
// from a description of its behaviour, so iova_bench.cpp prints how it compares with the kernel.
//
// As described: ranges as objects of a cache line from a slab, in one red-black tree under one spin
// lock; the highest place that fits, looked for by a walk from the range that was placed last, or
// from above one that went; sizes aligned to the next power of two, and rounded up to it below 32
// pages; for those up to 32, two magazines of 127 a thread and a depot without a bound. Left out is
// what no row comes to: the last resort (emptying every cache), the trimming of depots, and trying
// the low 4 GiB first, which is all the space there is here.
#pragma once

#include "moat/sync/real.hpp"

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <utility>
#include <vector>

namespace moat::bench {

/// First come, first served, spinning, as the kernel's queued lock is for two processors. A waiter
/// gives its core away after a while: nobody here can forbid that the holder loses its own.
class SpinLock {
  public:
    void lock() {
        const unsigned own = next_.fetch_add(1, std::memory_order_relaxed);
        for (unsigned spins = 1; serving_.load(std::memory_order_acquire) != own; ++spins) {
            RealSync::pause();
            if (spins % 4096 == 0)
                RealSync::yield();
        }
    }

    void unlock() {
        serving_.store(serving_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    }

  private:
    std::atomic<unsigned> next_{0};
    std::atomic<unsigned> serving_{0};
};

/// Each object begins a cache line.
template <class T>
struct LineAllocator {
    using value_type = T;

    static constexpr std::align_val_t line{64};

    LineAllocator() = default;

    template <class U>
    explicit(false) LineAllocator(const LineAllocator<U>&) {}

    T* allocate(std::size_t count) {
        return static_cast<T*>(::operator new(count * sizeof(T), line));
    }

    void deallocate(T* objects, std::size_t) { ::operator delete(objects, line); }

    friend bool operator==(const LineAllocator&, const LineAllocator&) = default;
};

/// Hands out ranges of pages; see the head of this file.
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
    using Tree = std::map<std::uint64_t, std::uint64_t, std::less<>,
                          LineAllocator<std::pair<const std::uint64_t, std::uint64_t>>>;
    using Node = Tree::node_type;

    static constexpr unsigned orders = 6;
    static constexpr std::size_t magazine_size = 127;

    using Magazine = std::vector<std::uint64_t>;

    struct Depot {
        SpinLock mutex;
        std::vector<Magazine> full;
    };

    static std::uint64_t rounded(std::uint64_t pages) {
        return pages < (1U << (orders - 1)) ? std::bit_ceil(pages) : pages;
    }

    static bool is_cached(std::uint64_t rounded_pages) {
        return rounded_pages <= (1U << (orders - 1));
    }

    std::optional<std::uint64_t> allocate_in_tree(ThreadCaches& caches, std::uint64_t pages);
    void release_in_tree(ThreadCaches& caches, std::uint64_t page);

    /// Walks down from the range `above`, one range at a time, to page `lowest`.
    std::optional<std::pair<std::uint64_t, Tree::iterator>>
    search(Tree::iterator above, std::uint64_t pages, std::uint64_t lowest) {
        const std::uint64_t align = ~(std::bit_ceil(pages) - 1);
        for (;;) {
            const std::uint64_t end = above->first;
            if (end < pages)
                return std::nullopt;
            const std::uint64_t start = (end - pages) & align;
            if (start < lowest)
                return std::nullopt;
            if (above == ranges_.begin())
                return std::pair(start, above);
            const auto below = std::prev(above);
            if (below->second <= start)
                return std::pair(start, above);
            above = below;
        }
    }

    const std::uint64_t limit_page_;
    SpinLock mutex_;
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
        SpinLock mutex;
        Magazine loaded;
        Magazine previous;
    };

    /// A processor's share of the slab: objects come and go without a lock.
    Node take_node() {
        if (nodes_.empty()) {
            Tree one;
            one.emplace(0, 0);
            return one.extract(one.begin());
        }
        Node node = std::move(nodes_.back());
        nodes_.pop_back();
        return node;
    }

    void give_node(Node node) {
        constexpr std::size_t most = 32;
        if (nodes_.size() != most)
            nodes_.push_back(std::move(node));
    }

    std::array<Pair, orders> pairs_;
    std::vector<Node> nodes_;
};

inline std::optional<std::uint64_t> LinuxWay::allocate_in_tree(ThreadCaches& caches,
                                                               std::uint64_t pages) {
    Node node = caches.take_node();
    const std::lock_guard lock(mutex_);
    if (pages >= failed_pages_)
        return std::nullopt;
    auto place = search(cached_, pages, 1);
    if (!place && cached_ != anchor_) // once more, where the first walk has not been
        place = search(anchor_, pages, cached_->second);
    if (!place) {
        failed_pages_ = pages;
        return std::nullopt;
    }
    node.key() = place->first;
    node.mapped() = place->first + pages;
    cached_ = ranges_.insert(place->second, std::move(node));
    return place->first;
}

inline void LinuxWay::release_in_tree(ThreadCaches& caches, std::uint64_t page) {
    Node node;
    {
        const std::lock_guard lock(mutex_);
        const auto gone = ranges_.find(page);
        failed_pages_ = limit_page_;
        if (gone->first >= cached_->first)
            cached_ = std::next(gone);
        node = ranges_.extract(gone);
    }
    caches.give_node(std::move(node));
}

inline std::optional<std::uint64_t> LinuxWay::allocate(ThreadCaches& caches, std::uint64_t pages) {
    const std::uint64_t size = rounded(pages);
    if (!is_cached(size))
        return allocate_in_tree(caches, size);
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
    return allocate_in_tree(caches, size);
}

inline void LinuxWay::release(ThreadCaches& caches, std::uint64_t page, std::uint64_t pages) {
    const std::uint64_t size = rounded(pages);
    if (!is_cached(size))
        return release_in_tree(caches, page);
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
