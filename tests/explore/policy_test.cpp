// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// ExploredSync as engines use it: locks, conditions, RCU, lifetimes, timers, failing allocations,
// thread-local state, plain variables. Each once used correctly and once misused.
#include "lab/explore/explored_sync.hpp"
#include "lab/explore/explorer.hpp"

#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace moat::explore::testing {
namespace {

using S = ExploredSync;
template <class T>
using Atomic = S::Atomic<T>;
using Start = explore::Setup;

constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto acquire = std::memory_order_acquire;
constexpr auto release = std::memory_order_release;

/// The findings of dpor and the naive search, which must agree.
[[nodiscard]] std::optional<Violation> violation_of(const Program& program,
                                                    MachineOptions machine_options = {}) {
    std::optional<Violation> first;
    for (Strategy strategy : {Strategy::dpor, Strategy::sleep, Strategy::naive}) {
        Machine machine(program, machine_options);
        SearchOptions options;
        options.most_executions = 300000;
        const SearchResult result = search(strategy, machine, options);
        EXPECT_TRUE(result.found || result.exhausted) << name(strategy);
        std::optional<Violation> found;
        if (result.found)
            found = result.found->violation;
        if (strategy == Strategy::dpor)
            first = found;
        EXPECT_EQ(found.has_value(), first.has_value()) << name(strategy) << ": "
                                                        << (found   ? found->text
                                                            : first ? first->text
                                                                    : "");
    }
    return first;
}

[[nodiscard]] MachineOptions under(MemoryModelKind model) {
    MachineOptions options;
    options.memory_model = model;
    return options;
}

TEST(Mutex, two_locks_in_two_orders_deadlock) {
    struct World {
        S::Mutex a, b;
    };

    const auto violation = violation_of([](Start& start) {
        auto& w = start.make<World>();
        start.name(&w.a, "a");
        start.name(&w.b, "b");
        start.thread("one", [&w] {
            const ExclusiveLock first(w.a);
            const ExclusiveLock second(w.b);
        });
        start.thread("two", [&w] {
            const ExclusiveLock first(w.b);
            const ExclusiveLock second(w.a);
        });
    });
    ASSERT_TRUE(violation);
    EXPECT_EQ(violation->kind, ViolationKind::deadlock);
    EXPECT_NE(violation->text.find("one waits for lock b"), std::string::npos) << violation->text;
}

TEST(SharedMutex, readers_share_and_exclude_the_writer) {
    struct World {
        S::SharedMutex lock;
        Atomic<std::uint64_t> readers, most, writing;
    };

    const auto violation = violation_of([](Start& start) {
        auto& w = start.make<World>();
        for (int i = 0; i != 2; ++i)
            start.thread("reader", [&w] {
                const SharedLock lock(w.lock);
                S::check(w.writing.load(relaxed) == 0, "a reader beside the writer");
            });
        start.thread("writer", [&w] {
            const ExclusiveLock lock(w.lock);
            w.writing.store(1, relaxed);
            w.writing.store(0, relaxed);
        });
    });
    EXPECT_FALSE(violation) << violation->text;
}

struct Mailbox {
    S::Mutex lock;
    S::Condition filled;
    S::Plain<bool> full{false};
};

[[nodiscard]] Program mailbox(bool looks_before_waiting) {
    return [looks_before_waiting](Start& start) {
        auto& box = start.make<Mailbox>();
        start.thread("consumer", [&box, looks_before_waiting] {
            const ExclusiveLock lock(box.lock);
            if (!looks_before_waiting)
                box.filled.wait(box.lock);
            while (!box.full.read())
                box.filled.wait(box.lock);
        });
        start.thread("producer", [&box] {
            const ExclusiveLock lock(box.lock);
            box.full.write(true);
            box.filled.notify_one();
        });
    };
}

TEST(Condition, a_wake_up_is_lost_when_nobody_looks_first) {
    EXPECT_FALSE(violation_of(mailbox(true)));
    const auto violation = violation_of(mailbox(false));
    ASSERT_TRUE(violation);
    EXPECT_EQ(violation->kind, ViolationKind::deadlock);
}

TEST(Condition, a_bounded_wait_ends_both_ways) {
    struct World {
        S::Mutex lock;
        S::Condition changed;
        Atomic<std::uint64_t> outcome;
    };

    std::set<std::uint64_t> outcomes;
    World* world = nullptr;
    Machine machine(
        [&world](Start& start) {
            auto& w = start.make<World>();
            world = &w;
            start.thread("waiter", [&w] {
                const ExclusiveLock lock(w.lock);
                w.outcome.store(w.changed.wait_for(w.lock, 1000) ? 1 : 2, relaxed);
                S::check(w.outcome.load(relaxed) == 1 || S::now() >= 1000, "time has passed");
            });
            start.thread("notifier", [&w] { w.changed.notify_all(); });
            start.at_end([&w] { S::check(w.outcome.load(relaxed) != 0, "the wait ended"); });
        },
        {});
    SearchOptions options;
    options.visit = [&](const Machine&) { outcomes.insert(world->outcome.load(relaxed)); };
    EXPECT_TRUE(search_dpor(machine, options).exhausted);
    EXPECT_EQ(outcomes, (std::set<std::uint64_t>{1, 2}));
}

enum class Reclaim : std::uint8_t { at_once, after_synchronize, by_retire };

/// A reader follows a pointer that an updater unlinks and frees.
[[nodiscard]] Program unlink(Reclaim how, bool reader_has_section) {
    struct Leaf {
        Atomic<std::uint64_t> value{7};
    };

    struct World {
        Atomic<Leaf*> root;
    };

    return [how, reader_has_section](Start& start) {
        auto& w = start.make<World>();
        w.root.store(S::make<Leaf>(), relaxed);
        start.name(&w.root, "root");
        start.thread("reader", [&w, reader_has_section] {
            const auto read = [&w] {
                if (Leaf* leaf = w.root.load(acquire))
                    S::check(leaf->value.load(relaxed) == 7, "the leaf is what it was");
            };
            if (reader_has_section) {
                const S::ReadSection section;
                read();
            } else {
                read();
            }
        });
        start.thread("updater", [&w, how] {
            Leaf* const leaf = w.root.exchange(nullptr, std::memory_order_acq_rel);
            if (how == Reclaim::by_retire) {
                S::retire(leaf);
                S::barrier();
                return;
            }
            if (how == Reclaim::after_synchronize)
                S::synchronize();
            S::destroy(leaf);
        });
    };
}

TEST(Rcu, a_grace_period_protects_readers_in_sections) {
    for (MemoryModelKind model :
         {MemoryModelKind::sc, MemoryModelKind::tso, MemoryModelKind::c11}) {
        EXPECT_FALSE(violation_of(unlink(Reclaim::after_synchronize, true), under(model)))
            << name(model);
        EXPECT_FALSE(violation_of(unlink(Reclaim::by_retire, true), under(model))) << name(model);
    }
}

TEST(Rcu, a_free_without_a_grace_period_is_found) {
    const auto violation = violation_of(unlink(Reclaim::at_once, true));
    ASSERT_TRUE(violation);
    EXPECT_EQ(violation->kind, ViolationKind::use_after_free);
    EXPECT_NE(violation->other_step, no_step) << "the free is named";
}

TEST(Rcu, a_reader_without_a_section_is_found) {
    for (Reclaim how : {Reclaim::after_synchronize, Reclaim::by_retire}) {
        const auto violation = violation_of(unlink(how, false));
        ASSERT_TRUE(violation);
        EXPECT_EQ(violation->kind, ViolationKind::use_after_free);
    }
}

TEST(Rcu, waiting_inside_a_section_is_misuse) {
    const auto violation = violation_of([](Start& start) {
        start.thread("reader", [] {
            const S::ReadSection outer;
            const S::ReadSection inner;
            S::synchronize();
        });
    });
    ASSERT_TRUE(violation);
    EXPECT_EQ(violation->kind, ViolationKind::misuse);
}

TEST(Rcu, the_steps_around_a_section_can_be_undone) {
    EXPECT_FALSE(violation_of([](Start& start) {
        auto& word = start.make<Atomic<std::uint64_t>>();
        for (int i = 0; i != 2; ++i)
            start.thread("reader", [&word] {
                word.fetch_add(1, std::memory_order_relaxed);
                {
                    const S::ReadSection section;
                    word.fetch_add(1, std::memory_order_relaxed);
                }
                S::synchronize(); // misuse where a step was lost
            });
    }));
}

TEST(Lifetime, a_second_free_is_found) {
    const auto violation = violation_of([](Start& start) {
        auto* const node = S::make<std::uint64_t>();
        for (int i = 0; i != 2; ++i)
            start.thread("freer", [node] { S::destroy(node); });
    });
    ASSERT_TRUE(violation);
    EXPECT_EQ(violation->text, "memory is freed twice");
}

TEST(Allocation, every_allocation_fails_in_some_execution) {
    struct World {
        Atomic<std::uint64_t> failed;
    };

    MachineOptions options;
    options.failing_allocations = 1;
    std::set<std::uint64_t> outcomes;
    World* world = nullptr;
    Machine machine(
        [&world](Start& start) {
            auto& w = start.make<World>();
            world = &w;
            for (std::uint64_t bit = 1; bit != 4; bit *= 2)
                start.thread("maker", [&w, bit] {
                    if (S::make<std::uint64_t>() == nullptr)
                        w.failed.fetch_or(bit, relaxed);
                });
        },
        options);
    SearchOptions search_options;
    search_options.visit = [&](const Machine&) { outcomes.insert(world->failed.load(relaxed)); };
    EXPECT_TRUE(search_dpor(machine, search_options).exhausted);
    EXPECT_EQ(outcomes, (std::set<std::uint64_t>{0, 1, 2})) << "at most one fails";
}

struct Alarm {
    explicit Alarm(bool cancels) : cancels_in_time(cancels), timer(&ring, this) {}

