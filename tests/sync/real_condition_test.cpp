// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RealSync's condition with its locks, as engines use them.
#include "moat/sync/lock.hpp"
#include "moat/sync/real.hpp"

#include <cstdint>
#include <gtest/gtest.h>
#include <limits>
#include <thread>

namespace {

using namespace moat;

/// Passes one number at a time from one thread to another.
class Channel {
  public:
    void put(int value) {
        const ExclusiveLock lock(mutex_);
        while (full_)
            changed_.wait(mutex_);
        value_ = value;
        full_ = true;
        changed_.notify_all();
    }

    int take() {
        const ExclusiveLock lock(mutex_);
        while (!full_)
            changed_.wait_for(mutex_, std::numeric_limits<std::uint64_t>::max());
        full_ = false;
        changed_.notify_all();
        return value_;
    }

  private:
    RealSync::Mutex mutex_;
    RealSync::Condition changed_;
    int value_ MOAT_GUARDED_BY(mutex_) = 0;
    bool full_ MOAT_GUARDED_BY(mutex_) = false;
};

TEST(Condition, hands_over_between_threads) {
    constexpr int numbers = 1000;
    Channel channel;
    std::thread producer([&] {
        for (int i = 0; i != numbers; ++i)
            channel.put(i);
    });
    for (int i = 0; i != numbers; ++i)
        EXPECT_EQ(channel.take(), i);
    producer.join();
}

TEST(Condition, says_when_time_ran_out) {
    RealSync::Mutex mutex;
    RealSync::Condition condition;
    const std::uint64_t start = RealSync::now();
    const ExclusiveLock lock(mutex);
    while (condition.wait_for(mutex, 1'000'000)) { // may wake without cause
    }
    EXPECT_GE(RealSync::now(), start + 1'000'000);
}

TEST(SharedMutex, keeps_a_writer_from_readers) {
    constexpr int rounds = 200;
    RealSync::SharedMutex mutex;
    int one = 0;
    int other = 0;
    std::thread writer([&] {
        for (int i = 0; i != rounds; ++i) {
            const ExclusiveLock lock(mutex);
            ++one;
            RealSync::yield(); // a reader beside a writer would see the two differ
            ++other;
        }
    });
    for (int seen = 0; seen != rounds; RealSync::yield()) {
        const SharedLock lock(mutex);
        EXPECT_EQ(one, other);
        seen = one;
    }
    writer.join();
}

} // namespace
