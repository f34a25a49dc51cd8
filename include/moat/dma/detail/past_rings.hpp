// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// PastRings: the latest past mappings, as unmaps note them: one store into the thread's ring. The
// part of recent_past.hpp that threads share; `moat explore dma-past` explores it.
#pragma once

#include "moat/dma/detail/registered.hpp"
#include "moat/dma/detail/registry_sizes.hpp"
#include "moat/fault/mapping.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>

namespace moat::dma {

/// A mapping that was unmapped, as the rings keep it.
struct PastEntry {
    PackedMapping mapping;
    std::uint64_t page = 0; ///< where it began
    fault::Event unmapped;
    std::uint64_t round = 0;
};

static_assert(std::is_trivially_destructible_v<PastEntry>);

/// One thread's ring, or that of a few threads; touched only as far as it was used.
template <SyncPolicy Sync>
struct alignas(64) PastStripe {
    typename RegistrySizes<Sync>::Lock mutex;
    PastEntry* ring = nullptr; ///< constant once a thread has chosen the stripe
    std::uint32_t index = 0;
    PastEntry* next MOAT_GUARDED_BY(mutex) = nullptr;
    PastEntry* stop MOAT_GUARDED_BY(mutex) = nullptr; ///< where `next` wraps, or a round ends
    /// How many notes there were when `next` was at `stop`.
    std::uint64_t noted_at_stop MOAT_GUARDED_BY(mutex) = 0;
    std::uint64_t taken = 0; ///< how many notes `take` has returned

    [[nodiscard]] std::uint64_t noted() const MOAT_REQUIRES(mutex) {
        return noted_at_stop - static_cast<std::uint64_t>(stop - next);
    }
};

/// One ring for all threads would be a line that all of them write. So each thread has one of a few
/// (`PastStripe`), and each entry the number of its round, a counter that changes seldom. Entries
/// of one ring are in order; of two rings, those of a later round are later. A page that two
/// threads note in one round begins a new one, and so does each `take`.
template <SyncPolicy Sync>
class PastRings {
  public:
    using Stripe = PastStripe<Sync>;

    /// What the place of a mapping keeps of its last `note`; 0 before the first.
    using Stamp = std::uint32_t;

    /// An entry that `take` returns.
    struct Taken {
        PastEntry entry;
        std::size_t order; ///< among the entries of its round
    };

    /// Each ring keeps its newest `capacity` mappings, or none without memory.
    explicit PastRings(std::size_t capacity)
        : capacity_(capacity), stripes_(capacity == 0 ? nullptr : Sync::template make<Stripes>()) {}

    ~PastRings() {
        if (stripes_ == nullptr)
            return;
        for (const Stripe& each : stripes_->all)
            if (each.ring != nullptr)
                RegistrySizes<Sync>::template deallocate<PastEntry>(each.ring, capacity_);
        Sync::destroy(stripes_);
    }

    PastRings(const PastRings&) = delete;
    PastRings& operator=(const PastRings&) = delete;

    /// The calling thread's ring; null without a history or memory. It allocates at the thread's
    /// first call: call it before the lock under which `note` is called.
    [[nodiscard, gnu::always_inline]] Stripe* own() {
        if (stripes_ == nullptr) [[unlikely]]
            return nullptr;
        Own* const own = stripes_->own.local();
        return own != nullptr && own->stripe != nullptr ? own->stripe : choose(own);
    }

    /// Adds `mapping`, which began in `page`. `last` is the stamp of that page's last note; the
    /// caller excludes others of the same page. Return: the new stamp. Notes of one page are in
    /// order. Overlapping mappings that began in different pages are, if one thread notes them or
    /// `notes_of_a_round` others lie between.
    [[gnu::always_inline]] Stamp note(Stripe& stripe, const PackedMapping& mapping,
                                      std::uint64_t page, const fault::Event& unmapped,
                                      Stamp last) {
        const ExclusiveLock lock(stripe.mutex);
        std::uint64_t round = round_.load(std::memory_order_acquire);
        if (last % most_stripes != stripe.index && last / most_stripes == round % rounds)
            [[unlikely]]
            round = next_round() + 1;
        std::construct_at(stripe.next, mapping, page, unmapped, round);
        if (++stripe.next == stripe.stop) [[unlikely]]
            pass_stop(stripe);
        return static_cast<Stamp>(round % rounds * most_stripes + stripe.index);
    }

    /// Appends to `taken`, which is empty, what was noted before the call and since the last one,
    /// oldest first; one thread at a time. Return: false if a ring lost entries since the last
    /// call; `taken` then has all that the rings hold, also from before, and lacks what is older
    /// than a lost entry may be. What `taken` throws loses entries.
    template <class Entries>
    [[nodiscard]] bool take(Entries& taken) {
        if (stripes_ == nullptr)
            return true;
        const std::uint64_t last_round = next_round(); // a note that is missed has a later one
        const bool complete = take_all(last_round, taken);
        if (!complete) {
            taken.clear();
            forget();
            (void)take_all(last_round, taken);
        }
        std::ranges::sort(
            taken, {}, [](const Taken& each) { return std::tuple(each.entry.round, each.order); });
        return complete;
    }

