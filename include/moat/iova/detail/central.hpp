// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The allocator's backing under one lock: free space, records, and reserved pages. It pads ranges
// and removes the padding (guard_pages.hpp). The caches above it avoid the lock.
#pragma once

#include "moat/iova/detail/free_space.hpp"
#include "moat/iova/detail/guard_pages.hpp"
#include "moat/iova/detail/live_map.hpp"
#include "moat/iova/detail/record.hpp"
#include "moat/iova/detail/spot.hpp"
#include "moat/sync/lock.hpp"

#include <algorithm>
#include <cstdint>
#include <span>

namespace moat::iova {

/// A padded range: the payload's address and the word of its record.
template <SyncPolicy Sync>
struct Entry {
    Iova start{};
    typename LiveMap<Sync>::Word* word = nullptr;
};

/// How short the free space is. It limits what caches hold.
enum class Shortage : std::uint8_t {
    none,
    some,   ///< less than an eighth is free: a few ranges
    failed, ///< a request failed lately: nothing
};

/// A shortage and the number of changes so far: caches are emptied at each change.
struct Pressure {
    std::uint64_t stamp = 0;

    [[nodiscard]] constexpr Shortage level() const { return static_cast<Shortage>(stamp & 3); }

    [[nodiscard]] constexpr Pressure next(Shortage level) const {
        return {((stamp >> 2) + 1) << 2 | static_cast<std::uint64_t>(level)};
    }

    friend constexpr bool operator==(const Pressure&, const Pressure&) = default;
};

struct CentralCounts {
    std::uint64_t free_pages = 0;
    std::uint64_t largest_hole_pages = 0;
    std::uint64_t ranges = 0;
    std::uint64_t payload_pages = 0;
    std::uint64_t guard_pages = 0;
    std::uint64_t search_steps = 0;
};

template <SyncPolicy Sync>
class Central {
  public:
    using Map = LiveMap<Sync>;
    using Word = typename Map::Word;
    using Range = Entry<Sync>;

    Central(std::uint64_t end_page, const GuardPages& guard)
        : guard_(guard), map_(end_page), space_(end_page) {}

    ~Central() {
        while (Blocked* each = blocked_) {
            blocked_ = each->next;
            Sync::destroy(each);
        }
    }

    Central(const Central&) = delete;
    Central& operator=(const Central&) = delete;

    [[nodiscard]] const Map& map() const { return map_; }

    [[nodiscard]] const GuardPages& guard() const { return guard_; }

    /// Opens pages for use, a guard away from both neighbours. Call it in ascending order, before
    /// any other use. Return: false when memory failed.
    [[nodiscard]] bool open(PageRun pages) MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        PageRun inside = pages;
        if (guard_.both() < pages.count)
            inside = {pages.start + guard_.after, pages.count - guard_.both()};
        else
            inside.count = 0;
        if (!block({opened_, inside.start - opened_}))
            return false;
        opened_ = inside.end();
        if (inside.count == 0)
            return true;
        if (!prepare_ends(inside))
            return false;
        space_.tree().set(inside, Fill::free);
        return true;
    }

