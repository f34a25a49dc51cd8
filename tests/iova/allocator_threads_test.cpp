// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Threads that come and go, releases on other threads, flushes beside them; also run under
// ThreadSanitizer. A map of pages records owners, so that two owners of a page are detected.
#include "moat/core/text.hpp"
#include "moat/iova/allocator.hpp"
#include "moat/sync/real.hpp"

#include <atomic>
#include <deque>
#include <gtest/gtest.h>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <thread>
#include <vector>

namespace moat::iova {

namespace {

using ThreadedAllocator = Allocator<RealSync>;

struct Range {
    Iova start;
    ByteCount size;
};

/// Who owns which page.
class Owners {
  public:
    explicit Owners(std::uint64_t pages) : owned_(pages) {}

    void take(const Range& range) { mark(range, 0, 1, "two owners of a page"); }

    void give(const Range& range) { mark(range, 1, 0, "a page without its owner"); }

  private:
    void mark(const Range& range, int from, int to, const char* wrong) {
        for (std::uint64_t page = range.start.value() >> 12;
             page << 12 < range.start.value() + range.size.value(); ++page)
            if (owned_[page].exchange(to, std::memory_order_relaxed) != from)
                ADD_FAILURE() << wrong << ": " << hexadecimal(page << 12);
    }

    std::vector<std::atomic<int>> owned_;
};

/// Ranges on their way to the thread that releases them.
class Exchange {
  public:
    void put(const Range& range) {
        const std::lock_guard lock(mutex_);
        ranges_.push_back(range);
    }

    std::optional<Range> get() {
        const std::lock_guard lock(mutex_);
        if (ranges_.empty())
            return std::nullopt;
        const Range range = ranges_.front();
        ranges_.pop_front();
        return range;
    }

