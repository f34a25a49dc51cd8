// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The behaviour that all models of Sync share.
#include "moat/sync/lock.hpp"
#include "moat/sync/real.hpp"
#include "moat/sync/serial.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <gtest/gtest.h>
#include <optional>
#include <type_traits>
#include <vector>

namespace {

using namespace moat;

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto acquire = std::memory_order_acquire;
constexpr auto release = std::memory_order_release;
constexpr auto acq_rel = std::memory_order_acq_rel;

/// Counts the live objects.
struct Counted {
    inline static int living = 0;
    int tag;

    explicit Counted(int number = 0) : tag(number) { ++living; }

    ~Counted() { --living; }

    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
};

/// A deferred call that records its number.
struct Call : RcuHead {
    std::vector<int>* log = nullptr;
    int number = 0;

    static void run(RcuHead* head) {
        auto* const self = static_cast<Call*>(head);
        self->log->push_back(self->number);
    }
};

template <class Sync>
class Policy : public testing::Test {};

using Policies = testing::Types<SerialSync, RealSync>;
TYPED_TEST_SUITE(Policy, Policies);

TYPED_TEST(Policy, atomics_return_the_old_value) {
    typename TypeParam::template Atomic<std::uint64_t> word{5};
    EXPECT_EQ(word.fetch_add(3, relaxed), 5U);
    EXPECT_EQ(word.fetch_sub(1, relaxed), 8U);
    EXPECT_EQ(word.fetch_or(8, acq_rel), 7U);
    EXPECT_EQ(word.fetch_and(9, acq_rel), 15U);
    EXPECT_EQ(word.exchange(1, acq_rel), 9U);
    word.store(2, release);
    EXPECT_EQ(word.load(acquire), 2U);
}

TYPED_TEST(Policy, compare_exchange_returns_the_old_value) {
    typename TypeParam::template Atomic<std::uint64_t> word{5};
    std::uint64_t expected = 4;
    EXPECT_FALSE(word.compare_exchange_strong(expected, 6, acq_rel, acquire));
    EXPECT_EQ(expected, 5U);
    EXPECT_TRUE(word.compare_exchange_strong(expected, 6, acq_rel, acquire));
    EXPECT_EQ(word.load(relaxed), 6U);
    expected = 6;
    while (!word.compare_exchange_weak(expected, 7, acq_rel, acquire))
        EXPECT_EQ(expected, 6U);
    EXPECT_EQ(word.load(relaxed), 7U);
}

TYPED_TEST(Policy, a_reference_is_the_word_itself) {
    std::uint64_t memory = 5;
    typename TypeParam::template AtomicRef<std::uint64_t> word(memory);
    word.fetch_add(1, relaxed);
    EXPECT_EQ(memory, 6U);
    memory = 9;
    EXPECT_EQ(word.load(relaxed), 9U);
}

TYPED_TEST(Policy, a_lock_is_held_once) {
    typename TypeParam::Mutex mutex;
    {
        const ExclusiveLock lock(mutex);
    }
    if (mutex.try_lock())
        mutex.unlock();
    else
        ADD_FAILURE() << "it was unlocked before";
}

/// Starts `body` on another thread, or calls it here if the policy is for one thread.
template <class Sync, class Body>
std::future<void> start(Body body) {
    std::future<void> started = std::async(
        std::is_same_v<Sync, SerialSync> ? std::launch::deferred : std::launch::async, body);
    if (std::is_same_v<Sync, SerialSync>)
        started.wait();
    return started;
}

TYPED_TEST(Policy, readers_share_a_lock) {
    typename TypeParam::SharedMutex mutex;
    std::optional<SharedLock<typename TypeParam::SharedMutex>> held(mutex);
    const auto other = start<TypeParam>([&] { const SharedLock another(mutex); });
    // A mutex that does not share blocks the other reader until this one leaves.
    EXPECT_EQ(other.wait_for(std::chrono::seconds(10)), std::future_status::ready);
    held.reset();
}

TYPED_TEST(Policy, a_reader_excludes_writers_until_it_leaves) {
    typename TypeParam::SharedMutex mutex;
    const auto can_write = [&] {
        if (!mutex.try_lock())
            return false;
        mutex.unlock();
        return true;
    };
    bool beside_a_reader = true;
    {
        const SharedLock reader(mutex);
        start<TypeParam>([&] { beside_a_reader = can_write(); }).wait();
    }
    EXPECT_FALSE(beside_a_reader);
    EXPECT_TRUE(can_write());
}

TYPED_TEST(Policy, deferred_calls_run_in_order_and_before_a_barrier_ends) {
    std::vector<int> log;
    std::vector<Call> calls(100);
    std::vector<int> numbers;
    for (Call& each : calls) {
        each.log = &log;
        each.number = static_cast<int>(numbers.size());
        numbers.push_back(each.number);
        TypeParam::defer(&each, Call::run);
    }
    TypeParam::barrier();
    EXPECT_EQ(log, numbers);
}

TYPED_TEST(Policy, a_deferred_call_waits_for_the_outermost_section) {
    std::vector<int> log;
    Call call;
    call.log = &log;
    {
        const typename TypeParam::ReadSection outer;
        {
            const typename TypeParam::ReadSection inner;
            TypeParam::defer(&call, Call::run);
        }
        EXPECT_TRUE(log.empty());
    }
    TypeParam::barrier();
    EXPECT_EQ(log.size(), 1U);
}

TYPED_TEST(Policy, a_deferred_call_may_defer_the_next) {
    struct Chain : RcuHead {
        int left = 1000;

        static void run(RcuHead* head) {
            auto* const self = static_cast<Chain*>(head);
            if (--self->left != 0)
                TypeParam::defer(self, run);
        }
    } chain;

    TypeParam::defer(&chain, Chain::run);
    for (int i = 0; i != 1000; ++i)
        TypeParam::barrier();
    EXPECT_EQ(chain.left, 0);
}

TYPED_TEST(Policy, nodes_are_made_destroyed_and_retired) {
    Counted* const destroyed = TypeParam::template make<Counted>(7);
    Counted* const retired = TypeParam::template make<Counted>();
    ASSERT_NE(destroyed, nullptr);
    EXPECT_EQ(destroyed->tag, 7);
    EXPECT_EQ(Counted::living, 2);
    TypeParam::destroy(destroyed);
    TypeParam::destroy(static_cast<Counted*>(nullptr));
    {
        const typename TypeParam::ReadSection reading;
        TypeParam::retire(retired);
        EXPECT_EQ(retired->tag, 0) << "still valid for readers";
    }
    TypeParam::barrier();
    EXPECT_EQ(Counted::living, 0);
}

TYPED_TEST(Policy, nodes_keep_their_alignment) {
    struct alignas(256) Aligned {
        char bytes[3];
    };

    auto* const node = TypeParam::template make<Aligned>();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(node) % 256, 0U);
    TypeParam::retire(node);
    TypeParam::barrier();
}

TYPED_TEST(Policy, thread_local_state_is_made_at_first_use) {
    std::optional<typename TypeParam::template ThreadLocal<Counted>> slot(
        std::in_place, [](void*, Counted&) {}, nullptr);
    const auto sum = [&] {
        int tags = 0;
        slot->for_each([](void* to, Counted& each) { *static_cast<int*>(to) += each.tag; }, &tags);
        return tags;
    };
    EXPECT_EQ(sum(), 0);
    ASSERT_NE(slot->local(), nullptr);
    slot->local()->tag = 5;
    EXPECT_EQ(slot->local()->tag, 5);
    EXPECT_EQ(sum(), 5);
    slot.reset();
    EXPECT_EQ(Counted::living, 0);
}

TYPED_TEST(Policy, time_does_not_go_back) {
    const std::uint64_t before = TypeParam::now();
    TypeParam::pause();
    TypeParam::yield();
    EXPECT_GE(TypeParam::now(), before);
}

} // namespace
