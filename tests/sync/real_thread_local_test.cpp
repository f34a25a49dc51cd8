// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RealSync's thread-local state: its owner, and the end of its thread or its object.
#include "moat/sync/real.hpp"

#include <atomic>
#include <gtest/gtest.h>
#include <latch>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

namespace {

using namespace moat;

struct Magazine {
    inline static std::atomic<int> living{0};
    int loaded = 0;

    Magazine() { ++living; }

    ~Magazine() { --living; }

    Magazine(const Magazine&) = delete;
    Magazine& operator=(const Magazine&) = delete;
};

using Slot = RealSync::ThreadLocal<Magazine>;

void ignore(void*, Magazine&) {}

int sum(Slot& slot) {
    int total = 0;
    slot.for_each([](void* to, Magazine& each) { *static_cast<int*>(to) += each.loaded; }, &total);
    return total;
}

TEST(ThreadLocal, is_each_threads_own) {
    std::atomic<int> returned{0};
    {
        Slot slot(
            [](void* to, Magazine& left) { *static_cast<std::atomic<int>*>(to) += left.loaded; },
            &returned);
        slot.local()->loaded = 1;
        std::thread([&] {
            EXPECT_EQ(slot.local()->loaded, 0);
            slot.local()->loaded = 10;
            EXPECT_EQ(sum(slot), 11);
        }).join();
        EXPECT_EQ(returned.load(), 10) << "the hook sees what the thread left";
        EXPECT_EQ(sum(slot), 1);
        EXPECT_EQ(slot.local()->loaded, 1);
    }
    EXPECT_EQ(returned.load(), 10) << "destroying the object runs no hook";
    EXPECT_EQ(Magazine::living.load(), 0);
}

TEST(ThreadLocal, of_many_objects_is_kept_apart) {
    constexpr int objects = 40; // more than the initial capacity of a thread
    std::vector<std::unique_ptr<Slot>> slots;
    for (int i = 0; i != objects; ++i)
        slots.push_back(std::make_unique<Slot>(ignore, nullptr));
    std::thread([&] {
        for (int i = objects - 1; i >= 0; --i)
            slots[static_cast<std::size_t>(i)]->local()->loaded = i;
        for (int i = 0; i != objects; ++i)
            EXPECT_EQ(slots[static_cast<std::size_t>(i)]->local()->loaded, i);
    }).join();
    slots.clear();
    EXPECT_EQ(Magazine::living.load(), 0);
}

TEST(ThreadLocal, may_be_destroyed_while_its_threads_live) {
    std::optional<Slot> slot(std::in_place, ignore, nullptr);
    std::latch used(2);
    std::latch replaced(1);
    std::vector<std::thread> threads;
    for (int i = 0; i != 2; ++i)
        threads.emplace_back([&] {
            slot->local()->loaded = 5;
            used.count_down();
            replaced.wait();
            EXPECT_EQ(slot->local()->loaded, 0) << "a new object, though at the same index";
        });
    used.wait();
    slot.reset();
    EXPECT_EQ(Magazine::living.load(), 0);
    slot.emplace(ignore, nullptr);
    replaced.count_down();
    for (std::thread& each : threads)
        each.join();
    EXPECT_EQ(sum(*slot), 0);
}

TEST(ThreadLocal, of_objects_and_threads_that_come_and_go) {
    constexpr int rounds = 100;
    std::atomic<int> hooks{0};
    const auto hook = [](void* count, Magazine&) { ++*static_cast<std::atomic<int>*>(count); };
    for (int round = 0; round != rounds; ++round) {
        Slot shared(hook, &hooks);
        std::thread ends_early([&] { (void)shared.local(); });
        std::thread has_its_own([&] {
            Slot own(hook, &hooks);
            own.local()->loaded = 3;
            shared.local()->loaded = 4;
            EXPECT_EQ(sum(own), 3);
        });
        ends_early.join();
        has_its_own.join();
        EXPECT_EQ(hooks.load(), 2 * (round + 1));
    }
    EXPECT_EQ(Magazine::living.load(), 0);
}

Slot* late_slot = nullptr;

struct UsedAtTheEnd {
    bool used = false;

    ~UsedAtTheEnd() { late_slot->local()->loaded = 1; }
};

TEST(ThreadLocal, may_be_used_by_a_destructor_at_the_end_of_its_thread) {
    std::atomic<int> hooks{0};
    Slot slot([](void* count, Magazine&) { ++*static_cast<std::atomic<int>*>(count); }, &hooks);
    late_slot = &slot;
    std::thread([&] {
        static thread_local UsedAtTheEnd constructed_before_the_slot;
        constructed_before_the_slot.used = true;
        (void)slot.local();
    }).join();
    EXPECT_EQ(hooks.load(), 2) << "once for each that the thread had";
    EXPECT_EQ(sum(slot), 0);
    EXPECT_EQ(Magazine::living.load(), 0);
}

} // namespace
