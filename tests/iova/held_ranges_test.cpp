// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Failed invalidations, started in every way: their ranges are held, counted and reported, and
// never allocated again.
#include "moat/core/text.hpp"
#include "moat/iova/allocator.hpp"
#include "moat/sync/serial.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <gtest/gtest.h>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace moat::iova {

namespace {

using namespace moat::literals;

/// SerialSync without memory for a queue while `no_queue` is set.
struct ShortSync : SerialSync {
    static inline bool no_queue = false;

    template <class T, class... Args>
    [[nodiscard]] static T* make(Args&&... args) {
        if (no_queue && sizeof(T) >= sizeof(Entry<ShortSync>) * 2 * Sizes<ShortSync>::lane_capacity)
            return nullptr;
        return SerialSync::make<T>(std::forward<Args>(args)...);
    }
};

static_assert(SyncPolicy<ShortSync>);

using ShortAllocator = Allocator<ShortSync>;

/// An invalidation hook that fails while `fails` is set, and a listener.
struct Hook {
    bool fails = false;
    int calls = 0;
    std::vector<IovaRange> held;   ///< reported to the listener
    std::vector<IovaRange> queued; ///< by tests that compare `held` with `lost`
    std::vector<IovaRange> lost;   ///< queued when an invalidation failed

    static Result<void> invalidate(void* context) {
        auto& self = *static_cast<Hook*>(context);
        ++self.calls;
        if (self.fails)
            self.lost.insert(self.lost.end(), self.queued.begin(), self.queued.end());
        self.queued.clear();
        if (self.fails)
            return fail(ErrorCode::io, "the test's unit does not answer");
        return {};
    }

    [[nodiscard]] Invalidation invalidation() { return {&invalidate, this}; }

    [[nodiscard]] HeldListener listener() {
        return {[](void* context, IovaRange range) {
                    static_cast<Hook*>(context)->held.push_back(range);
                },
                this};
    }
};

ErrorCode code_of(const auto& result) {
    EXPECT_FALSE(result.has_value());
    return result.has_value() ? ErrorCode::busy : result.error().code();
}

class IovaHeld : public ::testing::Test {
  protected:
    static constexpr IovaRange aperture{Iova(0), 64_MiB};
    static constexpr std::uint64_t delay = 1000;

    ~IovaHeld() override { ShortSync::no_queue = false; }

    ShortAllocator::Owner make(QuarantineBudget quarantine = {}) {
        auto made = ShortAllocator::create({.aperture = {&aperture, 1},
                                            .guard = {{}, 4_KiB},
                                            .quarantine = quarantine,
                                            .invalidation = hook.invalidation(),
                                            .flush_delay_nanoseconds = delay});
        EXPECT_TRUE(made.has_value());
        (*made)->set_held_listener(hook.listener());
        return std::move(*made);
    }

    Iova allocate(ByteCount size = 4_KiB) { return *allocator->allocate({.size = size}); }

    void release_later(Iova iova, ByteCount size = 4_KiB) {
        ASSERT_TRUE(allocator->release(iova, size, When::after_invalidation));
    }

