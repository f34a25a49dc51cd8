// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The programs of the iova-flush scenario: threads queue ranges in lanes of two, while others
// flush, or while a timer does. Instantiated by iova_flush.cpp with the shipped headers, and by
// mutants/iova_flush.cpp with mutated copies of them.
#pragma once

#include "moat/iova/allocator.hpp"
#include "moat/iova/flush_queue.hpp"

#include "lab/scenarios/iova_syncs.hpp"
#include "lab/scenarios/scenario.hpp"

#include <array>

namespace moat::scenarios::iova_flush {

inline constexpr unsigned most_ranges = 20;

/// A timer that fires when the program lets it.
template <class Sync>
struct WithAlarm : Sync {
    class Timer {
      public:
        Timer(void (*callback)(void*), void* context) : callback_(callback), context_(context) {
            only = this;
        }

        void arm(std::uint64_t) { armed_.store(true, std::memory_order_seq_cst); }

        void cancel() { armed_.store(false, std::memory_order_seq_cst); }

        /// Return: whether it was armed.
        bool fire() {
            const bool armed = armed_.exchange(false, std::memory_order_seq_cst);
            if (armed)
                callback_(context_);
            return armed;
        }

        /// The world's, set by the program's set-up.
        static inline thread_local Timer* only;

      private:
        void (*callback_)(void*);
        void* context_;
        ExploredSync::Atomic<bool> armed_{false};
    };
};

template <class Policy>
struct World {
    using Sync = WithAlarm<Policy>;
    using Queue = iova::FlushQueue<Sync>;
    using Timer = typename Sync::Timer;

    iova::FlushLanes<Sync> lanes;
    Queue queue{lanes, {.invalidate = &invalidate, .context = this}};
    iova::FlushTimer<Sync> flush_timer{1, &time_is_up, this};
    Timer& alarm = *Timer::only;
    /// Invalidations that have begun.
    ExploredSync::Atomic<std::uint64_t> begun{0};
    /// By range, one more than `begun` when it was queued.
    std::array<ExploredSync::Atomic<std::uint64_t>, most_ranges> queued_at{};
    std::array<ExploredSync::Atomic<std::uint64_t>, most_ranges> released{};

    static Result<void> invalidate(void* world) {
        static_cast<World*>(world)->begun.fetch_add(1, std::memory_order_seq_cst);
        return {};
    }

    static void time_is_up(void* world) { static_cast<World*>(world)->flush(); }

    void flush(typename Queue::Lane* full = nullptr) {
        const auto release = [this](unsigned, auto ranges) {
            ExploredSync::check(ranges.size() <= Queue::Lane::capacity,
                                "a flush takes more than a lane holds");
            for (const auto& each : ranges)
                release_one(static_cast<std::size_t>(each.start.value() >> 12));
        };
        const auto hold = [](auto) { ExploredSync::check(false, "no invalidation fails"); };
        (void)(full != nullptr ? queue.flush(*full, release, hold) : queue.flush(release, hold));
    }

    void release_one(std::size_t i) {
        ExploredSync::check(begun.load(std::memory_order_seq_cst) >=
                                queued_at[i].load(std::memory_order_seq_cst),
                            "a range is released before an invalidation that began after its push");
        const std::uint64_t before = released[i].fetch_add(1, std::memory_order_seq_cst);
        ExploredSync::check(before == 0, "a range is released twice");
    }

    /// Queues `count` ranges from `first` on, in a lane of the caller's.
    void queue_ranges(unsigned first, unsigned count, bool timed) {
        auto* const lane = lanes.adopt(0);
        ExploredSync::check(lane != nullptr, "there is memory for a lane");
        for (unsigned i = first; i != first + count; ++i) {
            queued_at[i].store(begun.load(std::memory_order_seq_cst) + 1,
                               std::memory_order_seq_cst);
            while (!lane->push({.start = Iova(std::uint64_t{i} << 12)}, 1))
                flush(lane);
            if (timed)
                flush_timer.arm();
        }
        lane->abandon();
    }
};

template <class Sync>
[[nodiscard]] explore::Program program_with(const Configuration& text) {
    const unsigned queuers = number(text, "queuers");
    const unsigned ranges = number(text, "ranges");
    const unsigned flushers = number(text, "flushers");
    const unsigned alarms = number(text, "alarms");
    return [queuers, ranges, flushers, alarms](explore::Setup& setup) {
        auto& world = setup.make<World<Sync>>();
        for (unsigned i = 0; i != queuers; ++i)
            setup.thread("queuer", [&world, i, ranges, alarms] {
                world.queue_ranges(i * ranges, ranges, alarms != 0);
            });
        for (unsigned i = 0; i != flushers; ++i)
            setup.thread("flusher", [&world] { world.flush(); });
        if (alarms != 0)
            setup.thread("timer", [&world, alarms] {
                for (unsigned i = 0; i != alarms; ++i)
                    world.alarm.fire();
            });
        setup.at_end([&world, queuers, ranges, alarms] {
            if (alarms == 0)
                world.flush();
            while (world.alarm.fire()) { // time passes, and all stores are visible
            }
            for (unsigned i = 0; i != queuers * ranges; ++i)
                ExploredSync::check(world.released[i].load(std::memory_order_seq_cst) == 1,
                                    "a queued range is left behind");
        });
    };
}

} // namespace moat::scenarios::iova_flush