    static void ring(void* it) { static_cast<Alarm*>(it)->rang.fetch_add(1, relaxed); }

    bool cancels_in_time;
    Atomic<std::uint64_t> rang;
    Atomic<std::uint64_t> cancelled;
    S::Timer timer;
};

TEST(Timer, fires_at_most_once_and_not_after_cancel) {
    std::set<std::uint64_t> outcomes;
    Alarm* alarm = nullptr;
    Machine machine(
        [&alarm](Start& start) {
            auto& it = start.make<Alarm>(true);
            alarm = &it;
            start.thread("owner", [&it] {
                it.timer.arm(100);
                it.timer.cancel();
                const std::uint64_t rang = it.rang.load(relaxed);
                it.cancelled.store(1 + rang, relaxed);
            });
            start.at_end([&it] {
                S::check(it.rang.load(relaxed) + 1 == it.cancelled.load(relaxed),
                         "the timer fires after it was cancelled");
            });
        },
        {});
    SearchOptions options;
    options.visit = [&](const Machine&) { outcomes.insert(alarm->rang.load(relaxed)); };
    const SearchResult result = search_dpor(machine, options);
    EXPECT_TRUE(result.exhausted);
    EXPECT_FALSE(result.found);
    EXPECT_EQ(outcomes, (std::set<std::uint64_t>{0, 1}));
}

TEST(Timer, a_callback_takes_part_in_races) {
    const auto violation = violation_of([](Start& start) {
        auto& it = start.make<Alarm>(false);
        start.thread("owner", [&it] {
            it.timer.arm(100);
            S::check(it.rang.load(relaxed) == 0, "the timer was quicker");
        });
    });
    EXPECT_TRUE(violation);
}

struct PerThread {
    struct Count {
        std::uint64_t value = 0;
    };