    Hook hook;
    ShortAllocator::Owner allocator = make();
};

/// A way to start the invalidation of queued ranges.
struct Way {
    const char* name;
    std::function<ErrorCode(ShortAllocator&, const Hook&)> invalidate;
};

const std::vector<Way> ways = {
    {"flush", [](ShortAllocator& subject, const Hook&) { return code_of(subject.flush()); }},
    {"timer",
     [](ShortAllocator& subject, const Hook&) {
         SerialSync::advance(1000);
         return code_of(subject.flush()); // the flush after it finds the queue empty, and fails too
     }},
    {"full queue",
     [](ShortAllocator& subject, const Hook& hook) {
         while (hook.calls == 0) {
             const Iova more = *subject.allocate({.size = 4_KiB});
             EXPECT_TRUE(subject.release(more, 4_KiB, When::after_invalidation));
         }
         return code_of(subject.flush());
     }},
    {"no space",
     [](ShortAllocator& subject, const Hook&) {
         EXPECT_EQ(code_of(subject.allocate({.size = 63_MiB})), ErrorCode::no_space);
         return code_of(subject.flush());
     }},
};

TEST_F(IovaHeld, every_failed_invalidation_holds_the_queued_ranges) {
    for (const Way& way : ways)
        for (const QuarantineBudget quarantine :
             {QuarantineBudget{}, QuarantineBudget{1_MiB, 100}}) {
            SCOPED_TRACE(way.name);
            hook = {};
            allocator = make(quarantine);
            const Iova first = allocate(1_MiB);
            const Iova second = allocate();
            release_later(first, 1_MiB);
            release_later(second);
            hook.fails = true;
            EXPECT_EQ(way.invalidate(*allocator, hook), ErrorCode::io);
            hook.fails = false;
            EXPECT_TRUE(allocator->flush());
            const Stats stats = allocator->stats();
            EXPECT_EQ(stats.held_ranges, hook.held.size());
            EXPECT_GE(stats.held, 1_MiB + 4_KiB);
            EXPECT_GE(stats.failed_invalidations, 1U);
            EXPECT_EQ(stats.queued, 0_B);
            EXPECT_EQ(stats.live_ranges, 0U);
            for (const IovaRange range : {IovaRange(first, 1_MiB), IovaRange(second, 4_KiB)})
                EXPECT_EQ(std::ranges::count(hook.held, range), 1) << range;
            for (const IovaRange& each : hook.held) {
                EXPECT_EQ(code_of(allocator->allocate({.size = 4_KiB, .at = each.start()})),
                          ErrorCode::overlap);
                EXPECT_EQ(code_of(allocator->release(each.start(), each.size())),
                          ErrorCode::not_found);
                EXPECT_EQ(code_of(allocator->reserve(each)), ErrorCode::overlap);
            }
        }
}

TEST_F(IovaHeld, a_flush_after_a_failure_invalidates_again_and_once) {
    release_later(allocate());
    hook.fails = true;
    SerialSync::advance(delay);
    EXPECT_EQ(hook.calls, 1);
    EXPECT_EQ(code_of(allocator->flush()), ErrorCode::io) << "it repeats the failed invalidation";
    EXPECT_EQ(hook.calls, 2);
    hook.fails = false;
    EXPECT_TRUE(allocator->flush());
    EXPECT_TRUE(allocator->flush());
    EXPECT_EQ(hook.calls, 3);
    EXPECT_EQ(allocator->stats().held, 4_KiB) << "held stays held";
    EXPECT_EQ(allocator->stats().failed_invalidations, 2U);
}

TEST_F(IovaHeld, a_release_without_memory_for_a_queue_returns_the_error) {
    ShortSync::no_queue = true;
    const Iova iova = allocate();
    hook.fails = true;
    EXPECT_EQ(code_of(allocator->release(iova, 4_KiB, When::after_invalidation)), ErrorCode::io);
    EXPECT_EQ(hook.held, std::vector({IovaRange(iova, 4_KiB)}));
    EXPECT_EQ(allocator->stats().held, 4_KiB);
    hook.fails = false;
    EXPECT_TRUE(allocator->release(allocate(), 4_KiB, When::after_invalidation));
    EXPECT_EQ(allocator->stats().held, 4_KiB);
}

TEST_F(IovaHeld, a_caller_holds_a_live_range_and_no_other) {
    const Iova iova = allocate(8_KiB);
    EXPECT_EQ(code_of(allocator->hold(iova, 4_KiB)), ErrorCode::mismatch);
    EXPECT_EQ(code_of(allocator->hold(iova + 4_KiB, 4_KiB)), ErrorCode::not_found);
    EXPECT_EQ(code_of(allocator->hold(iova, 0_B)), ErrorCode::empty);
    EXPECT_EQ(allocator->stats().held, 0_B);
    EXPECT_TRUE(allocator->hold(iova, 8_KiB));
    EXPECT_EQ(allocator->stats().held, 8_KiB);
    EXPECT_EQ(allocator->stats().live_ranges, 0U);
    EXPECT_EQ(code_of(allocator->hold(iova, 8_KiB)), ErrorCode::not_found);
    EXPECT_EQ(code_of(allocator->release(iova, 8_KiB)), ErrorCode::not_found);
    EXPECT_TRUE(hook.held.empty()) << "only the hook's failures are reported";
}

TEST_F(IovaHeld, only_the_claim_can_release_a_claimed_range) {
    const Iova iova = allocate();
    for (int turn = 0; turn != 2; ++turn) { // a thread's first claim takes the slow path
        const auto claim = allocator->claim(iova, 4_KiB);
        ASSERT_TRUE(claim);
        EXPECT_EQ(code_of(allocator->claim(iova, 4_KiB)), ErrorCode::not_found);
        EXPECT_FALSE(allocator->try_claim(iova, 4_KiB));
        EXPECT_EQ(code_of(allocator->release(iova, 4_KiB)), ErrorCode::not_found);
        EXPECT_EQ(allocator->stats().live_ranges, 1U);
        allocator->unclaim(*claim);
    }
    const auto fast = allocator->try_claim(iova, 4_KiB);
    ASSERT_TRUE(fast);
    EXPECT_TRUE(allocator->try_release(fast));
    EXPECT_EQ(allocator->stats().live_ranges, 0U);
    EXPECT_EQ(code_of(allocator->release(iova, 4_KiB)), ErrorCode::not_found);
}

TEST_F(IovaHeld, wrong_releases_claims_and_holds_return_the_same_error) {
    const Iova iova = allocate(8_KiB);
    constexpr std::uint64_t most = ~std::uint64_t{0};
    for (const std::uint64_t size :
         {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{4096}, std::uint64_t{4097},
          std::uint64_t{8192}, std::uint64_t{8193}, std::uint64_t{1} << 63, most - 4095, most})
        for (const Iova at :
             {iova, iova + 1_B, iova + 4_KiB, Iova(0), Iova(most), Iova(1ULL << 63)}) {
            if (at == iova && size > 4096 && size <= 8192)
                continue;
            const ErrorCode expected = size == 0    ? ErrorCode::empty
                                       : at == iova ? ErrorCode::mismatch
                                                    : ErrorCode::not_found;
            EXPECT_EQ(code_of(allocator->release(at, ByteCount(size))), expected)
                << at << ' ' << size;
            EXPECT_EQ(code_of(allocator->claim(at, ByteCount(size))), expected)
                << at << ' ' << size;
            EXPECT_EQ(code_of(allocator->hold(at, ByteCount(size))), expected) << at << ' ' << size;
        }
    EXPECT_EQ(allocator->stats().live, 8_KiB);
    EXPECT_EQ(allocator->stats().held, 0_B);
    EXPECT_TRUE(allocator->release(iova, 8_KiB));
}

/// Random calls, checked against a record of every held byte.
class Random {
  public:
    Random(ShortAllocator& subject, Hook& hook, std::uint64_t seed)
        : subject_(subject), hook_(hook), random_(seed), total_(subject.stats().free) {}

