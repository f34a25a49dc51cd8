// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The guarded IOVA allocator: one entry for allocation, one for release, both with a hot path.
// docs/design/iova.md. The DMA room calls it.
#pragma once

#include "moat/core/range.hpp"
#include "moat/core/result.hpp"
#include "moat/iova/config.hpp"
#include "moat/iova/detail/caches.hpp"
#include "moat/iova/detail/config_check.hpp"
#include "moat/iova/detail/lookup.hpp"
#include "moat/iova/detail/recycler.hpp"

#include <cstdint>
#include <memory>

namespace moat::iova {

/// Ranges of I/O virtual addresses, each surrounded by the unmapped pages of Config::guard.
///
/// Callers allocate and release payloads; guards are invisible. Any thread may call any function at
/// any time, except from inside the invalidation hook. No function's work grows with the number of
/// live ranges. A failed call changes nothing, but may empty caches.
///
/// `release` rejects a range that was never allocated, was released already, or has another size.
/// Only two racing releases of one range may go unnoticed, like any data race.
///
/// A range whose invalidation failed is held: never allocated again, and counted (Stats::held).
template <SyncPolicy Sync>
class Allocator {
  public:
    struct Destroy {
        void operator()(Allocator* allocator) const { Sync::destroy(allocator); }
    };

    using Owner = std::unique_ptr<Allocator, Destroy>;

    /// Errors: `unsupported` (granule), `out_of_range` (past 2^57, a guard of 1 GiB or more),
    /// `overlap` (aperture not ascending), `empty`, `no_memory`.
    [[nodiscard]] static Result<Owner> create(const Config& config);

    /// Internal to `create`: Sync::make needs it public.
    Allocator(const Config& config, std::uint64_t end_page);

    Allocator(const Allocator&) = delete;
    Allocator& operator=(const Allocator&) = delete;

    /// Allocates a payload with its guard. A request without special placement takes no lock, most
    /// of the time. Return: the payload's first address, a multiple of the granule.
    /// Errors: `empty`; `out_of_range` (a modulus above 2^57; a fixed address outside the aperture,
    /// or whose range ends past `last`); `unaligned` (a fixed address that is no multiple of the
    /// granule or violates `placement`); `overlap` (a fixed address that is not free, guards
    /// included); `no_space` with the size, the limit and the largest hole, after emptying every
    /// cache within reach, the flush queue and the quarantine; `no_memory`.
    [[nodiscard, gnu::always_inline]] Result<Iova> allocate(const Request& request) {
        const std::uint64_t index = hot_index(request.size);
        if (Cache* const cache = caches_.local()) [[likely]] {
            if (request.is_plain() && index < most_cached_pages) [[likely]] {
                if (const Range* const range = cache->magazine(index + 1).pop()) [[likely]]
                    return hand_out(*range, index);
            } else if (!request.at) {
                const Range range =
                    take_special(*cache, request.size, request.placement, request.last);
                if (range.word != nullptr)
                    return range.start;
            }
        }
        // Copies, field by field, so that neither request nor result lies in memory on the hot
        // path.
        const Result<Iova> slow =
            allocate_slowly({request.size, request.placement, request.last, request.at});
        return slow ? Result<Iova>(*slow) : Result<Iova>(std::unexpected(slow.error()));
    }

    /// Releases a payload with its guard. `size`: as allocated, in bytes.
    /// Errors, which name the range: `not_found` (nothing was allocated here, or it was released
    /// already), `mismatch` (another size), `unsupported` (no invalidation hook), `empty`, `io`
    /// (the invalidation failed, and there was no memory to queue the range; the range is held).
    /// A release into a full queue flushes it; the HeldListener and the next flush report a failure
    /// of that flush.
    [[nodiscard, gnu::always_inline]] Result<void> release(Iova iova, ByteCount size,
                                                           When when = When::now) {
        if (Cache* const cache = caches_.local()) [[likely]]
            if (cache->leaves.holds(iova.value())) [[likely]] {
                const Range range{iova, &cache->leaves.word(iova.value())};
                if (when == When::now) [[likely]] {
                    if (take_in(*cache, range, hot_index(size))) [[likely]]
                        return {};
                    if (put_special(*cache, range, size))
                        return {};
                } else if (put_queued(*cache, range, size)) {
                    return {};
                }
            }
        return release_slowly(iova, size, when);
    }

