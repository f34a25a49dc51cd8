// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every memory allocation fails once: the call reports it or works without, and nothing is lost.
#include "moat/core/text.hpp"
#include "moat/iova/allocator.hpp"
#include "moat/sync/serial.hpp"

#include "model.hpp"

#include <array>
#include <gtest/gtest.h>
#include <utility>
#include <vector>

namespace moat::iova {

namespace {

/// SerialSync, whose make fails at the n-th call.
struct FailingSync : SerialSync {
    static inline int calls = 0;
    static inline int fails_at = -1;
    static inline int objects = 0;

    static bool fails() { return calls++ == fails_at; }

    template <class T, class... Args>
    [[nodiscard]] static T* make(Args&&... args) {
        if (fails())
            return nullptr;
        ++objects;
        return SerialSync::make<T>(std::forward<Args>(args)...);
    }

    template <class T>
    static void destroy(T* node) {
        --objects;
        SerialSync::destroy(node);
    }

    /// A thread's own state may fail to be created, too.
    template <class T>
    class ThreadLocal : public SerialSync::ThreadLocal<T> {
      public:
        using SerialSync::ThreadLocal<T>::ThreadLocal;

        T* local() {
            if (!made_ && fails())
                return nullptr;
            made_ = true;
            return SerialSync::ThreadLocal<T>::local();
        }

      private:
        bool made_ = false;
    };
};

static_assert(SyncPolicy<FailingSync>);

using FailingAllocator = Allocator<FailingSync>;

struct Held {
    Iova start;
    ByteCount size;
};

/// Some of each operation; each failure must be for lack of memory.
void exercise(FailingAllocator& subject, testing::Model& model, std::vector<Held>& held) {
    const auto keep = [&](const Result<Iova>& got, ByteCount size) {
        if (!got) {
            EXPECT_EQ(got.error().code(), ErrorCode::no_memory) << to_string(got.error());
            return;
        }
        EXPECT_EQ(model.check(got->value(), size.value()), "");
        model.add(got->value(), size.value());
        held.push_back({*got, size});
    };
    for (std::uint64_t pages = 1; pages <= 600; pages = pages * 3 / 2 + 1) {
        const ByteCount size(pages << 12);
        keep(subject.allocate({.size = size}), size);
        keep(subject.allocate({.size = size, .placement = Congruence::aligned(24)}), size);
        keep(subject.allocate({.size = size, .at = Iova(0x10'0000'0000 + (pages << 28))}), size);
    }
    const ByteCount huge(std::uint64_t{1} << 42);
    keep(subject.allocate({.size = huge}), huge);
    const auto reserved = subject.reserve(IovaRange(Iova(0x7f'0000'0000), ByteCount(4096)));
    if (!reserved) {
        EXPECT_EQ(reserved.error().code(), ErrorCode::no_memory);
    }
    for (std::size_t i = 0; i < held.size(); i += 2) {
        const When when = i % 4 == 0 ? When::now : When::after_invalidation;
        const auto released = subject.release(held[i].start, held[i].size, when);
        EXPECT_TRUE(released.has_value()) << "a release needs no memory";
        model.remove(held[i].start.value());
    }
}

/// Return: whether an allocation failed; false if `fails_at` exceeds their number.
bool run(int fails_at, const QuarantineBudget& quarantine) {
    FailingSync::calls = 0;
    FailingSync::fails_at = fails_at;
    const std::array<IovaRange, 2> aperture = {
        IovaRange(Iova(0), ByteCount(std::uint64_t{1} << 39)),
        IovaRange(Iova(std::uint64_t{1} << 40), ByteCount(std::uint64_t{1} << 47))};
    auto made =
        FailingAllocator::create({.aperture = aperture,
                                  .guard = {{}, ByteCount(4096)},
                                  .quarantine = quarantine,
                                  .invalidation = {[](void*) { return Result<void>(); }, nullptr}});
    if (!made) {
        EXPECT_EQ(made.error().code(), ErrorCode::no_memory);
        EXPECT_EQ(FailingSync::objects, 0);
        return true;
    }
    FailingAllocator& subject = **made;
    testing::Model model(4096, 4096);
    std::vector<Held> held;
    exercise(subject, model, held);
    const bool failed = FailingSync::calls > fails_at;
    for (std::size_t i = 1; i < held.size(); i += 2)
        EXPECT_TRUE(subject.release(held[i].start, held[i].size).has_value());
    EXPECT_TRUE(subject.flush());
    // Larger than either part of the aperture: the allocator drains everything, and still fails.
    EXPECT_FALSE(
        subject.allocate({.size = ByteCount((std::uint64_t{1} << 47) + 4096)}).has_value());
    const Stats stats = subject.stats();
    EXPECT_EQ(stats.live_ranges, 0U);
    EXPECT_EQ(stats.cached + stats.queued + stats.quarantined, ByteCount(0));
    made->reset();
    EXPECT_EQ(FailingSync::objects, 0) << "memory was lost";
    return failed;
}

TEST(IovaNoMemory, each_allocation_fails_once) {
    int fails_at = 0;
    while (run(fails_at, {}) && !HasFailure())
        ++fails_at;
    ASSERT_FALSE(HasFailure()) << "with allocation " << fails_at << " failing";
    EXPECT_GT(fails_at, 50);
}

TEST(IovaNoMemory, each_allocation_fails_once_with_a_quarantine) {
    int fails_at = 0;
    while (run(fails_at, {.bytes = ByteCount(std::uint64_t{1} << 47), .entries = 1000}) &&
           !HasFailure())
        ++fails_at;
    ASSERT_FALSE(HasFailure()) << "with allocation " << fails_at << " failing";
    EXPECT_GT(fails_at, 50);
}

} // namespace

} // namespace moat::iova
