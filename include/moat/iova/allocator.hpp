// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The guarded IOVA allocator: one entry for allocation, one for release. docs/design/iova.md.
// Here are the hot paths and the order of things; each thing has its own file. The DMA room calls.
#pragma once

#include "moat/core/range.hpp"
#include "moat/core/result.hpp"
#include "moat/iova/config.hpp"
#include "moat/iova/detail/caches.hpp"
#include "moat/iova/detail/fixed_window.hpp"
#include "moat/iova/detail/held_ranges.hpp"
#include "moat/iova/detail/quarantine.hpp"
#include "moat/iova/flush_queue.hpp"
#include "moat/iova/request.hpp"
#include "moat/iova/stats.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>

namespace moat::iova {

/// Ranges of I/O virtual addresses, each with the unmapped pages around it that `Guard` demands.
///
/// Callers ask for and get payloads; guards are invisible. Every function may be called by any
/// thread at any time, but not from inside the invalidation hook. No function's work grows with the
/// number of live ranges. After an error nothing has changed, but for caches that were emptied.
///
/// A release is checked: of what was never allocated, a second time, or of another size is an
/// error. Two releases of the same range that race with each other are the exception: like any data
/// race, that may go unnoticed.
///
/// A range whose invalidation failed is held: never allocated again, and counted (Stats::held).
template <SyncPolicy Sync, GuardPolicy Guard = NoGuard>
class Allocator {
  public:
    struct Destroy {
        void operator()(Allocator* allocator) const { Sync::destroy(allocator); }
    };

    using Owner = std::unique_ptr<Allocator, Destroy>;

    /// Errors: `unsupported` (granule), `out_of_range` (past 2^57, a guard of 1 GiB or more),
    /// `overlap` (aperture not ascending), `empty`, `no_memory`.
    [[nodiscard]] static Result<Owner> create(const Config& config, const Guard& guard = {});

    /// Internal to `create`: Sync::make needs it public.
    Allocator(const Config& config, const Guard& guard, std::uint64_t end_page);
    ~Allocator();

    Allocator(const Allocator&) = delete;
    Allocator& operator=(const Allocator&) = delete;

    /// Finds room for a payload and its guard. Without special wishes: no lock, most of the time.
    /// Return: the payload's first address (of the first segment, where it is a list; see
    /// `segment_offset`), a multiple of the granule.
    /// Errors: `empty`; `out_of_range` (a fixed address outside the aperture, or whose range ends
    /// past `last`); `unaligned` (a fixed address that is no multiple of the granule, or not where
    /// `placement` asks); `unsupported` (a fixed address or placement in the fixed window);
    /// `overlap` (a fixed address that is not free, with its guards); `no_space` with the size, the
    /// limit and the largest hole, after every cache within reach, the flush queue and the
    /// quarantine were emptied; `no_memory`; `limit` (more segments than a record holds).
    [[nodiscard, gnu::always_inline]] Result<Iova> allocate(const Request& request) {
        if (request.is_plain()) [[likely]] {
            const std::uint64_t index = hot_index(request.extent.size());
            if (index < most_cached_pages) [[likely]]
                if (Cache* const cache = caches_.local()) [[likely]]
                    if (const Range* const range = cache->magazine(index + 1).pop()) [[likely]]
                        return hand_out(*range, index);
        }
        // Copies, so that neither request nor result need be in memory on the way above.
        const Result<Iova> slow = allocate_slowly(Request(request));
        return slow ? Result<Iova>(*slow) : Result<Iova>(std::unexpected(slow.error()));
    }

    /// Gives a payload back, with its guard. `extent` is what was asked for, segment by segment.
    /// Errors, which name the range: `not_found` (nothing was allocated here, or it was released
    /// already), `mismatch` (of another size), `unsupported` (no invalidation hook), `refused` (not
    /// the latest of the fixed window), `empty`. `io`: there was no memory to queue the range, and
    /// its invalidation failed; the range is held. A release into a full queue flushes it: the
    /// HeldListener and the next flush report a failure of that.
    [[nodiscard, gnu::always_inline]] Result<void> release(Iova iova, const Extent& extent,
                                                           When when = When::now) {
        if (when == When::now && !extent.is_list()) [[likely]] {
            const std::uint64_t index = hot_index(extent.size());
            if (index < most_cached_pages) [[likely]]
                if (Cache* const cache = caches_.local()) [[likely]]
                    if (cache->leaves.holds(iova.value())) [[likely]]
                        if (take_in(*cache, iova, index)) [[likely]]
                            return {};
        }
        return release_slowly(iova, Extent(extent), when);
    }

