// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Shared shelves between the threads' magazines and the central lock: ranges by exact payload size.
// Ranges released on one thread travel in batches to the thread that allocates.
//
// A thread puts into its own shelf and takes from it. It takes from another shelf only if that is
// well filled, as when one thread allocates what the other releases. Otherwise fresh ranges are
// better: the records of neighbouring ranges share a cache line, which two threads would fight for.
#pragma once

#include "moat/iova/detail/central.hpp"
#include "moat/iova/detail/magazine.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

namespace moat::iova {

template <SyncPolicy Sync>
class Depot {
  public:
    using Range = Entry<Sync>;

    static constexpr std::uint32_t bin_capacity = Sizes<Sync>::bin_capacity;
    static constexpr unsigned shelves = Sizes<Sync>::shelves;
    static constexpr std::uint64_t most_cached_pages = Sizes<Sync>::most_cached_pages;

    /// A shelf holds at most `most_pages` pages of payload and guard, `guard_pages` a range.
    Depot(std::uint64_t most_pages, std::uint64_t guard_pages)
        : most_pages_(most_pages), guard_pages_(guard_pages) {}

    ~Depot() {
        for (auto& each : shelves_)
            if (Shelf* const shelf = each.load(std::memory_order_relaxed))
                Sync::destroy(shelf);
    }

    Depot(const Depot&) = delete;
    Depot& operator=(const Depot&) = delete;

    /// Return: how many of `ranges` it stored, from the front; the others stay the caller's.
    [[nodiscard]] std::uint32_t put(unsigned shelf, std::uint64_t payload,
                                    std::span<const Range> ranges) {
        Shelf* const own = find_or_make(shelves_[shelf % shelves]);
        Bin* const bin = own != nullptr ? find_or_make(own->bins[payload - 1]) : nullptr;
        if (bin == nullptr)
            return 0;
        const std::uint64_t each = payload + guard_pages_;
        const ExclusiveLock lock(bin->mutex);
        const std::uint32_t count = bin->count.read();
        const auto taken = static_cast<std::uint32_t>(
            std::min<std::uint64_t>(ranges.size(), bin_capacity - count));
        const std::uint64_t before =
            own->held_pages.fetch_add(taken * each, std::memory_order_relaxed);
        if (before + taken * each > most_pages_) {
            own->held_pages.fetch_sub(taken * each, std::memory_order_relaxed);
            return 0;
        }
        for (std::uint32_t i = 0; i != taken; ++i)
            bin->ranges[count + i] = ranges[i];
        bin->count.write(count + taken);
        return taken;
    }

    enum class From : std::uint8_t { own_or_well_filled, any };

    /// Takes ranges of one size from one shelf: `shelf`, or the next that `from` allows.
    /// Return: how many.
    [[nodiscard]] std::uint32_t get(unsigned shelf, From from, std::uint64_t payload,
                                    std::span<Range> ranges) {
        std::uint32_t least = 1;
        for (unsigned i = 0; i != shelves; ++i) {
            Shelf* const own = shelves_[(shelf + i) % shelves].load(std::memory_order_acquire);
            if (own != nullptr)
                if (const std::uint32_t given = get_from(*own, least, payload, ranges))
                    return given;
            if (from == From::own_or_well_filled)
                least = bin_capacity / 4 * 3;
        }
        return 0;
    }

    [[nodiscard]] bool empty() const {
        return std::ranges::all_of(shelves_, [](auto& each) {
            const Shelf* const shelf = each.load(std::memory_order_acquire);
            return shelf == nullptr || shelf->held_pages.load(std::memory_order_relaxed) == 0;
        });
    }

    /// Calls visit(payload, count) for each size.
    template <class Visit>
    void visit(Visit&& visit) {
        for (auto& each : shelves_)
            if (Shelf* const shelf = each.load(std::memory_order_acquire))
                for (std::uint64_t payload = 1; payload <= most_cached_pages; ++payload)
                    if (Bin* const bin = shelf->bins[payload - 1].load(std::memory_order_acquire)) {
                        const ExclusiveLock lock(bin->mutex);
                        visit(payload, bin->count.read());
                    }
    }

  private:
    struct Bin {
        typename Sync::Mutex mutex;
        typename Sync::template Plain<std::uint32_t> count MOAT_GUARDED_BY(mutex){};
        std::array<Range, bin_capacity> ranges MOAT_GUARDED_BY(mutex){};
    };

    struct alignas(64) Shelf {
        Shelf() = default;
        Shelf(const Shelf&) = delete;
        Shelf& operator=(const Shelf&) = delete;

        ~Shelf() {
            for (auto& each : bins)
                if (Bin* const bin = each.load(std::memory_order_relaxed))
                    Sync::destroy(bin);
        }

        mutable typename Sync::template Atomic<std::uint64_t> held_pages{0};
        std::array<typename Sync::template Atomic<Bin*>, most_cached_pages> bins{};
    };

    [[nodiscard]] std::uint32_t get_from(Shelf& shelf, std::uint32_t least, std::uint64_t payload,
                                         std::span<Range> ranges) {
        Bin* const bin = shelf.bins[payload - 1].load(std::memory_order_acquire);
        if (bin == nullptr)
            return 0;
        const ExclusiveLock lock(bin->mutex);
        const std::uint32_t count = bin->count.read();
        if (count < least)
            return 0;
        const auto given =
            static_cast<std::uint32_t>(std::min<std::uint64_t>(ranges.size(), count));
        for (std::uint32_t i = 0; i != given; ++i)
            ranges[i] = bin->ranges[count - given + i];
        bin->count.write(count - given);
        shelf.held_pages.fetch_sub(given * (payload + guard_pages_), std::memory_order_relaxed);
        return given;
    }

    template <class T>
    [[nodiscard]] static T* find_or_make(typename Sync::template Atomic<T*>& place) {
        T* found = place.load(std::memory_order_acquire);
        if (found != nullptr)
            return found;
        T* const made = Sync::template make<T>();
        if (made == nullptr)
            return nullptr;
        if (place.compare_exchange_strong(found, made, std::memory_order_acq_rel,
                                          std::memory_order_acquire))
            return made;
        Sync::destroy(made);
        return found;
    }

    const std::uint64_t most_pages_;
    const std::uint64_t guard_pages_;
    mutable std::array<typename Sync::template Atomic<Shelf*>, shelves> shelves_{};
};

} // namespace moat::iova