    /// A live range that only the claiming thread can release, after it has unmapped the range. The
    /// thread ends the claim with one of `release`, `hold` and `unclaim`.
    class Claim {
      public:
        /// Whether try_claim claimed the range.
        explicit operator bool() const { return cache_ != nullptr; }

      private:
        friend class Allocator;

        Claim() = default;

        Claim(const Entry<Sync>& range, ThreadCache<Sync>* cache, std::uint64_t index)
            : start_(range.start), word_(range.word), cache_(cache), index_(index) {}

        [[nodiscard, gnu::always_inline]] Entry<Sync> range() const { return {start_, word_}; }

        Iova start_{};
        typename LiveMap<Sync>::Word* word_ = nullptr;
        ThreadCache<Sync>* cache_ = nullptr; ///< nullptr: the slow path releases the range
        std::uint64_t index_ = 0;            ///< pages less one, and special_claim
    };

    /// Claims a live range: the first half of a release. Errors: `not_found`, `mismatch`, `empty`.
    [[nodiscard]] Result<Claim> claim(Iova iova, ByteCount size);

    /// The hot path of `claim`. Return: no claim for unusual ranges and errors; call try_claim_any
    /// then.
    [[nodiscard, gnu::always_inline]] Claim try_claim(Iova iova, ByteCount size) {
        Cache* const cache = caches_.local();
        if (cache == nullptr || !cache->leaves.holds(iova.value())) [[unlikely]]
            return Claim();
        const std::uint64_t index = hot_index(size);
        Word& word = cache->leaves.word(iova.value());
        if (index >= most_cached_pages || word.load(std::memory_order_relaxed) !=
                                              record::cacheable_at(State::live, index)) [[unlikely]]
            return Claim();
        word.store(record::cacheable_at(State::claimed, index), std::memory_order_relaxed);
        return Claim({iova, &word}, cache, index);
    }

    /// The same for any range that the thread's caches can take. Return: no claim for others and
    /// errors; call `claim` then.
    [[nodiscard, gnu::always_inline]] Claim try_claim_any(Iova iova, ByteCount size) {
        Cache* const cache = caches_.local();
        if (cache == nullptr || !cache->leaves.holds(iova.value())) [[unlikely]]
            return Claim();
        const Range range{iova, &cache->leaves.word(iova.value())};
        const std::uint32_t value = range.word->load(std::memory_order_relaxed);
        const std::uint64_t index = hot_index(size);
        const bool in_magazine =
            index < most_cached_pages && value == record::cacheable_at(State::live, index);
        if (!in_magazine && (index >= record::payload_mask || caches_.quarantined() ||
                             value != record::special(State::live, index + 1))) [[unlikely]]
            return Claim();
        range.word->store(record::with_state(value, State::claimed), std::memory_order_relaxed);
        return Claim(range, cache, in_magazine ? index : index | special_claim);
    }

    /// The claim of a range that the calling thread has claimed.
    [[nodiscard]] Claim claim_at(Iova iova) const {
        const Range range = lookup_.claimed(iova);
        return Claim(range, nullptr, central_.payload_of(range) - 1);
    }

    /// Releases a claimed range: the second half. Errors: `unsupported` (no invalidation hook; the
    /// claim stays), `io` (as above).
    [[nodiscard]] Result<void> release(const Claim& claim, When when = When::now);

    /// The hot path of `release`, for a claim of try_claim. Return: false where it changed nothing;
    /// call `release` then.
    [[nodiscard, gnu::always_inline]] bool try_release(const Claim& claim) {
        if (!claim.cache_->magazine(claim.index_ + 1).push(claim.range())) [[unlikely]]
            return false;
        claim.word_->store(record::cacheable_at(State::cached, claim.index_),
                           std::memory_order_relaxed);
        return true;
    }