    void step() {
        hook_.fails = pick(4) == 0;
        const std::uint64_t what = pick(20);
        if (what < 9)
            allocate();
        else if (what < 17)
            release();
        else if (what == 17)
            (void)subject_.flush();
        else if (what == 18)
            SerialSync::advance(pick(3000));
        else
            hold();
        note_held();
    }

    void finish() {
        while (!live_.empty())
            release();
        hook_.fails = false;
        EXPECT_TRUE(subject_.flush());
        subject_.rest();
        (void)subject_.allocate({.size = total_}); // returns cached ranges
        const Stats stats = subject_.stats();
        EXPECT_EQ(stats.live_ranges, 0U);
        EXPECT_EQ(stats.queued, 0_B);
        EXPECT_EQ(stats.quarantined, 0_B);
        EXPECT_EQ(stats.cached, 0_B);
        EXPECT_EQ(stats.held_ranges, held_.size());
        EXPECT_EQ(stats.held, held_bytes_);
        EXPECT_EQ(stats.free + stats.held + stats.guard, total_) << "nothing is lost";
        EXPECT_GT(held_.size(), 20U);
    }

  private:
    std::uint64_t pick(std::uint64_t below) { return random_() % below; }

    void allocate() {
        const ByteCount size(1 + pick(pick(4) == 0 ? 100000 : 9000));
        const auto got = pick(4) == 0 ? subject_.allocate({.size = size, .last = Iova(40 << 20)})
                                      : subject_.allocate({.size = size});
        note_held(); // a failing request flushes
        if (!got)
            return;
        const std::uint64_t end = got->value() + size.value();
        const auto above = held_.lower_bound(got->value());
        ASSERT_TRUE(above == held_.end() || above->first >= end) << "a held address is reused";
        ASSERT_TRUE(above == held_.begin() || std::prev(above)->second <= got->value())
            << "a held address is reused";
        live_.emplace_back(*got, size);
    }