    /// Makes the next `take` return all that the rings hold.
    void forget() {
        if (stripes_ != nullptr)
            for (Stripe& each : stripes_->all)
                each.taken = 0;
    }

  private:
    /// Keeps the rings about in step, so that the index drops the oldest entries of all.
    static constexpr std::uint64_t notes_of_a_round = 64;
    static constexpr std::uint64_t most_stripes = 16;
    /// A stamp holds a round modulo this. One that it takes for the current round begins a new one.
    static constexpr std::uint64_t rounds = std::uint64_t{1} << 28;

    static_assert(RegistrySizes<Sync>::stripes <= most_stripes);

    struct Own {
        Stripe* stripe = nullptr;
    };

    struct Stripes {
        std::array<Stripe, RegistrySizes<Sync>::stripes> all;
        typename Sync::template ThreadLocal<Own> own{[](void*, Own&) {}, nullptr};
        typename Sync::Mutex mutex;
        std::uint32_t chosen MOAT_GUARDED_BY(mutex) = 0;
    };

    /// Prepares a stripe whose ring was allocated.
    void begin(Stripe& stripe) {
        if (stripe.ring == nullptr)
            return;
        const ExclusiveLock lock(stripe.mutex);
        stripe.next = stripe.ring;
        set_stop(stripe);
    }

    /// Ends a round after as many notes as it has, and wraps `next` at the ring's end.
    [[gnu::noinline]] void pass_stop(Stripe& stripe) MOAT_REQUIRES(stripe.mutex) {
        if (stripe.noted_at_stop % notes_of_a_round == 0)
            next_round();
        if (stripe.stop == stripe.ring + capacity_)
            stripe.next = stripe.ring;
        set_stop(stripe);
    }

    /// The next `stop`; `next` is at the last one, or at the ring's begin instead.
    void set_stop(Stripe& stripe) MOAT_REQUIRES(stripe.mutex) {
        const auto left = static_cast<std::uint64_t>(stripe.ring + capacity_ - stripe.next);
        const std::uint64_t until =
            std::min(left, notes_of_a_round - stripe.noted_at_stop % notes_of_a_round);
        stripe.stop = stripe.next + until;
        stripe.noted_at_stop += until;
    }

    std::uint64_t next_round() { return round_.fetch_add(1, std::memory_order_acq_rel); }

    [[nodiscard, gnu::noinline, gnu::cold]] Stripe* choose(Own* own) {
        const ExclusiveLock lock(stripes_->mutex);
        const std::uint32_t index =
            own == nullptr ? 0 : stripes_->chosen++ % RegistrySizes<Sync>::stripes;
        Stripe& stripe = stripes_->all[index];
        if (stripe.ring == nullptr) {
            stripe.index = index;
            stripe.ring = RegistrySizes<Sync>::template allocate<PastEntry>(capacity_);
            begin(stripe);
        }
        if (stripe.ring == nullptr)
            return nullptr;
        if (own != nullptr)
            own->stripe = &stripe;
        return &stripe;
    }

    /// Return: whether no entry was lost since the last call.
    template <class Entries>
    [[nodiscard]] bool take_all(std::uint64_t last_round, Entries& taken) {
        std::uint64_t first_round = 0;
        for (Stripe& stripe : stripes_->all)
            while (const auto entry = take_one(stripe, last_round, first_round))
                taken.push_back({*entry, taken.size()});
        const auto kept = std::ranges::remove_if(
            taken, [&](const Taken& each) { return each.entry.round < first_round; });
        taken.erase(kept.begin(), kept.end());
        return first_round == 0;
    }

    /// The stripe's next entry of rounds up to `last_round`. Raises `first_round` to the oldest
    /// entry's if some before it were lost.
    [[nodiscard]] std::optional<PastEntry> take_one(Stripe& stripe, std::uint64_t last_round,
                                                    std::uint64_t& first_round) {
        const ExclusiveLock lock(stripe.mutex);
        const std::uint64_t noted = stripe.noted();
        const bool lost = noted - stripe.taken > capacity_;
        if (lost)
            stripe.taken = noted - capacity_;
        if (stripe.taken == noted)
            return std::nullopt;
        const PastEntry& next = stripe.ring[stripe.taken % capacity_];
        if (lost)
            first_round = std::max(first_round, next.round);
        if (next.round > last_round)
            return std::nullopt;
        ++stripe.taken;
        return next;
    }

    const std::size_t capacity_;
    Stripes* const stripes_;
    typename Sync::template Atomic<std::uint64_t> round_{1};
};

} // namespace moat::dma
