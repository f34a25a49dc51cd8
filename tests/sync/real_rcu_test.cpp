// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RealSync's RCU between threads. Nothing sleeps: threads meet at atomics and latches, and repeat
// the scenario in which a grace period that ends early shows, as often as a test may take.
#include "moat/sync/real.hpp"

#include "eventually.hpp"

#include <atomic>
#include <cstdint>
#include <gtest/gtest.h>
#include <latch>
#include <thread>
#include <vector>

namespace {

using namespace moat;
using tests::eventually;

std::size_t slots_in_use_or_free() {
    std::size_t count = 0;
    for (const epoch::Slot* each = epoch::domain.slots.load(); each != nullptr; each = each->next)
        ++count;
    return count;
}

void in_a_thread(const auto& work) {
    std::thread(work).join();
}

TEST(GracePeriod, outlasts_a_section_that_was_open) {
    constexpr int rounds = 100;
    for (int round = 0; round != rounds; ++round) {
        std::latch section_open(1);
        std::atomic<bool> about_to_wait{false};
        std::atomic<bool> section_done{false};
        std::thread reader([&] {
            const RealSync::ReadSection reading;
            section_open.count_down();
            while (!about_to_wait.load(std::memory_order_relaxed))
                RealSync::yield();
            for (int i = 0; i != 3; ++i) // a grace period that does not wait would win
                RealSync::yield();
            section_done.store(true, std::memory_order_relaxed);
        });
        section_open.wait();
        about_to_wait.store(true, std::memory_order_relaxed);
        RealSync::synchronize();
        // Relaxed: synchronize promises that the section happened before.
        EXPECT_TRUE(section_done.load(std::memory_order_relaxed)) << "round " << round;
        reader.join();
    }
}

TEST(GracePeriod, outlasts_a_section_of_a_thread_that_was_idle) {
    std::latch section_closed(1);
    std::latch was_idle(1);
    std::latch section_open(1);
    std::atomic<bool> about_to_wait{false};
    std::atomic<bool> section_done{false};
    std::thread reader([&] {
        {
            const RealSync::ReadSection earlier;
        }
        section_closed.count_down();
        was_idle.wait();
        const RealSync::ReadSection reading;
        section_open.count_down();
        while (!about_to_wait.load(std::memory_order_relaxed))
            RealSync::yield();
        for (int i = 0; i != 100; ++i) // a grace period that does not wait would win
            RealSync::yield();
        section_done.store(true, std::memory_order_relaxed);
    });
    section_closed.wait();
    for (int i = 0; i != 128; ++i) // its slot leaves the list
        RealSync::synchronize();
    was_idle.count_down();
    section_open.wait();
    about_to_wait.store(true, std::memory_order_relaxed);
    RealSync::synchronize();
    EXPECT_TRUE(section_done.load(std::memory_order_relaxed));
    reader.join();
}

TEST(GracePeriod, does_not_wait_for_sections_that_begin_later) {
    {
        const RealSync::ReadSection reading; // now a grace period visits this thread's slot last
    }
    std::latch earlier_is_open(1);
    std::latch earlier_may_close(1);
    std::thread earlier([&] {
        const RealSync::ReadSection reading;
        earlier_is_open.count_down();
        earlier_may_close.wait();
    });
    earlier_is_open.wait();
    std::atomic<bool> over{false};
    const std::uint64_t before = epoch::domain.readers.epoch();
    std::thread waiter([&] {
        RealSync::synchronize();
        over.store(true, std::memory_order_relaxed);
    });
    EXPECT_TRUE(eventually([&] { return epoch::domain.readers.epoch() != before; }));
    {
        const RealSync::ReadSection later;
        EXPECT_FALSE(over.load(std::memory_order_relaxed)) << "the earlier section is open";
        earlier_may_close.count_down();
        EXPECT_TRUE(eventually([&] { return over.load(std::memory_order_relaxed); }));
    }
    waiter.join();
    earlier.join();
}

TEST(GracePeriod, outlasts_the_outer_of_nested_sections) {
    std::latch inner_closed(1);
    std::atomic<bool> outer_done{false};
    std::thread reader([&] {
        const RealSync::ReadSection outer;
        {
            const RealSync::ReadSection inner;
        }
        inner_closed.count_down();
        for (int i = 0; i != 100; ++i)
            RealSync::yield();
        outer_done.store(true, std::memory_order_relaxed);
    });
    inner_closed.wait();
    RealSync::synchronize();
    EXPECT_TRUE(outer_done.load(std::memory_order_relaxed));
    reader.join();
}

TEST(GracePeriodDeathTest, is_not_asked_for_inside_a_section) {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    const RealSync::ReadSection reading;
    EXPECT_DEATH(RealSync::synchronize(), "read section");
    EXPECT_DEATH(RealSync::barrier(), "read section");
}

/// The objects that readers see. A destroyed one is poisoned, which ThreadSanitizer and
/// AddressSanitizer detect.
struct Published {
    static constexpr std::uint64_t alive = 0x600d'600d'600d'600d;
    std::uint64_t mark = alive;
    std::uint64_t twice;

    explicit Published(std::uint64_t value) : twice(2 * value), value_(value) {}

    ~Published() { mark = 0xdead; }

    Published(const Published&) = delete;
    Published& operator=(const Published&) = delete;

    [[nodiscard]] bool is_whole() const { return mark == alive && twice == 2 * value_; }