    /// A live range that only the thread that claimed it can release; that thread may unmap the
    /// range first. It ends the claim with one of `release`, `hold` and `unclaim`.
    class Claim {
      public:
        /// False where try_claim claimed nothing.
        explicit operator bool() const { return cache_ != nullptr; }

      private:
        friend class Allocator;

        Claim() = default;

        Claim(const Entry<Sync>& range, ThreadCache<Sync>* cache, std::uint64_t index)
            : start_(range.start), word_(range.word), cache_(cache), index_(index) {}

        [[nodiscard, gnu::always_inline]] Entry<Sync> range() const { return {start_, word_}; }

        Iova start_{};
        typename LiveMap<Sync>::Word* word_ = nullptr;
        ThreadCache<Sync>* cache_ = nullptr; ///< nullptr: the range is released the slow way
        std::uint64_t index_ = 0;            ///< pages less one
    };

    /// Claims a live range: the first half of a release. Errors: release's without `io`;
    /// `unsupported` only for the fixed window, whose ranges are released in one step.
    [[nodiscard]] Result<Claim> claim(Iova iova, const Extent& extent);

    /// The same for the most common ranges, without a lock. Return: no claim in every other case,
    /// errors included; call `claim` then.
    [[nodiscard, gnu::always_inline]] Claim try_claim(Iova iova, ByteCount size) {
        const std::uint64_t index = hot_index(size);
        if (index < most_cached_pages) [[likely]]
            if (Cache* const cache = caches_.local()) [[likely]]
                if (cache->leaves.holds(iova.value())) [[likely]] {
                    Word& word = cache->leaves.word(iova.value());
                    if (word.load(std::memory_order_relaxed) ==
                        record::cacheable_at(State::live, index)) [[likely]] {
                        word.store(record::cacheable_at(State::claimed, index),
                                   std::memory_order_relaxed);
                        return Claim({iova, &word}, cache, index);
                    }
                }
        return Claim();
    }

    /// The claim of a range that the calling thread has claimed, by the address alone.
    [[nodiscard]] Claim claim_at(Iova iova) const;

    /// Releases a claimed range: the second half. Errors: `unsupported` (the claim stays), `io` (as
    /// above).
    [[nodiscard]] Result<void> release(const Claim& claim, When when = When::now);

    /// The same for a claim of try_claim. Return: false where it did nothing; call `release` then.
    [[nodiscard, gnu::always_inline]] bool try_release(const Claim& claim) {
        if (!claim.cache_->magazine(claim.index_ + 1).push(claim.range())) [[unlikely]]
            return false;
        claim.word_->store(record::cacheable_at(State::cached, claim.index_),
                           std::memory_order_relaxed);
        return true;
    }

    /// Makes the range live again.
    void unclaim(const Claim& claim) { set_state(claim.range(), State::live); }

    /// Holds the range: for a strict unmap whose invalidation failed.
    void hold(const Claim& claim) { (void)hold_one(claim.range()); }

    /// Takes a live range out of use for good. Errors: claim's; nothing is changed then.
    [[nodiscard]] Result<void> hold(Iova iova, const Extent& extent) {
        const Result<Claim> claimed = claim(iova, extent);
        if (!claimed)
            return std::unexpected(claimed.error());
        hold(*claimed);
        return {};
    }

    /// Whether `release` of this range would succeed. Changes nothing. Errors: release's, except
    /// `unsupported` and `io`.
    [[nodiscard]] Result<void> expect_live(Iova iova, const Extent& extent) const;

    /// Where segment `index` of a list begins, from the first one's address. Errors: `not_found`
    /// or `mismatch` where no such list is live at `iova`, `out_of_range` (no such segment).
    [[nodiscard]] Result<ByteCount> segment_offset(Iova iova, std::span<const ByteCount> segments,
                                                   std::size_t index);

    /// Takes addresses out of use for good, a guard around them included; live ranges may exist.
    /// Errors: `overlap` (a live range, or its guard, is there), `out_of_range`, `no_memory`.
    [[nodiscard]] Result<void> reserve(IovaRange range);

    /// On return, everything that was queued before the call is past its invalidation. Errors: the
    /// invalidation's; the queued ranges are held then. The next flush invalidates again, so its
    /// success covers the held ranges too; they stay held.
    Result<void> flush() {
        const Result<void> flushed = queue_.flush(
            [this](unsigned shard, std::span<const Range> ranges) {
                if (quarantine_.enabled())
                    for (const Range& each : ranges)
                        after_invalidation(each, nullptr);
                else
                    reuse_all(shard, ranges);
            },
            [this](std::span<const Range> ranges) { hold_all(ranges); });
        if (!flushed) [[unlikely]]
            held_.announce(held_listener_);
        return flushed;
    }

