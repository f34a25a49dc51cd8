// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The one lock of the allocator's backing: free space, records, and what is reserved.
// Every range is padded and un-padded here (footprint.hpp). Caches above it spare the lock.
#pragma once

#include "moat/core/range.hpp"
#include "moat/iova/detail/free_space.hpp"
#include "moat/iova/detail/live_map.hpp"
#include "moat/iova/detail/record.hpp"
#include "moat/sync/annotations.hpp"
#include "moat/sync/lock.hpp"

#include <cstdint>
#include <limits>
#include <span>

namespace moat::iova {

/// A padded range in somebody's hand: the payload's address and the word of its record.
template <SyncPolicy Sync>
struct Entry {
    Iova start{};
    typename LiveMap<Sync>::Word* word = nullptr;
};

/// Where one range is to be, in pages; no `at` leaves the choice to the free space.
struct Spot {
    static constexpr std::uint64_t anywhere = std::numeric_limits<std::uint64_t>::max();

    std::uint64_t at = anywhere;
    unsigned modulus_lg2 = 0;
    std::uint64_t remainder = 0;
    /// The payload ends here at the latest.
    std::uint64_t limit = anywhere;
};

struct CentralCounts {
    std::uint64_t free_pages = 0;
    std::uint64_t largest_hole_pages = 0;
    std::uint64_t ranges = 0;
    std::uint64_t payload_pages = 0;
    std::uint64_t guard_pages = 0;
    std::uint64_t search_steps = 0;
};

template <SyncPolicy Sync, GuardPolicy Guard>
class Central {
  public:
    using Map = LiveMap<Sync>;
    using Word = typename Map::Word;
    using Range = Entry<Sync>;

    Central(std::uint64_t end_page, unsigned granule_lg2, Guard guard, Preference preference,
            std::uint64_t seed)
        : granule_lg2_(granule_lg2), guard_(guard), map_(end_page), space_(end_page, preference),
          random_(seed) {}

    ~Central() {
        while (Blocked* each = blocked_) {
            blocked_ = each->next;
            Sync::destroy(each);
        }
    }

    Central(const Central&) = delete;
    Central& operator=(const Central&) = delete;

    [[nodiscard]] const Map& map() const { return map_; }

    /// Opens pages for use, one guard away from what lies on either side; ascending calls, before
    /// any other use. Return: false when memory failed.
    [[nodiscard]] bool open(PageRun pages) MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        touch();
        const GuardPages edge = guard_.widest(granule_lg2_);
        PageRun inside = pages;
        if (edge.both() < pages.count)
            inside = {pages.start + edge.after, pages.count - edge.both()};
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

    /// Ends the opening: everything above is out of reach.
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
        touch();
        Footprint footprint{payload, 1, draw_guard()};
        const std::uint64_t count = padded_pages(footprint);
        const auto run = space_.find_batch(payload, count, ranges.size());
        if (!run)
            return 0;
        const auto fitting = static_cast<unsigned>(run->count / count);
        unsigned made = 0;
        for (; made != fitting; ++made) {
            const PageRun own{run->start + made * count, count};
            const std::uint64_t page = payload_page(own.start, footprint);
            typename Map::Leaf* const leaf = map_.find_or_make(page);
            if (leaf == nullptr || !prepare_ends(own))
                break;
            ranges[made] = {Iova(page << page_lg2), &Map::word(*leaf, page)};
            Map::detail(*leaf, page)
                .store(record::encode_detail(footprint), std::memory_order_relaxed);
        }
        if (made == 0) {
            memory_failed = true;
            return 0;
        }
        space_.tree().set({run->start, made * count}, Fill::used);
        for (unsigned i = 0; i != made; ++i)
            record_new(*ranges[i].word, footprint, State::cached, Reuse::cacheable);
        update_pressure();
        return made;
    }

    enum class Placed : std::uint8_t { done, no_space, overlap, out_of_range, no_memory };