    static void fold(void* it, Count& count) {
        static_cast<PerThread*>(it)->folded.fetch_add(count.value, relaxed);
    }

    Atomic<std::uint64_t> folded;
    S::ThreadLocal<Count> counts{&fold, this};
};

TEST(ThreadLocal, the_hook_sees_every_thread_that_ends) {
    const auto violation = violation_of([](Start& start) {
        auto& it = start.make<PerThread>();
        for (std::uint64_t i = 1; i != 3; ++i)
            start.thread("counter", [&it, i] { it.counts.local()->value += i; });
        start.at_end([&it] {
            std::uint64_t left = 0;
            it.counts.for_each(
                [](void* sum, PerThread::Count& count) {
                    *static_cast<std::uint64_t*>(sum) += count.value;
                },
                &left);
            S::check(left == 0, "every thread has ended");
            S::check(it.folded.load(relaxed) == 3, "every thread's count was seen");
        });
    });
    EXPECT_FALSE(violation) << violation->text;
}

[[nodiscard]] Program publish(std::memory_order store, std::memory_order load) {
    struct World {
        S::Plain<int> data{0};
        Atomic<std::uint64_t> ready;
    };

    return [store, load](Start& start) {
        auto& w = start.make<World>();
        start.name(&w.data, "data");
        start.thread("writer", [&w, store] {
            w.data.write(1);
            w.ready.store(1, store);
        });
        start.thread("reader", [&w, load] {
            if (w.ready.load(load) != 0)
                S::check(w.data.read() == 1, "what was published is there");
        });
    };
}

TEST(Plain, publication_needs_release_and_acquire_under_c11) {
    const MachineOptions c11 = under(MemoryModelKind::c11);
    EXPECT_FALSE(violation_of(publish(release, acquire), c11));
    for (const auto& [store, load] : {std::pair(relaxed, acquire), std::pair(release, relaxed)}) {
        const auto violation = violation_of(publish(store, load), c11);
        ASSERT_TRUE(violation);
        EXPECT_EQ(violation->kind, ViolationKind::data_race);
        EXPECT_NE(violation->text.find("data"), std::string::npos) << violation->text;
    }
}

TEST(Plain, unordered_accesses_race_under_every_model) {
    for (MemoryModelKind model :
         {MemoryModelKind::sc, MemoryModelKind::tso, MemoryModelKind::c11}) {
        const auto violation = violation_of(
            [](Start& start) {
                auto& data = start.make<S::Plain<int>>(0);
                start.thread("writer", [&data] { data.write(1); });
                start.thread("reader", [&data] { static_cast<void>(data.read()); });
            },
            under(model));
        ASSERT_TRUE(violation) << name(model);
        EXPECT_EQ(violation->kind, ViolationKind::data_race) << name(model);
    }
}

TEST(Livelock, two_polite_threads_are_told_apart_from_a_safety_violation) {
    struct World {
        Atomic<std::uint64_t> wants[2];
    };

    const auto polite = [](World& w, int me) {
        for (;;) {
            w.wants[me].store(1, relaxed);
            if (w.wants[1 - me].load(relaxed) == 0)
                break;
            w.wants[me].store(0, relaxed);
            S::pause();
        }
        w.wants[me].store(0, relaxed);
    };
    Machine machine(
        [polite](Start& start) {
            auto& w = start.make<World>();
            for (int me = 0; me != 2; ++me)
                start.thread("polite", [&w, me, polite] { polite(w, me); });
        },
        {});
    SearchOptions options;
    options.random_executions = 20000;
    options.visit_violation = [](const Machine&, const Violation& violation) {
        EXPECT_EQ(violation.kind, ViolationKind::livelock);
        EXPECT_FALSE(is_safety(violation.kind));
    };
    EXPECT_TRUE(search_dpor(machine, options).found);
}

TEST(Livelock, waiting_for_a_change_that_comes_is_none) {
    const auto violation = violation_of([](Start& start) {
        auto& ready = start.make<Atomic<std::uint64_t>>(0U);
        start.thread("waiter", [&ready] {
            while (ready.load(acquire) == 0)
                S::pause();
        });
        start.thread("maker", [&ready] { ready.store(1, release); });
    });
    EXPECT_FALSE(violation) << violation->text;
}

/// Under c11 a thread may miss the change, and pause while all others wait for this thread.
TEST(Livelock, waiting_for_each_other_s_change_is_none) {
    struct World {
        Atomic<std::uint64_t> asked;
        Atomic<std::uint64_t> answered;
    };

    const auto wait_for = [](Atomic<std::uint64_t>& word) {
        while (word.load(acquire) == 0)
            S::pause();
    };
    for (const bool asks_first : {true, false}) {
        ExploreOptions options;
        options.machine.memory_model = MemoryModelKind::c11;
        options.machine.most_steps = 100;
        const Report report = explore::explore(
            [=](Start& start) {
                auto& world = start.make<World>();
                for (const bool asks : {asks_first, !asks_first})
                    start.thread(asks ? "asks" : "answers", [&world, asks, wait_for] {
                        if (!asks)
                            wait_for(world.asked);
                        (asks ? world.asked : world.answered).store(1, release);
                        if (asks)
                            wait_for(world.answered);
                    });
            },
            options);
        EXPECT_FALSE(report.found) << report.found->violation.text;
        EXPECT_TRUE(report.exhausted) << report.tally.cut << " are cut";
    }
}

TEST(Livelock, waiting_for_a_change_that_never_comes_is_found) {
    const auto violation = violation_of([](Start& start) {
        auto& ready = start.make<Atomic<std::uint64_t>>(0U);
        start.thread("waiter", [&ready] {
            while (ready.load(acquire) == 0)
                S::yield();
        });
    });
    ASSERT_TRUE(violation);
    EXPECT_EQ(violation->kind, ViolationKind::livelock);
}

TEST(Bounds, an_execution_that_is_too_long_is_cut_and_said_to_be) {
    ExploreOptions options;
    options.machine.most_steps = 40;
    const Report report = explore::explore(
        [](Start& start) {
            auto& word = start.make<Atomic<std::uint64_t>>(0U);
            start.thread("spinner", [&word] {
                for (int i = 0; i != 100; ++i)
                    word.fetch_add(1, relaxed);
            });
        },
        options);
    EXPECT_FALSE(report.exhausted);
    EXPECT_EQ(report.tally.cut, 1U);
    EXPECT_NE(claim(options, report, "spinner").find("not proved"), std::string::npos);
}

std::size_t allocated = 0;

TEST(Memory, a_step_that_keeps_memory_from_elsewhere_fails) {
    MachineOptions options;
    options.allocated_bytes = [] { return allocated; };
    const auto violation = violation_of(
        [](Start& start) {
            auto& word = start.make<Atomic<std::uint64_t>>(0U);
            start.thread("hoarder", [&word] {
                word.store(1, relaxed);
                allocated += 16; // an engine's own call of malloc
            });
        },
        options);
    ASSERT_TRUE(violation);
    EXPECT_EQ(violation->kind, ViolationKind::memory);
}

TEST(Memory, what_is_shared_lies_in_the_arena) {
    static std::uint64_t outside = 0;
    const auto violation = violation_of([](Start& start) {
        start.thread("stranger", [] { S::AtomicRef<std::uint64_t>(outside).store(1, relaxed); });
    });
    ASSERT_TRUE(violation);
    EXPECT_EQ(violation->kind, ViolationKind::memory);
}

} // namespace
} // namespace moat::explore::testing
