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

namespace moat::iommu {

/// log2 of the blocks that translations are cached for: a page, or part of a large leaf.
inline constexpr unsigned small_block_lg2 = 12;
inline constexpr unsigned large_block_lg2 = 21;

/// log2 of the addresses that share a generation: several pages, since invalidating a range costs a
/// locked instruction per generation, and neighbours are mostly unmapped together.
inline constexpr unsigned small_generation_lg2 = 15;
inline constexpr unsigned large_generation_lg2 = large_block_lg2;

template <SyncPolicy Sync_>
class Generations {
  public:
    using Sync = Sync_;
    using Counter = typename Sync::template Atomic<std::uint64_t>;

    [[gnu::always_inline]] GracePeriod<Sync> invalidate(const InvalidationRequest<Iova>& request) {
        forget(request);
        return GracePeriod<Sync>(); // waits for accesses
    }

    [[gnu::always_inline]] void forget(const InvalidationRequest<Iova>& request) {
        next(small_, request, small_generation_lg2);
        if (request.last.value() - request.start.value() >= low_bits(large_block_lg2)) [[unlikely]]
            next(large_, request, large_generation_lg2); // a smaller range has no large leaf
    }

    /// Not from inside a device's access.
    void wait_for_accesses() { Sync::synchronize(); }

    /// The generation of the block that contains `address`; never 0.
    [[nodiscard, gnu::always_inline]] std::uint64_t small(std::uint64_t address) const {
        return at(small_, address >> small_generation_lg2).load(std::memory_order_acquire);
    }

    [[nodiscard, gnu::always_inline]] std::uint64_t large(std::uint64_t address) const {
        return at(large_, address >> large_generation_lg2).load(std::memory_order_acquire);
    }

  private:
    /// Invalidating a page makes its seven neighbours, and one in 1024 other blocks, read the
    /// tables again. Neighbouring blocks have counters in different cache lines, since threads that
    /// unmap at the same time have neighbouring blocks.
    template <std::size_t N>
    struct Counters {
        static constexpr std::size_t a_line = 8;
        static constexpr std::size_t lines = N / a_line;

        alignas(64) std::array<std::array<Counter, a_line>, lines> each;

        Counters() {
            for (auto& line : each)
                for (Counter& counter : line)
                    counter.store(1, std::memory_order_relaxed);
        }
    };

    template <class Counters>
    [[nodiscard, gnu::always_inline]] static auto& at(Counters& counters, std::uint64_t block) {
        return counters.each[block % Counters::lines][block / Counters::lines % Counters::a_line];
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
    Counters<64> large_;
};

} // namespace moat::iommu