    IovaRange take_any() {
        std::swap(live_[pick(live_.size())], live_.back());
        const IovaRange range = live_.back();
        live_.pop_back();
        return range;
    }

    void release() {
        if (live_.empty())
            return;
        const IovaRange range = take_any();
        const When when = pick(2) == 0 ? When::now : When::after_invalidation;
        ASSERT_TRUE(subject_.release(range.start(), range.size(), when));
        if (when == When::after_invalidation)
            hook_.queued.push_back(whole(range));
    }

    static IovaRange whole(IovaRange range) {
        return {range.start(), ByteCount((range.size().value() + 4095) & ~std::uint64_t{4095})};
    }

    void hold() {
        if (live_.empty())
            return;
        const IovaRange range = take_any();
        ASSERT_TRUE(subject_.hold(range.start(), range.size()));
        add(whole(range));
    }

    void note_held() {
        const auto start = [](const IovaRange& each) { return each.start(); };
        std::ranges::sort(hook_.held, {}, start);
        std::ranges::sort(hook_.lost, {}, start);
        ASSERT_EQ(hook_.held, hook_.lost)
            << "exactly the ranges whose invalidation failed are held";
        for (const IovaRange& each : hook_.lost)
            add(each);
        hook_.held.clear();
        hook_.lost.clear();
        ASSERT_EQ(subject_.stats().held, held_bytes_);
    }

    void add(IovaRange range) {
        ASSERT_TRUE(held_.emplace(range.start().value(), range.end().value()).second);
        held_bytes_ += range.size();
    }

    ShortAllocator& subject_;
    Hook& hook_;
    std::mt19937_64 random_;
    ByteCount total_;
    std::vector<IovaRange> live_;
    std::map<std::uint64_t, std::uint64_t> held_; ///< start to end
    ByteCount held_bytes_{};
};

TEST_F(IovaHeld, no_held_address_comes_back_whatever_happens) {
    std::vector<std::uint64_t> seeds = {1, 2, 3, 4, 5, 6};
    if (const char* chosen = std::getenv("MOAT_SEED"))
        seeds = {std::strtoull(chosen, nullptr, 0)};
    for (const std::uint64_t seed : seeds)
        for (const QuarantineBudget quarantine :
             {QuarantineBudget{}, QuarantineBudget{1_MiB, 100}}) {
            SCOPED_TRACE("MOAT_SEED=" + std::to_string(seed));
            hook = {};
            allocator = make(quarantine);
            Random random(*allocator, hook, seed);
            for (int i = 0; i != 3000 && !HasFatalFailure(); ++i)
                random.step();
            random.finish();
        }
}

} // namespace

} // namespace moat::iova
