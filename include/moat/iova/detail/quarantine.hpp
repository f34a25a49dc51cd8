// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A FIFO that delays the reuse of released ranges: a device that uses a buffer after its unmapping
// still faults. recycler.hpp reuses the ranges that leave it.
#pragma once

#include "moat/iova/detail/central.hpp"
#include "moat/sync/lock.hpp"

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
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
        for (Block* list : {oldest_, spares_})
            while (Block* each = std::exchange(list, list == nullptr ? nullptr : list->next))
                Sync::destroy(each);
    }

    Quarantine(const Quarantine&) = delete;
    Quarantine& operator=(const Quarantine&) = delete;

    [[nodiscard]] bool enabled() const { return enabled_; }

    /// Puts a range in and takes the oldest out while they are over the budget, up to the size of
    /// `due`. Return: how many it took; none when memory failed: the range is the caller's then.
    [[nodiscard]] std::optional<std::size_t> exchange(Range range, std::uint64_t payload_pages,
                                                      std::span<Range> due) MOAT_EXCLUDES(lock_) {
        const std::uint64_t now = has_age() ? Sync::now() : 0;
        while (true) {
            if (const auto taken = try_exchange(range, payload_pages, now, due)) [[likely]]
                return taken;
            if (!make_spare())
                return std::nullopt;
        }
    }

    enum class Which : std::uint8_t { over_budget, all };

    /// Removes the oldest ranges, those over the budget or all, up to the size of `ranges`.
    /// Return: how many.
    [[nodiscard]] std::size_t take(Which which, std::span<Range> ranges) MOAT_EXCLUDES(lock_) {
        const std::uint64_t now = has_age() ? Sync::now() : 0;
        const Lock lock(lock_);
        return take_locked(which, ranges, now);
    }

    struct Counts {
        std::uint64_t entries = 0;
        std::uint64_t payload_pages = 0;
    };

    [[nodiscard]] Counts counts() MOAT_EXCLUDES(lock_) {
        const Lock lock(lock_);
        return {entries_.read(), payload_pages_};
    }

  private:
    using Lock = ExclusiveLock<SpinLock<Sync>>;

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

    [[nodiscard]] bool has_age() const {
        return most_age_ != std::numeric_limits<std::uint64_t>::max();
    }

    /// See exchange. Return: nothing where a block is missing.
    [[nodiscard]] std::optional<std::size_t> try_exchange(Range range, std::uint64_t payload_pages,
                                                          std::uint64_t now, std::span<Range> due)
        MOAT_EXCLUDES(lock_) {
        const Lock lock(lock_);
        if (newest_ == nullptr || newest_->end == newest_->held.size()) {
            if (spares_ == nullptr)
                return std::nullopt;
            add_spare();
        }
        Held& held = newest_->held[newest_->end++];
        held.range = range;
        held.payload_pages = payload_pages;
        held.since = now;
        entries_.write(entries_.read() + 1);
        payload_pages_ += payload_pages;
        return take_locked(Which::over_budget, due, now);
    }

    [[nodiscard]] std::size_t take_locked(Which which, std::span<Range> ranges, std::uint64_t now)
        MOAT_REQUIRES(lock_) {
        std::size_t taken = 0;
        for (; taken != ranges.size() && entries_.read() != 0; ++taken) {
            const Held& first = oldest_->held[oldest_->start];
            if (which == Which::over_budget && !over_budget(first, now))
                break;
            ranges[taken] = first.range;
            entries_.write(entries_.read() - 1);
            payload_pages_ -= first.payload_pages;
            if (++oldest_->start == oldest_->held.size())
                drop_oldest_block();
        }
        return taken;
    }

    /// Another thread may have put its range in with a later time.
    [[nodiscard]] bool over_budget(const Held& first, std::uint64_t now) const
        MOAT_REQUIRES(lock_) {
        return entries_.read() > most_entries_ ||
               payload_pages_ + entries_.read() * guard_pages_ > most_pages_ ||
               (has_age() && now > first.since && now - first.since > most_age_);
    }

    void add_spare() MOAT_REQUIRES(lock_) {
        Block* const added = std::exchange(spares_, spares_->next);
        added->start = added->end = 0;
        added->next = nullptr;
        if (newest_ == nullptr)
            oldest_ = added;
        else
            newest_->next = added;
        newest_ = added;
    }

    [[nodiscard, gnu::noinline]] bool make_spare() MOAT_EXCLUDES(lock_) {
        Block* const made = Sync::template make<Block>();
        if (made == nullptr)
            return false;
        const Lock lock(lock_);
        keep_spare(made);
        return true;
    }

    void keep_spare(Block* block) MOAT_REQUIRES(lock_) {
        block->next = std::exchange(spares_, block);
    }

    void drop_oldest_block() MOAT_REQUIRES(lock_) {
        Block* const gone = oldest_;
        oldest_ = gone->next;
        if (oldest_ == nullptr)
            newest_ = nullptr;
        keep_spare(gone);
    }

    const std::uint64_t most_pages_;
    const std::uint64_t most_entries_;
    const std::uint64_t most_age_;
    const std::uint64_t guard_pages_;
    const bool enabled_;
    /// Held for a few stores, never while memory is allocated.
    SpinLock<Sync> lock_;
    std::uint64_t payload_pages_ MOAT_GUARDED_BY(lock_) = 0;
    Block* oldest_ MOAT_GUARDED_BY(lock_) = nullptr;
    Block* newest_ MOAT_GUARDED_BY(lock_) = nullptr;
    Block* spares_ MOAT_GUARDED_BY(lock_) = nullptr;
    typename Sync::template Plain<std::uint64_t> entries_ MOAT_GUARDED_BY(lock_){};
};

} // namespace moat::iova