    /// Ends the opening and blocks all pages above.
    [[nodiscard]] bool close() MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        total_pages_ = space_.tree().free_pages();
        return block({opened_, space_.end_page() - opened_});
    }

    /// Up to `ranges.size()` padded ranges of `payload` pages, recorded as cached.
    /// Return: how many; 0 and `memory_failed` set, or 0 where none fits.
    [[nodiscard]] unsigned carve(std::uint64_t payload, std::span<Range> ranges,
                                 bool& memory_failed) MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        const std::uint64_t count = payload + guard_.both();
        const auto run = space_.find_batch(payload, count, ranges.size());
        if (!run)
            return 0;
        const auto fitting = static_cast<unsigned>(run->count / count);
        unsigned made = 0;
        for (; made != fitting; ++made) {
            const PageRun own{run->start + made * count, count};
            const std::uint64_t page = own.start + guard_.before;
            Word* const word = map_.find_or_make_word(page);
            if (word == nullptr || !prepare_ends(own))
                break;
            ranges[made] = {Iova(page << page_lg2), word};
        }
        if (made == 0) {
            memory_failed = true;
            return 0;
        }
        space_.tree().set({run->start, made * count}, Fill::used);
        for (unsigned i = 0; i != made; ++i)
            record_new(*ranges[i].word, payload, State::cached, Reuse::magazine);
        update_pressure();
        return made;
    }

    enum class Placed : std::uint8_t { done, no_space, overlap, out_of_range, no_memory };

    /// Cuts one range and records it as live. `page`: its payload page.
    [[nodiscard]] Placed place(std::uint64_t payload, const Spot& spot, std::uint64_t& page)
        MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        const std::uint64_t count = payload + guard_.both();
        std::uint64_t start = 0;
        if (spot.at != Spot::anywhere) {
            if (spot.at < guard_.before || spot.at >= space_.end_page() ||
                count > space_.end_page() - (spot.at - guard_.before) ||
                spot.at + payload > spot.limit)
                return Placed::out_of_range;
            start = spot.at - guard_.before;
            if (!space_.tree().is_free({start, count}))
                return Placed::overlap;
        } else {
            const bool limited = spot.limit < space_.end_page() - guard_.after;
            const auto found =
                space_.find(Need{.count = count,
                                 .lead = guard_.before,
                                 .modulus_lg2 = spot.modulus_lg2,
                                 .remainder = spot.remainder,
                                 .limit = limited ? spot.limit + guard_.after : space_.end_page()});
            if (!found)
                return Placed::no_space;
            start = *found;
        }
        page = start + guard_.before;
        const std::uint32_t upper = record::upper_payload(payload);
        Word* const word = map_.find_or_make_word(page);
        Word* const second = upper != 0 ? map_.find_or_make_word(page + 1) : word;
        if (word == nullptr || second == nullptr || !prepare_ends({start, count}))
            return Placed::no_memory;
        space_.tree().set({start, count}, Fill::used);
        if (upper != 0)
            second->store(upper, std::memory_order_relaxed);
        const bool chosen = spot.at != Spot::anywhere || upper != 0;
        record_new(*word, payload, State::live, chosen ? Reuse::direct : Reuse::special);
        update_pressure();
        return Placed::done;
    }

    /// Returns ranges to the free space with their guards. The caller owns them: they are in no
    /// cache, queue or quarantine.
    void take_back(std::span<const Range> ranges) MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        for (const Range& each : ranges) {
            const std::uint64_t payload = payload_of(each);
            const PageRun run = guard_.around({page_of(each), payload});
            each.word->store(0, std::memory_order_release);
            space_.tree().set(run, Fill::free);
            space_.returned(run.start);
            counts_.ranges -= 1;
            counts_.payload_pages -= payload;
        }
        returned_since_starving_ += ranges.size();
        update_pressure();
    }

    /// The recorded payload pages of a range that the caller owns.
    [[nodiscard]] std::uint64_t payload_of(const Range& range) const {
        const std::uint32_t word = range.word->load(std::memory_order_relaxed);
        if ((word & record::wide_bit) == 0)
            return word & record::payload_mask;
        const Word* const second = map_.find_word(page_of(range) + 1);
        MOAT_CHECK(second != nullptr, "a wide range has a second word");
        return record::wide_payload(word, second->load(std::memory_order_relaxed));
    }

    /// Blocks pages for good, with a guard around them. They may contain blocked pages.
    [[nodiscard]] Placed reserve(PageRun pages) MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        const std::uint64_t start = pages.start - std::min(guard_.before, pages.start);
        const std::uint64_t end = std::min(pages.end() + guard_.after, space_.end_page());
        const PageRun run{start, end > start ? end - start : 0};
        for (PageRun gap = next_gap(run); gap.count != 0;
             gap = next_gap({gap.end(), run.end() - gap.end()})) {
            if (!space_.tree().is_free(gap))
                return Placed::overlap;
            if (!prepare_ends(gap))
                return Placed::no_memory;
        }
        Blocked* const previous = blocked_;
        if (!block(run))
            return Placed::no_memory;
        Blocked* const added = blocked_;
        blocked_ = previous;
        for (PageRun gap = next_gap(run); gap.count != 0;
             gap = next_gap({gap.end(), run.end() - gap.end()})) {
            space_.tree().set(gap, Fill::used);
            total_pages_ -= gap.count;
        }
        blocked_ = added;
        update_pressure();
        return Placed::done;
    }

    [[nodiscard]] Pressure pressure() const {
        return Pressure{pressure_.load(std::memory_order_seq_cst)};
    }

    /// Stops caching until much was returned; called when a request fails.
    void starve() MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        starving_ = true;
        returned_since_starving_ = 0;
        update_pressure();
    }

    [[nodiscard]] CentralCounts counts() MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        CentralCounts counts = counts_;
        counts.guard_pages = counts.ranges * guard_.both();
        counts.free_pages = space_.tree().free_pages();
        counts.largest_hole_pages = space_.tree().longest();
        counts.search_steps = space_.tree().steps();
        return counts;
    }

  private:
    using Lock = ExclusiveLock<typename Sync::Mutex>;

    /// Pages that are never allocated: reserved, or outside the aperture. A handful.
    struct Blocked {
        PageRun run{};
        Blocked* next = nullptr;
    };

    [[nodiscard]] bool prepare_ends(PageRun run) MOAT_REQUIRES(mutex_) {
        return space_.tree().prepare(run.start) && space_.tree().prepare(run.end() - 1);
    }

    void record_new(Word& word, std::uint64_t payload, State state, Reuse reuse)
        MOAT_REQUIRES(mutex_) {
        word.store(record::encode(state, reuse, payload), std::memory_order_release);
        counts_.ranges += 1;
        counts_.payload_pages += payload;
    }

    [[nodiscard]] std::uint64_t page_of(const Range& range) const {
        return range.start.value() >> page_lg2;
    }

    [[nodiscard]] bool block(PageRun run) MOAT_REQUIRES(mutex_) {
        if (run.count == 0)
            return true;
        Blocked* const added = Sync::template make<Blocked>(Blocked{run, blocked_});
        if (added == nullptr)
            return false;
        blocked_ = added;
        return true;
    }

    /// The first part of `run` that is not blocked; empty where all of it is.
    [[nodiscard]] PageRun next_gap(PageRun run) const MOAT_REQUIRES(mutex_) {
        std::uint64_t start = run.start;
        for (bool moved = true; moved;) {
            moved = false;
            for (const Blocked* each = blocked_; each != nullptr; each = each->next)
                if (each->run.start <= start && start < each->run.end()) {
                    start = each->run.end();
                    moved = true;
                }
        }
        std::uint64_t end = run.end();
        if (start >= end)
            return {end, 0};
        for (const Blocked* each = blocked_; each != nullptr; each = each->next)
            if (each->run.start > start && each->run.start < end)
                end = each->run.start;
        return {start, end - start};
    }

    /// Short below an eighth free, relaxed again above a quarter.
    void update_pressure() MOAT_REQUIRES(mutex_) {
        const std::uint64_t free = space_.tree().free_pages();
        const Pressure was{pressure_.load(std::memory_order_relaxed)};
        if (starving_ && returned_since_starving_ >= 4096)
            starving_ = false;
        const bool is_short =
            free < total_pages_ / 8 || (was.level() != Shortage::none && free < total_pages_ / 4);
        const Shortage now = starving_  ? Shortage::failed
                             : is_short ? Shortage::some
                                        : Shortage::none;
        if (now != was.level())
            pressure_.store(was.next(now).stamp, std::memory_order_seq_cst);
    }

    const GuardPages guard_;
    Map map_;
    typename Sync::Mutex mutex_;
    FreeSpace<Sync> space_ MOAT_GUARDED_BY(mutex_);
    Blocked* blocked_ MOAT_GUARDED_BY(mutex_) = nullptr;
    CentralCounts counts_ MOAT_GUARDED_BY(mutex_){};
    std::uint64_t opened_ MOAT_GUARDED_BY(mutex_) = 0;
    std::uint64_t total_pages_ MOAT_GUARDED_BY(mutex_) = 0;
    std::uint64_t returned_since_starving_ MOAT_GUARDED_BY(mutex_) = 0;
    bool starving_ MOAT_GUARDED_BY(mutex_) = false;
    typename Sync::template Atomic<std::uint64_t> pressure_{0};
};

} // namespace moat::iova