    /// The same for a claim of try_claim_any.
    [[nodiscard, gnu::always_inline]] bool try_release_any(const Claim& claim) {
        if (claim.index_ < most_cached_pages)
            return try_release(claim);
        const std::uint64_t payload = (claim.index_ & ~special_claim) + 1;
        if (!caches_.push_special(*claim.cache_, payload, claim.range()))
            return false;
        claim.word_->store(record::special(State::cached, payload), std::memory_order_relaxed);
        return true;
    }

    /// The hot path of `release` after an invalidation, for a claim of try_claim_any. Return: false
    /// where it changed nothing; call `release` then.
    [[nodiscard, gnu::always_inline]] bool try_queue(const Claim& claim) {
        if (!recycler_.can_defer()) [[unlikely]]
            return false;
        const std::uint32_t claimed = claim.word_->load(std::memory_order_relaxed);
        // First, because the range may be released and reused as soon as it is queued.
        claim.word_->store(record::with_state(claimed, State::queued), std::memory_order_relaxed);
        if (recycler_.try_enqueue(claim.range(), *claim.cache_)) [[likely]]
            return true;
        claim.word_->store(claimed, std::memory_order_relaxed);
        return false;
    }

    /// Makes the range live again.
    void unclaim(const Claim& claim) { recycler_.set_state(claim.range(), State::live); }

    /// Holds the range, for a strict unmap whose invalidation failed.
    void hold(const Claim& claim) { (void)recycler_.hold(claim.range()); }

    /// Holds a live range: it is never reused. Errors: claim's.
    [[nodiscard]] Result<void> hold(Iova iova, ByteCount size) {
        const Result<Claim> claimed = claim(iova, size);
        if (!claimed)
            return std::unexpected(claimed.error());
        hold(*claimed);
        return {};
    }

    /// Reserves addresses for good, with a guard around them; live ranges may exist elsewhere.
    /// Errors: `overlap` (with a live range or its guard), `out_of_range`, `no_memory`.
    [[nodiscard]] Result<void> reserve(IovaRange range);

    /// Invalidates everything queued before the call. Errors: the invalidation's; the queued ranges
    /// are held then. The next flush invalidates again; its success means that no device reaches
    /// the held ranges either, but they stay held.
    Result<void> flush() { return recycler_.flush(caches_.local()); }

    /// Call it before any other thread uses the allocator.
    void set_held_listener(const HeldListener& listener) { recycler_.set_held_listener(listener); }

    /// Empties the calling thread's caches. For a thread that will be idle.
    void rest() { caches_.rest(); }

    [[nodiscard]] Stats stats() { return recycler_.stats(); }

  private:
    static constexpr std::uint64_t most_cached_pages = Sizes<Sync>::most_cached_pages;

    using Cache = ThreadCache<Sync>;
    using Range = Entry<Sync>;
    using Word = typename LiveMap<Sync>::Word;
    using Placed = typename Central<Sync>::Placed;

    /// Pages less one, which saves the hot path an addition; huge for size 0. A size that is no
    /// multiple of a granule above 4 KiB has no magazine and matches no record: the slow path
    /// rounds it.
    [[nodiscard, gnu::always_inline]] static std::uint64_t hot_index(ByteCount size) {
        return (size.value() - 1) >> page_lg2;
    }

    [[nodiscard, gnu::always_inline]] Iova hand_out(const Range& range, std::uint64_t index) {
        range.word->store(record::cacheable_at(State::live, index), std::memory_order_relaxed);
        return range.start;
    }

    /// Caches a live range. Return: false for unusual ranges and errors.
    [[nodiscard, gnu::always_inline]] bool take_in(Cache& cache, const Range& range,
                                                   std::uint64_t index) {
        if (index >= most_cached_pages || range.word->load(std::memory_order_relaxed) !=
                                              record::cacheable_at(State::live, index)) [[unlikely]]
            return false;
        if (!cache.magazine(index + 1).push(range)) [[unlikely]]
            return false;
        range.word->store(record::cacheable_at(State::cached, index), std::memory_order_relaxed);
        return true;
    }

