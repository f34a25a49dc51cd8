// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What threads share between their magazines and the central lock: ranges by exact payload size.
// A range freed on one thread reaches the thread that allocates through here, in batches.
#pragma once

#include "moat/iova/central.hpp"
#include "moat/iova/magazine.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

namespace moat::iova {

template <SyncPolicy Sync>
class Depot {
  public:
    using Range = Entry<Sync>;

    static constexpr std::uint32_t bin_capacity = 128;

    /// Holds no more than `most_pages` pages of payload and guard together; a size with its guard
    /// takes `guard_pages` more than its payload.
    Depot(std::uint64_t most_pages, std::uint64_t guard_pages)
        : most_pages_(most_pages), guard_pages_(guard_pages) {}

    ~Depot() {
        for (auto& each : bins_)
            if (Bin* const bin = each.load(std::memory_order_relaxed))
                Sync::destroy(bin);
    }

    Depot(const Depot&) = delete;
    Depot& operator=(const Depot&) = delete;

    /// Return: how many of `ranges`, from the front, it took in; the others stay the caller's.
    [[nodiscard]] std::uint32_t put(std::uint64_t payload, std::span<const Range> ranges) {
        Bin* const bin = find_or_make(payload);
        if (bin == nullptr)
            return 0;
        const std::uint64_t each = payload + guard_pages_;
        const ExclusiveLock lock(bin->mutex);
        const std::uint32_t count = bin->count.read();
        auto taken = static_cast<std::uint32_t>(
            std::min<std::uint64_t>(ranges.size(), bin_capacity - count));
        const std::uint64_t before = held_pages_.fetch_add(taken * each, std::memory_order_relaxed);
        if (before + taken * each > most_pages_) {
            held_pages_.fetch_sub(taken * each, std::memory_order_relaxed);
            return 0;
        }
        for (std::uint32_t i = 0; i != taken; ++i)
            bin->ranges[count + i] = ranges[i];
        bin->count.write(count + taken);
        return taken;
    }

    /// Return: how many ranges of this size it gave out.
    [[nodiscard]] std::uint32_t get(std::uint64_t payload, std::span<Range> ranges) {
        Bin* const bin = bins_[payload].load(std::memory_order_acquire);
        if (bin == nullptr)
            return 0;
        const ExclusiveLock lock(bin->mutex);
        const std::uint32_t count = bin->count.read();
        const auto given =
            static_cast<std::uint32_t>(std::min<std::uint64_t>(ranges.size(), count));
        for (std::uint32_t i = 0; i != given; ++i)
            ranges[i] = bin->ranges[count - given + i];
        bin->count.write(count - given);
        if (given != 0)
            held_pages_.fetch_sub(given * (payload + guard_pages_), std::memory_order_relaxed);
        return given;
    }

    [[nodiscard]] bool empty() const { return held_pages_.load(std::memory_order_relaxed) == 0; }

    /// Calls visit(payload, count) for each size that it holds.
    template <class Visit>
    void visit(Visit&& visit) {
        for (std::uint64_t payload = 1; payload != bins_.size(); ++payload)
            if (Bin* const bin = bins_[payload].load(std::memory_order_acquire)) {
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

    [[nodiscard]] Bin* find_or_make(std::uint64_t payload) {
        Bin* found = bins_[payload].load(std::memory_order_acquire);
        if (found != nullptr)
            return found;
        Bin* const made = Sync::template make<Bin>();
        if (made == nullptr)
            return nullptr;
        if (bins_[payload].compare_exchange_strong(found, made, std::memory_order_acq_rel,
                                                   std::memory_order_acquire))
            return made;
        Sync::destroy(made);
        return found;
    }

    const std::uint64_t most_pages_;
    const std::uint64_t guard_pages_;
    mutable typename Sync::template Atomic<std::uint64_t> held_pages_{0};
    std::array<typename Sync::template Atomic<Bin*>, most_cached_pages + 1> bins_{};
};

} // namespace moat::iova
