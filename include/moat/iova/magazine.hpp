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

/// A stack of ranges of one size, between a floor and a ceiling. `top` is atomic for statistics,
/// floor and ceiling for closing; the entries are the owner's alone.
template <SyncPolicy Sync>
class alignas(64) Magazine {
  public:
    static constexpr std::uint32_t capacity = 64;

    using Range = Entry<Sync>;

    /// Return: the range on top, or nullptr where the magazine is empty or closed.
    [[nodiscard, gnu::always_inline]] const Range* pop() {
        Range* const top = top_.load(std::memory_order_relaxed);
        if (top <= floor_.load(std::memory_order_relaxed)) [[unlikely]]
            return nullptr;
        top_.store(top - 1, std::memory_order_relaxed);
        return top - 1;
    }

    /// Return: false where the magazine is full or closed.
    [[nodiscard, gnu::always_inline]] bool push(const Range& range) {
        Range* const top = top_.load(std::memory_order_relaxed);
        if (top >= ceiling_.load(std::memory_order_relaxed)) [[unlikely]]
            return false;
        *top = range;
        top_.store(top + 1, std::memory_order_relaxed);
        return true;
    }

    [[nodiscard]] std::uint32_t count() const {
        return static_cast<std::uint32_t>(top_.load(std::memory_order_relaxed) - bottom());
    }

    [[nodiscard]] std::uint32_t limit() const {
        return static_cast<std::uint32_t>(ceiling_.load(std::memory_order_relaxed) - bottom());
    }

    /// Any thread: the owner's next pop or push fails.
    void close() {
        floor_.store(bottom() + capacity, std::memory_order_seq_cst);
        ceiling_.store(bottom(), std::memory_order_seq_cst);
    }

    void open(std::uint32_t limit) {
        floor_.store(bottom(), std::memory_order_seq_cst);
        ceiling_.store(bottom() + limit, std::memory_order_seq_cst);
    }

    /// Owner: room for what a refill brings.
    [[nodiscard]] std::span<Range> vacant(std::uint32_t most) {
        const std::uint32_t room = capacity - count();
        return {&entries_[count()], most < room ? most : room};
    }

    void refilled(std::uint32_t more) { set_count(count() + more); }

    [[nodiscard]] std::span<const Range> contents() const { return {entries_.data(), count()}; }

    /// Owner: what `pop` does, also where the magazine is closed.
    void remove_newest() { set_count(count() - 1); }

    /// Owner: drops the oldest `gone` entries, which lie at the bottom.
    void drop_oldest(std::uint32_t gone) {
        const std::uint32_t rest = count() - gone;
        for (std::uint32_t i = 0; i != rest; ++i)
            entries_[i] = entries_[i + gone];
        set_count(rest);
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
    void set_count(std::uint32_t count) {
        top_.store(&entries_[0] + count, std::memory_order_relaxed);
    }

    [[nodiscard]] Range* bottom() const { return const_cast<Range*>(entries_.data()); }

    typename Sync::template Atomic<Range*> top_{bottom()};
    typename Sync::template Atomic<Range*> floor_{bottom()};
    typename Sync::template Atomic<Range*> ceiling_{bottom()};
    std::uint32_t batch_ = 1;
    std::array<Range, capacity> entries_{};
};

/// Everything of one thread. Magazines are made when their size first misses, and stay until the
/// thread ends.
template <SyncPolicy Sync>
class alignas(64) ThreadCache {
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