  private:
    std::uint64_t value_;
};

/// Readers follow a pointer that writers swap; `free` frees the old node.
template <class Free>
void swap_beside_readers(std::uint64_t swaps, const Free& free) {
    constexpr int readers = 2;
    constexpr int writers = 2;
    std::atomic<Published*> current{RealSync::make<Published>(0)};
    std::atomic<int> writing{writers};
    std::atomic<std::uint64_t> torn{0};
    std::vector<std::thread> threads;
    for (int i = 0; i != readers; ++i)
        threads.emplace_back([&] {
            while (writing.load(std::memory_order_relaxed) != 0) {
                const RealSync::ReadSection reading;
                for (int look = 0; look != 8; ++look)
                    torn += current.load(std::memory_order_acquire)->is_whole() ? 0 : 1;
            }
        });
    for (int i = 0; i != writers; ++i)
        threads.emplace_back([&] {
            for (std::uint64_t value = 1; value <= swaps; ++value) {
                auto* const fresh = RealSync::make<Published>(value);
                free(current.exchange(fresh, std::memory_order_acq_rel));
            }
            --writing;
        });
    for (std::thread& each : threads)
        each.join();
    RealSync::destroy(current.load());
    RealSync::barrier();
    EXPECT_EQ(torn.load(), 0U);
}

TEST(RetiredNodes, are_whole_while_anybody_reads_them) {
    swap_beside_readers(2000, [](Published* old) { RealSync::retire(old); });
}

TEST(RetiredNodes, may_be_freed_by_hand_after_a_grace_period) {
    swap_beside_readers(200, [](Published* old) {
        RealSync::synchronize();
        RealSync::destroy(old);
    });
}

TEST(DeferredCalls, of_many_threads_all_run_once) {
    struct Call : RcuHead {
        std::atomic<int>* count = nullptr;
    };

    constexpr int threads = 4;
    constexpr std::size_t each_defers = 1000;
    std::atomic<int> ran{0};
    std::vector<std::vector<Call>> calls(threads, std::vector<Call>(each_defers));
    std::vector<std::thread> running;
    for (auto& own : calls)
        running.emplace_back([&ran, &own] {
            for (Call& call : own) {
                call.count = &ran;
                RealSync::defer(&call, [](RcuHead* head) { ++*static_cast<Call*>(head)->count; });
            }
            RealSync::barrier();
            EXPECT_GE(ran.load(), static_cast<int>(each_defers)) << "at least one's own";
        });
    for (std::thread& each : running)
        each.join();
    EXPECT_EQ(ran.load(), static_cast<int>(threads * each_defers));
}

TEST(DeferredCalls, run_in_the_background_once_the_open_sections_have_ended) {
    struct Call : RcuHead {
        std::atomic<bool> section_is_open{true};
        bool ran_too_early = false;
        std::thread::id on;
        std::latch ran{1};

        void run() {
            ran_too_early = section_is_open.load(std::memory_order_relaxed);
            on = std::this_thread::get_id();
            ran.count_down();
        }
    };

    Call call;
    {
        const RealSync::ReadSection reading;
        RealSync::defer(&call, [](RcuHead* head) { static_cast<Call*>(head)->run(); });
        for (int i = 0; i != 100; ++i) // a call that does not wait would win
            RealSync::yield();
        call.section_is_open.store(false, std::memory_order_relaxed);
    }
    EXPECT_TRUE(eventually([&] { return call.ran.try_wait(); })) << "without a barrier";
    RealSync::barrier(); // `call` must not outlive this function in a queue
    EXPECT_FALSE(call.ran_too_early);
    EXPECT_NE(call.on, std::this_thread::get_id());
}

TEST(ReaderSlots, are_reused_by_later_threads) {
    in_a_thread([] { const RealSync::ReadSection reading; });
    const std::size_t before = slots_in_use_or_free();
    for (int i = 0; i != 50; ++i)
        in_a_thread([] { const RealSync::ReadSection reading; });
    EXPECT_EQ(slots_in_use_or_free(), before);
}

TEST(ReaderSlots, are_reused_after_an_exit_hook_that_reads) {
    // A thread's first read section and its first thread-local state may come in either order.
    for (const bool reads_first : {true, false}) {
        std::atomic<int> hooks{0};
        RealSync::ThreadLocal<int> slot(
            [](void* count, int&) {
                const RealSync::ReadSection reading;
                ++*static_cast<std::atomic<int>*>(count);
            },
            &hooks);
        const auto life = [&] {
            if (reads_first)
                const RealSync::ReadSection reading;
            *slot.local() = 1;
            if (!reads_first)
                const RealSync::ReadSection reading;
        };
        in_a_thread(life);
        const std::size_t before = slots_in_use_or_free();
        for (int i = 0; i != 50; ++i)
            in_a_thread(life);
        EXPECT_EQ(slots_in_use_or_free(), before) << "reads first: " << reads_first;
        EXPECT_EQ(hooks.load(), 51);
    }
}

/// A user's thread_local object whose destructor reads, however late it runs.
struct ReadsAtTheEnd {
    bool used = false;

    ~ReadsAtTheEnd() { const RealSync::ReadSection reading; }
};

TEST(ReaderSlots, are_reused_after_a_destructor_that_reads) {
    const auto life = [] {
        static thread_local ReadsAtTheEnd constructed_before_the_slot;
        constructed_before_the_slot.used = true;
        const RealSync::ReadSection reading;
    };
    in_a_thread(life);
    const std::size_t before = slots_in_use_or_free();
    for (int i = 0; i != 50; ++i)
        in_a_thread(life);
    EXPECT_EQ(slots_in_use_or_free(), before);
}

} // namespace