    /// Moves a live range to `next`, without the work that an error would need. Return: its word;
    /// nullptr for unusual ranges and errors.
    [[nodiscard, gnu::always_inline]] Word* take_live(Cache& cache, Iova start,
                                                      std::uint64_t payload, State next) {
        if (!cache.leaves.holds(start.value()) && !cache.leaves.load(central_.map(), start.value()))
            return nullptr;
        Word& word = cache.leaves.word(start.value());
        const std::uint32_t value = word.load(std::memory_order_relaxed);
        if (!is_live(value, payload))
            return nullptr;
        word.store(record::with_state(value, next), std::memory_order_relaxed);
        return &word;
    }

    /// The pages that hold `size` bytes; none, as no range has, for size 0 and for sizes that no
    /// address space holds.
    [[nodiscard, gnu::always_inline]] std::uint64_t rounded_pages(ByteCount size) const {
        return ((size.value() + granule_mask_) & ~granule_mask_) >> page_lg2;
    }

    /// Allocates from the thread's special cache. Return: an empty range if none fits. A Range
    /// returns in registers, a Result in memory.
    [[nodiscard, gnu::always_inline]] Range take_special(Cache& cache, ByteCount size,
                                                         Congruence placement, Iova last) {
        if (placement.modulus_lg2 > most_modulus_lg2)
            return {};
        const std::uint64_t payload = rounded_pages(size);
        const Range range =
            caches_.pop_special(cache, payload, Wish(placement, last, granule_mask_));
        if (range.word != nullptr)
            range.word->store(record::special(State::live, payload), std::memory_order_relaxed);
        return range;
    }

    /// Releases a live range of Reuse::special into the thread's special cache. Return: false for
    /// unusual ranges and errors.
    [[nodiscard, gnu::noinline]] bool put_special(Cache& cache, Range range, ByteCount size) {
        const std::uint64_t payload = rounded_pages(size);
        if (caches_.quarantined()) [[unlikely]]
            return put_quarantined(cache, range, payload);
        if (payload - 1 >= record::payload_mask ||
            range.word->load(std::memory_order_relaxed) != record::special(State::live, payload) ||
            !caches_.push_special(cache, payload, range))
            return false;
        range.word->store(record::special(State::cached, payload), std::memory_order_relaxed);
        return true;
    }

    /// Marks the claim of a range of Reuse::special in its index; no range has so many pages.
    static constexpr std::uint64_t special_claim = std::uint64_t{1} << 63;

    [[nodiscard, gnu::noinline]] bool put_quarantined(Cache& cache, Range range,
                                                      std::uint64_t payload) {
        if (!is_live(range.word->load(std::memory_order_relaxed), payload))
            return false;
        recycler_.after_invalidation(range, &cache);
        return true;
    }

    /// Queues a live range. Return: false for unusual ranges and errors.
    [[nodiscard, gnu::noinline]] bool put_queued(Cache& cache, Range range, ByteCount size) {
        const std::uint32_t value = range.word->load(std::memory_order_relaxed);
        if (!recycler_.can_defer() || !is_live(value, rounded_pages(size)))
            return false;
        // First, because the range may be released and reused as soon as it is queued.
        range.word->store(record::with_state(value, State::queued), std::memory_order_relaxed);
        if (recycler_.try_enqueue(range, cache))
            return true;
        range.word->store(value, std::memory_order_relaxed);
        return false;
    }

    /// Whether the word is that of a live range of this size that is not wide.
    [[nodiscard]] static bool is_live(std::uint32_t word, std::uint64_t payload) {
        return payload - 1 < record::payload_mask &&
               (word & ~record::reuse_mask) == record::cacheable(State::live, payload);
    }

    [[gnu::noinline]] Result<Iova> allocate_slowly(const Request& request);
    [[gnu::noinline]] Result<void> release_slowly(Iova iova, ByteCount size, When when);