    /// One range, recorded as live and not to be cached. The payload page goes to `page`.
    [[nodiscard]] Placed place(const ExtentPages& extent, const Spot& spot, std::uint64_t& page)
        MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        touch();
        const Footprint footprint{extent.payload, extent.segments, draw_guard()};
        const std::uint64_t count = padded_pages(footprint);
        std::uint64_t start = 0;
        if (spot.at != Spot::anywhere) {
            if (spot.at < footprint.guard.before || spot.at >= space_.end_page() ||
                count > space_.end_page() - (spot.at - footprint.guard.before))
                return Placed::out_of_range;
            start = spot.at - footprint.guard.before;
            if (start + count - footprint.guard.after > spot.limit)
                return Placed::out_of_range;
            if (!space_.tree().is_free({start, count}))
                return Placed::overlap;
        } else {
            const std::uint64_t after = footprint.guard.after;
            const auto found = space_.find(Need{.count = count,
                                                .lead = footprint.guard.before,
                                                .modulus_lg2 = spot.modulus_lg2,
                                                .remainder = spot.remainder,
                                                .limit = spot.limit < space_.end_page() - after
                                                             ? spot.limit + after
                                                             : space_.end_page()});
            if (!found)
                return Placed::no_space;
            start = *found;
        }
        page = payload_page(start, footprint);
        typename Map::Leaf* const leaf = map_.find_or_make(page);
        typename Map::Leaf* const second =
            record::is_wide(footprint) && leaf != nullptr ? map_.find_or_make(page + 1) : leaf;
        if (leaf == nullptr || second == nullptr || !prepare_ends({start, count}))
            return Placed::no_memory;
        space_.tree().set({start, count}, Fill::used);
        if (record::is_wide(footprint))
            Map::detail(*second, page + 1).store(footprint.payload, std::memory_order_relaxed);
        Map::detail(*leaf, page).store(record::encode_detail(footprint), std::memory_order_relaxed);
        record_new(Map::word(*leaf, page), footprint, State::live, Reuse::direct);
        update_pressure();
        return Placed::done;
    }

    /// Returns ranges to the free space, un-padded by what their records say. The caller has taken
    /// them out of every other state.
    void take_back(std::span<const Range> ranges) MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        touch();
        for (const Range& each : ranges) {
            const Footprint footprint = recorded(each);
            const PageRun run = occupied(page_of(each), footprint);
            each.word->store(0, std::memory_order_release);
            space_.tree().set(run, Fill::free);
            space_.returned(run.start);
            counts_.ranges -= 1;
            counts_.payload_pages -= footprint.payload;
            counts_.guard_pages -= footprint.guard_total();
        }
        returned_since_starving_ += ranges.size();
        update_pressure();
    }

    /// What a record says; the range is in the caller's hand.
    [[nodiscard]] Footprint recorded(const Range& range) const {
        const std::uint64_t page = page_of(range);
        const std::uint32_t word = range.word->load(std::memory_order_relaxed);
        return record::decode(word, detail(page),
                              (word & record::wide_bit) != 0 ? detail(page + 1) : 0);
    }

    /// Takes pages out of use for good, with a guard around them. What is reserved already, or
    /// outside the aperture, may be named again.
    [[nodiscard]] Placed reserve(PageRun pages) MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        touch();
        const GuardPages edge = guard_.widest(granule_lg2_);
        const std::uint64_t before = edge.before < pages.start ? edge.before : pages.start;
        PageRun run = occupied(pages.start, {pages.count, 1, {before, edge.after}});
        if (run.end() > space_.end_page())
            run.count = run.start < space_.end_page() ? space_.end_page() - run.start : 0;
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

    /// Whether free space is short, or a request failed lately: caches should hold nothing.
    [[nodiscard]] bool pressed() const { return pressed_.load(std::memory_order_seq_cst); }

    /// A request failed although caches were asked: until much was returned, nothing is cached.
    void starve() MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        touch();
        starving_ = true;
        returned_since_starving_ = 0;
        update_pressure();
    }

    [[nodiscard]] CentralCounts counts() MOAT_EXCLUDES(mutex_) {
        const Lock lock(mutex_);
        touch();
        CentralCounts counts = counts_;
        counts.free_pages = space_.tree().free_pages();
        counts.largest_hole_pages = space_.tree().longest();
        counts.search_steps = space_.tree().steps();
        return counts;
    }

  private:
    using Lock = ExclusiveLock<typename Sync::Mutex>;

    /// Pages that are never handed out: reserved, or outside the aperture. A handful.
    struct Blocked {
        PageRun run{};
        Blocked* next = nullptr;
    };

    /// The whole structure counts as one variable where races are looked for.
    void touch() MOAT_REQUIRES(mutex_) { turn_.write(turn_.read() + 1); }

    [[nodiscard]] GuardPages draw_guard() MOAT_REQUIRES(mutex_) {
        // splitmix64: one addition and two multiplications, full period.
        random_ += 0x9e3779b97f4a7c15;
        std::uint64_t mixed = random_;
        mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
        mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
        return guard_.draw(granule_lg2_, mixed ^ mixed >> 31);
    }

    [[nodiscard]] bool prepare_ends(PageRun run) MOAT_REQUIRES(mutex_) {
        return space_.tree().prepare(run.start) && space_.tree().prepare(run.end() - 1);
    }

    void record_new(Word& word, const Footprint& footprint, State state, Reuse reuse)
        MOAT_REQUIRES(mutex_) {
        word.store(record::encode(state, reuse, footprint), std::memory_order_release);
        counts_.ranges += 1;
        counts_.payload_pages += footprint.payload;
        counts_.guard_pages += footprint.guard_total();
    }

    [[nodiscard]] std::uint64_t page_of(const Range& range) const {
        return range.start.value() >> page_lg2;
    }

    [[nodiscard]] std::uint64_t detail(std::uint64_t page) const {
        typename Map::Leaf* const leaf = map_.find(page);
        MOAT_CHECK(leaf != nullptr, "a range that was cut has a record");
        return Map::detail(*leaf, page).load(std::memory_order_relaxed);
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

    /// Pressed below an eighth free, relaxed again above a quarter.
    void update_pressure() MOAT_REQUIRES(mutex_) {
        const std::uint64_t free = space_.tree().free_pages();
        const bool was = pressed_.load(std::memory_order_relaxed);
        if (starving_ && returned_since_starving_ >= 4096)
            starving_ = false;
        const bool now = starving_ || free < total_pages_ / 8 || (was && free < total_pages_ / 4);
        if (now != was)
            pressed_.store(now, std::memory_order_seq_cst);
    }

    const unsigned granule_lg2_;
    const Guard guard_;
    Map map_;
    typename Sync::Mutex mutex_;
    typename Sync::template Plain<std::uint64_t> turn_ MOAT_GUARDED_BY(mutex_);
    FreeSpace<Sync> space_ MOAT_GUARDED_BY(mutex_);
    Blocked* blocked_ MOAT_GUARDED_BY(mutex_) = nullptr;
    CentralCounts counts_ MOAT_GUARDED_BY(mutex_){};
    std::uint64_t opened_ MOAT_GUARDED_BY(mutex_) = 0;
    std::uint64_t total_pages_ MOAT_GUARDED_BY(mutex_) = 0;
    std::uint64_t random_ MOAT_GUARDED_BY(mutex_);
    std::uint64_t returned_since_starving_ MOAT_GUARDED_BY(mutex_) = 0;
    bool starving_ MOAT_GUARDED_BY(mutex_) = false;
    typename Sync::template Atomic<bool> pressed_{false};
};

} // namespace moat::iova