    /// Before any other thread uses the allocator.
    void set_held_listener(const HeldListener& listener) { held_listener_ = listener; }

    /// The calling thread's caches are emptied; for one that will make no call for a while.
    void rest() { caches_.rest(); }

    [[nodiscard]] Stats stats();

  private:
    static constexpr std::uint64_t most_cached_pages = Sizes<Sync>::most_cached_pages;

    using Cache = ThreadCache<Sync>;
    using Range = Entry<Sync>;
    using Word = typename LiveMap<Sync>::Word;
    using Placed = typename Central<Sync, Guard>::Placed;

    /// Pages less one, which spares the hot path an addition; huge where the size is 0. Not rounded
    /// up to a granule of more than a page: such a size has no magazine and no record that equals
    /// it, so that the slow path gets it and rounds it.
    [[nodiscard, gnu::always_inline]] static std::uint64_t hot_index(ByteCount size) {
        return (size.value() - 1) >> page_lg2;
    }

    [[nodiscard, gnu::always_inline]] Iova hand_out(const Range& range, std::uint64_t index) {
        range.word->store(record::cacheable_at(State::live, index), std::memory_order_relaxed);
        return range.start;
    }

    /// Of an address whose record the cache holds. Return: false for everything unusual, an error
    /// included.
    [[nodiscard, gnu::always_inline]] bool take_in(Cache& cache, Iova start, std::uint64_t index) {
        Word& word = cache.leaves.word(start.value());
        if (word.load(std::memory_order_relaxed) != record::cacheable_at(State::live, index))
            [[unlikely]]
            return false;
        if (!cache.magazine(index + 1).push({start, &word})) [[unlikely]]
            return false;
        word.store(record::cacheable_at(State::cached, index), std::memory_order_relaxed);
        return true;
    }

    [[gnu::noinline]] Result<Iova> allocate_slowly(const Request& request);
    [[gnu::noinline]] Result<void> release_slowly(Iova iova, const Extent& extent, When when);

    Result<Iova> allocate_in_window(const Request& request);
    Result<Iova> allocate_cacheable(std::uint64_t payload, const Request& request);
    Result<Iova> allocate_directly(const ExtentPages& pages, const Request& request);
    Result<Spot> spot_for(const Request& request) const;
    [[nodiscard]] static std::uint64_t limit_of(const Request& request);
    std::unexpected<Error> no_space(const Request& request);

    /// A live range and the word of its record, as it was read.
    struct Live {
        Range range;
        std::uint32_t word = 0;
    };

    Result<Live> find_live(Iova iova, const ExtentPages& pages) const;
    Result<Range> take_live(Iova iova, const ExtentPages& pages, State next);
    [[nodiscard]] Result<void> enqueue(const Range& range, Cache* cache);
    IovaRange hold_one(const Range& range);
    void hold_all(std::span<const Range> ranges);

    static void set_state(const Range& range, State state) {
        range.word->store(record::with_state(range.word->load(std::memory_order_relaxed), state),
                          std::memory_order_relaxed);
    }

    void after_invalidation(const Range& range, Cache* cache);
    void reuse(const Range& range, Cache* cache);
    void reuse_all(unsigned shelf, std::span<const Range> ranges);
    void relieve(Cache* cache);

    [[nodiscard]] std::uint64_t end_page() const { return end_page_; }

    static void timer_fires(void* allocator) {
        auto& self = *static_cast<Allocator*>(allocator);
        self.timer_armed_.store(false, std::memory_order_seq_cst);
        (void)self.flush(); // the HeldListener and the next flush report a failure
    }

    const std::uint64_t granule_mask_;
    const unsigned granule_lg2_;
    const std::uint64_t end_page_;
    const std::uint64_t flush_delay_;
    Central<Sync, Guard> central_;
    Caches<Sync, Guard> caches_;
    Quarantine<Sync> quarantine_;
    HeldListener held_listener_{};
    HeldRanges<Sync> held_;
    FlushQueue<Sync> queue_;
    FixedWindow<Sync> window_;
    typename Sync::template Atomic<bool> timer_armed_{false};
    typename Sync::Timer timer_;
};

} // namespace moat::iova

#include "moat/iova/detail/allocator_release.hpp"
#include "moat/iova/detail/allocator_slow.hpp"