    Result<Iova> allocate_cacheable(std::uint64_t payload, const Request& request);
    Result<Iova> allocate_directly(std::uint64_t payload, const Request& request);
    std::unexpected<Error> no_space(const Request& request);

    const unsigned granule_lg2_;
    const std::uint64_t granule_mask_;
    const std::uint64_t end_page_;
    Central<Sync> central_;
    Caches<Sync> caches_;
    Recycler<Sync> recycler_;
    const Lookup<Sync> lookup_;
};

template <SyncPolicy Sync>
Allocator<Sync>::Allocator(const Config& config, std::uint64_t end_page)
    : granule_lg2_(config.granule_lg2), granule_mask_(low_bits(config.granule_lg2)),
      end_page_(end_page), central_(end_page, GuardPages(config.guard, config.granule_lg2)),
      caches_(central_, cache_budget(config)), recycler_(central_, caches_, config),
      lookup_(central_, config.granule_lg2) {}

template <SyncPolicy Sync>
auto Allocator<Sync>::create(const Config& config) -> Result<Owner> {
    const auto end_page = checked_end_page(config);
    if (!end_page)
        return std::unexpected(end_page.error());
    Owner made(Sync::template make<Allocator>(config, *end_page));
    const Error no_memory(ErrorCode::no_memory, "no memory for an allocator of addresses");
    if (made == nullptr)
        return std::unexpected(no_memory);
    for (const IovaRange& each : config.aperture)
        if (const PageRun pages = inner_pages(each, config.granule_lg2); pages.count != 0)
            if (!made->central_.open(pages))
                return std::unexpected(no_memory);
    if (!made->central_.close())
        return std::unexpected(no_memory);
    return made;
}

template <SyncPolicy Sync>
Result<Iova> Allocator<Sync>::allocate_slowly(const Request& request) {
    const std::uint64_t payload = whole_pages(request.size, granule_lg2_);
    if (payload == 0)
        return fail(ErrorCode::empty, "a range has at least one byte");
    if (payload > end_page_)
        return no_space(request);
    if (request.is_plain() && payload <= most_cached_pages)
        return allocate_cacheable(payload, request);
    return allocate_directly(payload, request);
}

template <SyncPolicy Sync>
Result<Iova> Allocator<Sync>::allocate_cacheable(std::uint64_t payload, const Request& request) {
    Cache* const cache = caches_.local();
    Range range;
    bool memory_failed = false;
    if (caches_.take(cache, payload, range, memory_failed))
        return hand_out(range, payload - 1);
    if (!memory_failed) {
        recycler_.drain(cache);
        if (caches_.take(cache, payload, range, memory_failed))
            return hand_out(range, payload - 1);
    }
    if (memory_failed)
        return fail(ErrorCode::no_memory, "no memory to record a range of addresses",
                    {"size", request.size.value()});
    return no_space(request);
}

template <SyncPolicy Sync>
Result<Iova> Allocator<Sync>::allocate_directly(std::uint64_t payload, const Request& request) {
    const Result<Spot> spot = spot_of(request, granule_lg2_);
    if (!spot)
        return std::unexpected(spot.error());
    caches_.obey_shortage(caches_.local());
    std::uint64_t page = 0;
    Placed placed = central_.place(payload, *spot, page);
    if (placed == Placed::no_space || placed == Placed::overlap) {
        recycler_.drain(caches_.local());
        placed = central_.place(payload, *spot, page);
    }
    const std::uint64_t at = request.at ? request.at->value() : 0;
    const std::uint64_t size = request.size.value();
    switch (placed) {
    case Placed::done:
        return Iova(page << page_lg2);
    case Placed::no_space:
        return no_space(request);
    case Placed::overlap:
        return fail(ErrorCode::overlap, "the requested address, or its guard, is in use",
                    {"at", at}, {"size", size});
    case Placed::out_of_range:
        return fail(ErrorCode::out_of_range,
                    "the range at the requested address leaves the aperture or passes `last`",
                    {"at", at}, {"size", size}, {"last", request.last.value()});
    case Placed::no_memory:
        break;
    }
    return fail(ErrorCode::no_memory, "no memory to record a range of addresses", {"size", size});
}

template <SyncPolicy Sync>
std::unexpected<Error> Allocator<Sync>::no_space(const Request& request) {
    return fail(ErrorCode::no_space, "no free range of addresses fits",
                {"size", request.size.value()}, {"last", request.last.value()},
                {"largest_hole", central_.counts().largest_hole_pages << page_lg2},
                {"modulus_lg2", request.placement.modulus_lg2});
}

/// Caches the leaf for the thread's next try_claim.
template <SyncPolicy Sync>
auto Allocator<Sync>::claim(Iova iova, ByteCount size) -> Result<Claim> {
    const Result<Range> range = lookup_.take(iova, size, State::claimed);
    if (!range)
        return std::unexpected(range.error());
    const std::uint64_t index = whole_pages(size, granule_lg2_) - 1;
    Cache* const cache = caches_.local();
    if (cache != nullptr)
        (void)cache->leaves.load(central_.map(), iova.value());
    switch (record::reuse_of(range->word->load(std::memory_order_relaxed))) {
    case Reuse::magazine:
        return Claim(*range, cache, index);
    case Reuse::special:
        return Claim(*range, caches_.quarantined() ? nullptr : cache, index | special_claim);
    case Reuse::direct:
        break;
    }
    return Claim(*range, nullptr, index);
}

template <SyncPolicy Sync>
Result<void> Allocator<Sync>::release(const Claim& claim, When when) {
    Cache* const cache = caches_.local();
    if (when == When::now) {
        if (claim.cache_ != nullptr && try_release_any(claim))
            return {};
        recycler_.set_state(claim.range(), State::cached);
        recycler_.after_invalidation(claim.range(), cache);
        return {};
    }
    if (!recycler_.can_defer())
        return fail(ErrorCode::unsupported, "no invalidation was configured",
                    {"iova", claim.start_.value()});
    recycler_.set_state(claim.range(), State::queued);
    return recycler_.enqueue(claim.range(), cache);
}

template <SyncPolicy Sync>
Result<void> Allocator<Sync>::release_slowly(Iova iova, ByteCount size, When when) {
    if (when == When::after_invalidation && !recycler_.can_defer())
        return fail(ErrorCode::unsupported, "no invalidation was configured",
                    {"iova", iova.value()});
    Cache* const cache = caches_.local();
    const State next = when == When::now ? State::cached : State::queued;
    Range range{iova, nullptr};
    if (cache != nullptr)
        range.word = take_live(*cache, iova, whole_pages(size, granule_lg2_), next);
    if (range.word == nullptr) {
        const Result<Range> taken = lookup_.take(iova, size, next);
        if (!taken)
            return std::unexpected(taken.error());
        range = *taken;
    }
    if (when == When::after_invalidation)
        return recycler_.enqueue(range, cache);
    recycler_.after_invalidation(range, cache);
    return {};
}

template <SyncPolicy Sync>
Result<void> Allocator<Sync>::reserve(IovaRange range) {
    const auto failed = [&](ErrorCode code, const char* what) {
        return fail(code, what, {"start", range.start().value()}, {"size", range.size().value()});
    };
    const PageRun pages = outer_pages(range, granule_lg2_);
    if (pages.count == 0 || pages.start >= end_page_)
        return failed(ErrorCode::out_of_range, "a reserved region has bytes in the aperture");
    Placed placed = central_.reserve(pages);
    if (placed == Placed::overlap) {
        recycler_.drain(caches_.local());
        placed = central_.reserve(pages);
    }
    if (placed == Placed::done)
        return {};
    if (placed == Placed::no_memory)
        return failed(ErrorCode::no_memory, "no memory to reserve a region");
    return failed(ErrorCode::overlap, "a live range, or its guard, lies in the reserved region");
}

} // namespace moat::iova
