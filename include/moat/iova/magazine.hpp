// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What one thread keeps to itself: ranges by exact payload size, touched by no other thread.
// Others may only close a magazine (limit 0), which its owner notices at its next call. Filling and
// emptying are allocator.hpp's.
#pragma once

#include "moat/iova/central.hpp"

#include <array>
#include <cstdint>

namespace moat::iova {

/// Payloads of 1 to this many pages are cached, each size on its own.
inline constexpr std::uint64_t most_cached_pages = 512;

/// A stack of ranges of one size. `count` and `limit` are atomic for their readers in statistics
/// and for closing; the entries are the owner's alone.
template <SyncPolicy Sync>
class Magazine {
  public:
    static constexpr std::uint32_t capacity = 64;

    using Range = Entry<Sync>;

    /// Return: the range on top, or nullptr where the magazine is empty or closed.
    [[nodiscard, gnu::always_inline]] const Range* pop() {
        const std::uint32_t below = count_.load(std::memory_order_relaxed) - 1;
        if (below >= limit_.load(std::memory_order_relaxed)) [[unlikely]]
            return nullptr;
        count_.store(below, std::memory_order_relaxed);
        return &entries_[below];
    }

    /// Return: false where the magazine is full or closed.
    [[nodiscard, gnu::always_inline]] bool push(const Range& range) {
        const std::uint32_t count = count_.load(std::memory_order_relaxed);
        if (count >= limit_.load(std::memory_order_relaxed)) [[unlikely]]
            return false;
        entries_[count] = range;
        count_.store(count + 1, std::memory_order_relaxed);
        return true;
    }

    [[nodiscard]] std::uint32_t count() const { return count_.load(std::memory_order_relaxed); }

    [[nodiscard]] std::uint32_t limit() const { return limit_.load(std::memory_order_relaxed); }

    /// Any thread: the owner's next pop or push fails.
    void close() { limit_.store(0, std::memory_order_seq_cst); }

    void open(std::uint32_t limit) { limit_.store(limit, std::memory_order_seq_cst); }

    /// Owner: room for what `refill` will hold.
    [[nodiscard]] std::span<Range> vacant(std::uint32_t most) {
        const std::uint32_t count = this->count();
        const std::uint32_t room = capacity - count;
        return {&entries_[count], most < room ? most : room};
    }

    void refilled(std::uint32_t more) { count_.store(count() + more, std::memory_order_relaxed); }

    [[nodiscard]] std::span<const Range> contents() const { return {entries_.data(), count()}; }

    /// Owner: what `pop` does, also where the magazine is closed.
    void remove_newest() { count_.store(count() - 1, std::memory_order_relaxed); }

    /// Owner: drops the oldest `gone` entries, which lie at the bottom.
    void drop_oldest(std::uint32_t gone) {
        const std::uint32_t rest = count() - gone;
        for (std::uint32_t i = 0; i != rest; ++i)
            entries_[i] = entries_[i + gone];
        count_.store(rest, std::memory_order_relaxed);
    }

    /// How many ranges the next refill asks for: it starts with one and doubles.
    [[nodiscard]] std::uint32_t next_batch(std::uint32_t most) {
        const std::uint32_t now = batch_ < most ? batch_ : most;
        batch_ = now * 2;
        return now == 0 ? 1 : now;
    }

    /// Owner: whether its room counts against the thread's budget.
    bool charged = false;

  private:
    typename Sync::template Atomic<std::uint32_t> count_{0};
    typename Sync::template Atomic<std::uint32_t> limit_{0};
    std::uint32_t batch_ = 1;
    std::array<Range, capacity> entries_{};
};

/// Everything of one thread. Magazines are made when their size first misses, and stay until the
/// thread ends.
template <SyncPolicy Sync>
class ThreadCache {
  public:
    using Mag = Magazine<Sync>;

    ThreadCache() {
        for (auto& each : magazines_)
            each.store(&none_, std::memory_order_relaxed);
    }

    ~ThreadCache() {
        for (auto& each : magazines_)
            if (Mag* const magazine = each.load(std::memory_order_relaxed); magazine != &none_)
                Sync::destroy(magazine);
    }

    ThreadCache(const ThreadCache&) = delete;
    ThreadCache& operator=(const ThreadCache&) = delete;

    /// The magazine of a size; a closed one where there is none yet.
    [[nodiscard, gnu::always_inline]] Mag& magazine(std::uint64_t payload) {
        return *magazines_[payload].load(std::memory_order_relaxed);
    }

    [[nodiscard]] bool has(std::uint64_t payload) { return &magazine(payload) != &none_; }

    /// Owner. Return: false when memory failed.
    [[nodiscard]] bool make(std::uint64_t payload) {
        Mag* const made = Sync::template make<Mag>();
        if (made == nullptr)
            return false;
        magazines_[payload].store(made, std::memory_order_release);
        return true;
    }

    /// Any thread that `for_each` let in: calls visit(payload, magazine).
    template <class Visit>
    void visit(Visit&& visit) {
        for (std::uint64_t payload = 1; payload != magazines_.size(); ++payload)
            if (Mag* const magazine = magazines_[payload].load(std::memory_order_acquire);
                magazine != &none_)
                visit(payload, *magazine);
    }

    LeafCache<Sync> leaves;
    /// Owner: pages that the open magazines may hold together.
    std::uint64_t charged_pages = 0;
    /// Owner: whether any magazine was opened since all were emptied.
    bool stocked = false;
    /// Owner: where the search for a magazine to give up goes on.
    std::uint64_t clock_hand = 1;
    unsigned shard = 0;

  private:
    Mag none_{};
    std::array<typename Sync::template Atomic<Mag*>, most_cached_pages + 1> magazines_{};
};

} // namespace moat::iova
