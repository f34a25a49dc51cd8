// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Invalidation in software: each block of addresses has a generation, a cached translation records
// the generation in which it was made, and a new generation makes it stale. It is
// table_domain.hpp's Invalidator for domains that a SoftIommu walks; iotlb.hpp is the cache.
//
// Why it is sufficient: a device's access is one read section: it reads a generation, then the
// tables, then accesses memory. An unmap clears the leaf, then changes the generation, then waits
// for open sections. A section that was open is waited for. A section that opens later reads the
// new generation (the wait and the entry into a section synchronise at the section's slot), so
// cached translations do not match. An open section that reads the new generation also sees the
// cleared leaf, by acquire. So no old translation is cached under a new generation.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/types.hpp"
#include "moat/page_table/invalidation.hpp"
#include "moat/sync/concept.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <tuple>

namespace moat::iommu {

/// log2 of the blocks that translations are cached for: a page, or part of a large leaf.
inline constexpr unsigned small_block_lg2 = 12;
inline constexpr unsigned large_block_lg2 = 21;

/// log2 of the addresses that share a generation: several blocks, since invalidating a range costs
/// a locked instruction per generation, and neighbours are mostly unmapped together. The allocator
/// gives each thread the records of 64 KiB, so that threads seldom share one.
inline constexpr unsigned small_generation_lg2 = 16;
inline constexpr unsigned large_generation_lg2 = large_block_lg2;

/// The most small generations that an invalidation changes; it changes large ones for more bytes.
inline constexpr std::uint64_t most_small_generations = 4;

template <SyncPolicy Sync_>
class Generations {
  public:
    using Sync = Sync_;
    using Counter = typename Sync::template Atomic<std::uint64_t>;

    [[gnu::always_inline]] GracePeriod<Sync> invalidate(const InvalidationRequest<Iova>& request) {
        forget(request);
        return GracePeriod<Sync>(); // waits for accesses
    }

    void invalidate_all() {
        forget_all();
        wait_for_accesses();
    }

    /// Makes cached translations of the range stale, without waiting for accesses.
    [[gnu::always_inline]] void forget(const InvalidationRequest<Iova>& request) {
        constexpr std::uint64_t most = most_small_generations << small_generation_lg2;
        if (request.last.value() - request.start.value() < most) [[likely]]
            next(small_, request, small_generation_lg2); // it has no large leaf
        else
            next(large_, request, large_generation_lg2);
    }

    void forget_all() { forget({Iova(0), Iova(~std::uint64_t{0})}); }

    /// Not from inside a device's access.
    void wait_for_accesses() { Sync::synchronize(); }

    /// The generation of the large block that contains `address`; never 0.
    [[nodiscard, gnu::always_inline]] std::uint64_t large(std::uint64_t address) const {
        return at(large_, address >> large_generation_lg2).load(std::memory_order_acquire);
    }

    /// The generation of the small block that contains `address`, which is in its large block's
    /// generation `large`; never 0. Both counters only grow, so equal sums mean that neither has.
    [[nodiscard, gnu::always_inline]] std::uint64_t small(std::uint64_t address,
                                                          std::uint64_t large) const {
        return at(small_, address >> small_generation_lg2).load(std::memory_order_acquire) + large;
    }

  private:
    /// Invalidating a page makes its 15 neighbours, and one in 1024 other blocks, read the
    /// tables again.
    template <std::size_t N>
    struct alignas(64) Counters {
        std::array<Counter, N> each;

        Counters() {
            for (Counter& counter : each)
                counter.store(1, std::memory_order_relaxed);
        }
    };

    /// Nine apart, neighbouring blocks have counters in different cache lines, since threads that
    /// unmap at the same time have neighbouring blocks.
    template <class Counters>
    [[nodiscard, gnu::always_inline]] static auto& at(Counters& counters, std::uint64_t block) {
        return counters.each[block * 9 % std::tuple_size_v<decltype(counters.each)>];
    }

    template <std::size_t N>
    [[gnu::always_inline]] static void
    next(Counters<N>& counters, const InvalidationRequest<Iova>& request, unsigned generation_lg2) {
        const std::uint64_t first = request.start.value() >> generation_lg2;
        const std::uint64_t last = request.last.value() >> generation_lg2;
        at(counters, first).fetch_add(1, std::memory_order_acq_rel);
        if (last != first) [[unlikely]]
            next_of_more(counters, first, last);
    }

    template <std::size_t N>
    [[gnu::noinline]] static void next_of_more(Counters<N>& counters, std::uint64_t first,
                                               std::uint64_t last) {
        const std::uint64_t others = last - first < N ? last - first : N - 1;
        for (std::uint64_t i = 1; i <= others; ++i)
            at(counters, first + i).fetch_add(1, std::memory_order_acq_rel);
    }

    Counters<1024> small_;
    Counters<16> large_; ///< few: invalidate_all changes each
};

} // namespace moat::iommu
