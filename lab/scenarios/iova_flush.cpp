// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped flush queue of the IOVA allocator under the explorer: threads queue ranges while
// others flush. The property: a range is released after an invalidation that began after its push.
// iova.cpp explores the whole allocator.
#include "moat/iova/flush_queue.hpp"

#include "lab/scenarios/iova_syncs.hpp"
#include "lab/scenarios/scenario.hpp"

#include <array>

namespace moat::scenarios {

namespace iova_flush {

namespace {

constexpr unsigned most_ranges = 8;

/// A shard that holds every queued range.
struct RoomyShard : iova_syncs::SmallSizes {
    static constexpr std::uint32_t shard_capacity = most_ranges;
};

/// Its type selects RoomyShard.
struct Locked : ExploredSync {};

/// Locks that exclude nobody.
struct Unlocked : ExploredSync {
    struct MOAT_CAPABILITY("mutex") Mutex : explored::Mutex {
        void lock() MOAT_ACQUIRE() {}

        bool try_lock() MOAT_TRY_ACQUIRE(true) { return true; }

        void unlock() MOAT_RELEASE() {}
    };
};

} // namespace

} // namespace iova_flush

} // namespace moat::scenarios

namespace moat::iova {

template <>
struct Sizes<scenarios::iova_flush::Locked> : scenarios::iova_flush::RoomyShard {
    using ShardLock = ExploredSync::Mutex;
};

template <>
struct Sizes<scenarios::iova_flush::Unlocked> : scenarios::iova_flush::RoomyShard {
    using ShardLock = scenarios::iova_flush::Unlocked::Mutex;
};

} // namespace moat::iova

namespace moat::scenarios {

namespace iova_flush {

namespace {

template <class Sync>
struct World {
    using Queue = iova::FlushQueue<Sync>;

    Queue queue{{.invalidate = &invalidate, .context = this}};
    /// Invalidations that have begun.
    ExploredSync::Atomic<std::uint64_t> begun{0};
    /// By range, one more than `begun` when it was queued; 0: it was not.
    std::array<ExploredSync::Atomic<std::uint64_t>, most_ranges> queued_at{};
    std::array<ExploredSync::Atomic<std::uint64_t>, most_ranges> let_go{};

    static Result<void> invalidate(void* world) {
        static_cast<World*>(world)->begun.fetch_add(1, std::memory_order_seq_cst);
        return {};
    }
};

template <class Sync>
void queue_range(World<Sync>& world, unsigned i) {
    world.queued_at[i].store(world.begun.load(std::memory_order_seq_cst) + 1,
                             std::memory_order_seq_cst);
    const auto pushed = world.queue.push(0, {.start = Iova(std::uint64_t{i} << 12)});
    ExploredSync::check(pushed == World<Sync>::Queue::Pushed::done, "the queue has room");
}

template <class Sync>
void flush(World<Sync>& world) {
    const auto release = [&world](unsigned, auto ranges) {
        for (const auto& each : ranges) {
            const auto i = static_cast<std::size_t>(each.start.value() >> 12);
            ExploredSync::check(world.begun.load(std::memory_order_seq_cst) >=
                                    world.queued_at[i].load(std::memory_order_seq_cst),
                                "a range is let go before an invalidation began behind it");
            const std::uint64_t before = world.let_go[i].fetch_add(1, std::memory_order_seq_cst);
            ExploredSync::check(before == 0, "a range is let go twice");
        }
    };
    const auto hold = [](auto) { ExploredSync::check(false, "no invalidation fails"); };
    (void)world.queue.flush(release, hold);
}

template <class Sync>
[[nodiscard]] explore::Program program_with(const Configuration& text) {
    const unsigned queuers = number(text, "queuers");
    const unsigned flushers = number(text, "flushers");
    return [queuers, flushers](explore::Setup& setup) {
        auto& world = setup.make<World<Sync>>();
        for (unsigned i = 0; i != queuers; ++i)
            setup.thread("queuer", [&world, i] { queue_range(world, i); });
        for (unsigned i = 0; i != flushers; ++i)
            setup.thread("flusher", [&world] { flush(world); });
        setup.at_end([&world, queuers] {
            flush(world);
            for (unsigned i = 0; i != queuers; ++i)
                ExploredSync::check(world.let_go[i].load(std::memory_order_seq_cst) == 1,
                                    "a queued range is lost");
        });
    };
}

[[nodiscard]] explore::Program program(const Configuration& text) {
    return text.at("variant") == "unlocked" ? program_with<Unlocked>(text)
                                            : program_with<Locked>(text);
}

} // namespace

} // namespace iova_flush

Scenario iova_flush_scenario() {
    return {
        .name = "iova-flush",
        .summary = "the shipped flush queue: no range is released before its invalidation",
        .parameters =
            {{.name = "queuers", .preset = "1", .help = "threads that queue a range", .most = 4},
             {.name = "flushers", .preset = "1", .help = "threads that flush", .most = 3},
             {.name = "variant",
              .preset = "shipped",
              .help = "the shipped queue, or locks that do not exclude",
              .values = {"shipped", "unlocked"}}},
        .program = &iova_flush::program,
        .scope = [](const Configuration& text) {
            return "iova-flush " + text.at("variant") + ": " +
                   counted(number(text, "queuers"), "queuer") + " of a range each, " +
                   counted(number(text, "flushers"), "flusher") + ", one shard";
        }};
}

} // namespace moat::scenarios
