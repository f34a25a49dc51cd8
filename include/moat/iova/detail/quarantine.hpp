// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A FIFO that delays the reuse of released ranges: a device that uses a buffer after its unmapping
// still faults. recycler.hpp reuses the ranges that leave it.
#pragma once

#include "moat/iova/detail/central.hpp"

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

namespace moat::iova {

template <SyncPolicy Sync>
class Quarantine {
  public:
    using Range = Entry<Sync>;

    /// `guard_pages`: of each range, beside its payload.
    Quarantine(const QuarantineBudget& budget, std::uint64_t guard_pages)
        : most_pages_(budget.bytes.value() >> page_lg2), most_entries_(budget.entries),
          most_age_(budget.nanoseconds), guard_pages_(guard_pages), enabled_(budget.enabled()) {}

    ~Quarantine() {
        while (Block* each = std::exchange(oldest_, oldest_ == nullptr ? nullptr : oldest_->next))
            Sync::destroy(each);
    }

    Quarantine(const Quarantine&) = delete;
    Quarantine& operator=(const Quarantine&) = delete;

    [[nodiscard]] bool enabled() const { return enabled_; }

    /// Return: false when memory failed; the range is still the caller's then.
    [[nodiscard]] bool put(const Range& range, std::uint64_t payload_pages) MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        if (newest_ == nullptr || newest_->end == newest_->held.size()) {
            Block* const made = Sync::template make<Block>();
            if (made == nullptr)
                return false;
            if (newest_ == nullptr)
                oldest_ = made;
            else
                newest_->next = made;
            newest_ = made;
        }
        newest_->held[newest_->end++] = {range, payload_pages, Sync::now()};
        entries_.write(entries_.read() + 1);
        payload_pages_ += payload_pages;
        return true;
    }

    enum class Which : std::uint8_t { over_budget, all };

    /// Removes the oldest ranges, those over the budget or all, up to the size of `ranges`.
    /// Return: how many.
    [[nodiscard]] std::size_t take(Which which, std::span<Range> ranges) MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        std::size_t taken = 0;
        for (; taken != ranges.size() && entries_.read() != 0; ++taken) {
            const Held& first = oldest_->held[oldest_->start];
            if (which == Which::over_budget && !over_budget(first))
                break;
            ranges[taken] = first.range;
            entries_.write(entries_.read() - 1);
            payload_pages_ -= first.payload_pages;
            if (++oldest_->start == oldest_->held.size())
                drop_oldest_block();
        }
        return taken;
    }

    struct Counts {
        std::uint64_t entries = 0;
        std::uint64_t payload_pages = 0;
    };

    [[nodiscard]] Counts counts() MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        return {entries_.read(), payload_pages_};
    }

  private:
    using Lock = ExclusiveLock<typename Sync::Mutex>;

    struct Held {
        Range range{};
        std::uint64_t payload_pages = 0;
        std::uint64_t since = 0;
    };

    struct Block {
        std::array<Held, 64> held{};
        std::size_t start = 0;
        std::size_t end = 0;
        Block* next = nullptr;
    };

    [[nodiscard]] bool over_budget(const Held& first) const MOAT_REQUIRES(mutex_) {
        return entries_.read() > most_entries_ ||
               payload_pages_ + entries_.read() * guard_pages_ > most_pages_ ||
               (most_age_ != std::numeric_limits<std::uint64_t>::max() &&
                Sync::now() - first.since > most_age_);
    }

    void drop_oldest_block() MOAT_REQUIRES(mutex_) {
        Block* const gone = oldest_;
        oldest_ = gone->next;
        if (oldest_ == nullptr)
            newest_ = nullptr;
        Sync::destroy(gone);
    }

    const std::uint64_t most_pages_;
    const std::uint64_t most_entries_;
    const std::uint64_t most_age_;
    const std::uint64_t guard_pages_;
    const bool enabled_;
    typename Sync::Mutex mutex_;
    Block* oldest_ MOAT_GUARDED_BY(mutex_) = nullptr;
    Block* newest_ MOAT_GUARDED_BY(mutex_) = nullptr;
    typename Sync::template Plain<std::uint64_t> entries_ MOAT_GUARDED_BY(mutex_){};
    std::uint64_t payload_pages_ MOAT_GUARDED_BY(mutex_) = 0;
};

} // namespace moat::iova
