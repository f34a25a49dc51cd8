// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Counts the ranges that are never reused because a device may still reach them, and keeps those
// not yet reported to the listener. recycler.hpp marks their records.
#pragma once

#include "moat/iova/config.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <array>
#include <cstdint>
#include <utility>

namespace moat::iova {

template <SyncPolicy Sync>
class HeldRanges {
  public:
    HeldRanges() = default;

    ~HeldRanges() {
        while (Block* const each = first_) {
            first_ = each->next;
            Sync::destroy(each);
        }
    }

    HeldRanges(const HeldRanges&) = delete;
    HeldRanges& operator=(const HeldRanges&) = delete;

    void count(std::uint64_t payload_pages) {
        ranges_.fetch_add(1, std::memory_order_relaxed);
        pages_.fetch_add(payload_pages, std::memory_order_relaxed);
    }

    [[nodiscard]] std::uint64_t ranges() const { return ranges_.load(std::memory_order_relaxed); }

    [[nodiscard]] std::uint64_t pages() const { return pages_.load(std::memory_order_relaxed); }

    /// Notes a range for `announce`; drops it without memory.
    void note(IovaRange payload) MOAT_EXCLUDES(mutex_) {
        const ExclusiveLock lock(mutex_);
        if (first_ == nullptr || first_->count == first_->ranges.size()) {
            Block* const made = Sync::template make<Block>();
            if (made == nullptr)
                return;
            made->next = std::exchange(first_, made);
        }
        first_->ranges[first_->count++] = payload;
    }

    /// Calls the listener for each noted range, with no lock held.
    void announce(const HeldListener& listener) MOAT_EXCLUDES(mutex_) {
        while (Block* const block = take_block()) {
            if (listener.held != nullptr)
                for (std::size_t i = 0; i != block->count; ++i)
                    listener.held(listener.context, block->ranges[i]);
            Sync::destroy(block);
        }
    }

  private:
    struct Block {
        std::array<IovaRange, 64> ranges{};
        std::size_t count = 0;
        Block* next = nullptr;
    };

    [[nodiscard]] Block* take_block() MOAT_EXCLUDES(mutex_) {
        const ExclusiveLock lock(mutex_);
        Block* const taken = first_;
        if (taken != nullptr)
            first_ = taken->next;
        return taken;
    }

    typename Sync::template Atomic<std::uint64_t> ranges_{0};
    typename Sync::template Atomic<std::uint64_t> pages_{0};
    typename Sync::Mutex mutex_;
    Block* first_ MOAT_GUARDED_BY(mutex_) = nullptr;
};

} // namespace moat::iova