  private:
    std::mutex mutex_;
    std::deque<Range> ranges_;
};

struct World {
    explicit World(std::uint64_t bytes, const QuarantineBudget& quarantine = {})
        : owners(bytes >> 12) {
        const IovaRange aperture(Iova(0), ByteCount(bytes));
        auto made = ThreadedAllocator::create({.aperture = {&aperture, 1},
                                               .guard = {{}, ByteCount(8192)},
                                               .quarantine = quarantine,
                                               .invalidation = {&invalidate, this},
                                               .flush_delay_nanoseconds = 50'000});
        EXPECT_TRUE(made.has_value());
        allocator = std::move(*made);
        free_at_start = allocator->stats().free;
    }

    static Result<void> invalidate(void* world) {
        static_cast<World*>(world)->invalidations.fetch_add(1, std::memory_order_relaxed);
        return {};
    }

    void release(const Range& range, When when) {
        owners.give(range);
        const auto released = allocator->release(range.start, range.size, when);
        if (!released)
            ADD_FAILURE() << to_string(released.error());
    }

    /// One thread's life.
    void work(std::uint64_t seed, int steps) {
        std::mt19937_64 random(seed);
        std::vector<Range> own;
        for (int i = 0; i != steps; ++i) {
            const std::uint64_t what = random() % 16;
            if (what < 7) {
                const ByteCount size(1 + random() % (random() % 50 == 0 ? 4'000'000 : 60'000));
                const auto got = allocator->allocate({.size = size});
                if (!got) {
                    EXPECT_EQ(got.error().code(), ErrorCode::no_space);
                    continue;
                }
                owners.take({*got, size});
                own.push_back({*got, size});
            } else if (what < 10 && !own.empty()) {
                release(own.back(), When::now);
                own.pop_back();
            } else if (what < 12 && !own.empty()) {
                release(own.back(), When::after_invalidation);
                own.pop_back();
            } else if (what < 14 && !own.empty()) {
                exchange.put(own.front());
                own.erase(own.begin());
            } else if (what == 14) {
                if (const auto other = exchange.get())
                    release(*other, When::now);
            } else if (random() % 64 == 0) {
                EXPECT_TRUE(allocator->flush());
                (void)allocator->stats();
            }
        }
        for (const Range& each : own)
            exchange.put(each);
    }

    void expect_all_back() {
        while (const auto range = exchange.get())
            release(*range, When::now);
        EXPECT_TRUE(allocator->flush());
        allocator->rest();
        (void)allocator->allocate({.size = ByteCount(free_at_start.value())}).has_value();
        const Stats stats = allocator->stats();
        EXPECT_EQ(stats.live_ranges, 0U);
        EXPECT_EQ(stats.free, free_at_start);
    }

    Owners owners;
    Exchange exchange;
    std::atomic<int> invalidations{0};
    ThreadedAllocator::Owner allocator;
    ByteCount free_at_start{};
};

void run_in_turns(World& world, int rounds, int threads, int steps) {
    for (int round = 0; round != rounds; ++round) {
        std::vector<std::jthread> running;
        for (int i = 0; i != threads; ++i)
            running.emplace_back([&world, round, i, steps] {
                world.work(static_cast<std::uint64_t>(round) * 100 + static_cast<unsigned>(i),
                           steps);
            });
    }
}

TEST(IovaThreads, come_and_go) {
    World world(std::uint64_t{1} << 32);
    run_in_turns(world, 8, 4, 4000);
    world.expect_all_back();
    EXPECT_GT(world.invalidations.load(), 0);
}

TEST(IovaThreads, share_an_aperture_that_is_nearly_full) {
    World world(32 << 20);
    run_in_turns(world, 8, 4, 4000);
    world.expect_all_back();
}

TEST(IovaThreads, share_a_quarantine) {
    World world(std::uint64_t{1} << 30, {.bytes = ByteCount(8 << 20), .entries = 500});
    run_in_turns(world, 4, 4, 4000);
    world.expect_all_back();
}

/// Ranges in the cache of a finished thread are available to the others at once.
TEST(IovaThreads, leave_nothing_behind) {
    World world(std::uint64_t{1} << 28);
    std::thread([&world] {
        std::vector<Range> own;
        for (std::uint64_t pages = 1; pages != 64; ++pages)
            own.push_back({*world.allocator->allocate({.size = ByteCount(pages << 12)}),
                           ByteCount(pages << 12)});
        for (const Range& each : own)
            ASSERT_TRUE(world.allocator->release(each.start, each.size).has_value());
    }).join();
    EXPECT_EQ(world.allocator->stats().private_to_threads, ByteCount(0));
    world.expect_all_back();
}

/// The protocol at the head of caches.hpp: another thread returns its cache at its next call.
TEST(IovaThreads, return_their_caches_when_space_is_short) {
    World world(std::uint64_t{1} << 28);
    const ByteCount all = world.free_at_start - ByteCount(12288);
    std::atomic<int> turn{0};
    const auto wait_for = [&turn](int wanted) {
        while (turn.load(std::memory_order_acquire) != wanted)
            std::this_thread::yield();
    };
    std::jthread other([&] {
        const auto range = world.allocator->allocate({.size = ByteCount(8192)});
        ASSERT_TRUE(world.allocator->release(*range, ByteCount(8192)).has_value());
        turn.store(1, std::memory_order_release);
        wait_for(2);
        // The size that it has cached, so that only a closed magazine leaves the fast path.
        const auto one = world.allocator->allocate({.size = ByteCount(8192)});
        ASSERT_TRUE(one.has_value());
        ASSERT_TRUE(world.allocator->release(*one, ByteCount(8192)).has_value());
        turn.store(3, std::memory_order_release);
        wait_for(4);
    });
    wait_for(1);
    EXPECT_FALSE(world.allocator->allocate({.size = all}).has_value());
    EXPECT_NE(world.allocator->stats().private_to_threads, ByteCount(0));
    turn.store(2, std::memory_order_release);
    wait_for(3);
    EXPECT_EQ(world.allocator->stats().private_to_threads, ByteCount(0));
    EXPECT_TRUE(world.allocator->allocate({.size = all}).has_value());
    turn.store(4, std::memory_order_release);
}

/// How many of the first addresses that another thread gets were the caller's a moment ago.
std::size_t handed_on(std::size_t released, std::size_t asked) {
    const IovaRange space(Iova(0), ByteCount(std::uint64_t{1} << 40));
    const auto allocator = *ThreadedAllocator::create({.aperture = {&space, 1}});
    const ByteCount page(4096);
    std::set<std::uint64_t> released_before;
    for (std::size_t i = 0; i != released; ++i)
        released_before.insert(allocator->allocate({.size = page})->value());
    for (const std::uint64_t each : released_before)
        EXPECT_TRUE(allocator->release(Iova(each), page).has_value());
    std::size_t same = 0;
    std::thread([&] {
        for (std::size_t i = 0; i != asked; ++i)
            same += released_before.contains(allocator->allocate({.size = page})->value()) ? 1 : 0;
    }).join();
    return same;
}

/// Neighbours share cache lines of records; see depot.hpp.
TEST(IovaThreads, keep_to_their_own_ranges) {
    EXPECT_EQ(handed_on(200, 100), 0U);
}

TEST(IovaThreads, pass_on_what_one_of_them_has_plenty_of) {
    EXPECT_GT(handed_on(400, 100), 0U);
}

} // namespace

} // namespace moat::iova
