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

/// A stack of ranges of one size, between a floor and a ceiling. All pointers are null until the
/// size is first used. `top` is atomic for statistics, floor and ceiling for closing; the entries
/// are the owner's alone.
template <SyncPolicy Sync>
class Magazine {
  public:
    static constexpr std::uint32_t capacity = 64;

    using Range = Entry<Sync>;

    ~Magazine() {
        if (Store* const own = store())
            Sync::destroy(own);
    }

    Magazine() = default;
    Magazine(const Magazine&) = delete;
    Magazine& operator=(const Magazine&) = delete;

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

    /// Any thread; false until the size is first used.
    [[nodiscard]] bool made() const { return store() != nullptr; }

    /// Owner. Return: false when memory failed.
    [[nodiscard]] bool make() {
        Store* const own = Sync::template make<Store>();
        if (own == nullptr)
            return false;
        floor_.store(own->entries.data() + capacity, std::memory_order_relaxed);
        ceiling_.store(own->entries.data(), std::memory_order_relaxed);
        top_.store(own->entries.data(), std::memory_order_relaxed);
        store_.store(own, std::memory_order_release);
        return true;
    }

    [[nodiscard]] std::uint32_t count() const {
        return made() ? distance(top_.load(std::memory_order_relaxed)) : 0;
    }

    [[nodiscard]] std::uint32_t limit() const {
        return made() ? distance(ceiling_.load(std::memory_order_relaxed)) : 0;
    }

    /// Any thread, made: the owner's next pop or push fails.
    void close() {
        floor_.store(bottom() + capacity, std::memory_order_seq_cst);
        ceiling_.store(bottom(), std::memory_order_seq_cst);
    }

    // The rest is for the owner, of a magazine that was made.

    void open(std::uint32_t limit) {
        floor_.store(bottom(), std::memory_order_seq_cst);
        ceiling_.store(bottom() + limit, std::memory_order_seq_cst);
    }

    /// Room for what a refill brings.
    [[nodiscard]] std::span<Range> vacant(std::uint32_t most) {
        const std::uint32_t room = capacity - count();
        return {bottom() + count(), most < room ? most : room};
    }

    void refilled(std::uint32_t more) { set_count(count() + more); }

    [[nodiscard]] std::span<const Range> contents() const { return {bottom(), count()}; }

    /// What `pop` does, also where the magazine is closed.
    void remove_newest() { set_count(count() - 1); }

    /// Drops the oldest `gone` entries, which lie at the bottom.
    void drop_oldest(std::uint32_t gone) {
        const std::uint32_t rest = count() - gone;
        for (std::uint32_t i = 0; i != rest; ++i)
            bottom()[i] = bottom()[i + gone];
        set_count(rest);
    }

    /// How many ranges the next refill asks for: it starts with one and doubles.
    [[nodiscard]] std::uint32_t next_batch(std::uint32_t most) {
        std::uint32_t& batch = store()->batch;
        const std::uint32_t now = batch < most ? batch : most;
        batch = now * 2;
        return now == 0 ? 1 : now;
    }

    /// Whether its room counts against the thread's budget.
    [[nodiscard]] bool& charged() { return store()->charged; }

  private:
    struct alignas(64) Store {
        std::array<Range, capacity> entries{};
        std::uint32_t batch = 1;
        bool charged = false;
    };

    [[nodiscard]] Store* store() const { return store_.load(std::memory_order_acquire); }

    [[nodiscard]] Range* bottom() const { return store()->entries.data(); }

    [[nodiscard]] std::uint32_t distance(const Range* above) const {
        return static_cast<std::uint32_t>(above - bottom());
    }

    void set_count(std::uint32_t count) { top_.store(bottom() + count, std::memory_order_relaxed); }

    typename Sync::template Atomic<Range*> top_{};
    typename Sync::template Atomic<Range*> floor_{};
    typename Sync::template Atomic<Range*> ceiling_{};
    mutable typename Sync::template Atomic<Store*> store_{};
};

/// Everything of one thread.
template <SyncPolicy Sync>
class alignas(64) ThreadCache {
  public:
    using Mag = Magazine<Sync>;

    ThreadCache() = default;
    ThreadCache(const ThreadCache&) = delete;
    ThreadCache& operator=(const ThreadCache&) = delete;

    [[nodiscard, gnu::always_inline]] Mag& magazine(std::uint64_t payload) {
        return magazines_[payload];
    }

    /// Any thread that `for_each` let in: calls visit(payload, magazine) for those made.
    template <class Visit>
    void visit(Visit&& visit) {
        for (std::uint64_t payload = 1; payload != magazines_.size(); ++payload)
            if (magazines_[payload].made())
                visit(payload, magazines_[payload]);
    }

    LeafCache<Sync> leaves;

  private:
    std::array<Mag, most_cached_pages + 1> magazines_{};

  public:
    /// Owner: pages that the open magazines may hold together.
    std::uint64_t charged_pages = 0;
    /// Owner: whether any magazine was opened since all were emptied.
    bool stocked = false;
    /// Owner: where the search for a magazine to give up goes on.
    std::uint64_t clock_hand = 1;
    /// Owner: the shard of the flush queue, plus one.
    unsigned shard = 0;
};

} // namespace moat::iova
