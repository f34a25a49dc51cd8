// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The report of a violation: a schedule even if the engine's own CHECK failed, and the stacks of
// both sides. Also memory from outside the arena, choices, and the ways in which executions end.
#include "lab/explore/explored_sync.hpp"
#include "lab/explore/explorer.hpp"
#include "lab/explore/races.hpp"
#include "lab/explore/stacks.hpp"
#include "platform/stack.hpp"

#include <chrono>
#include <gtest/gtest.h>
#include <malloc.h>
#include <set>
#include <string>

namespace moat::explore::testing {
namespace {

using S = ExploredSync;
using Start = explore::Setup;
template <class T>
using Atomic = S::Atomic<T>;

constexpr auto relaxed_order = std::memory_order_relaxed;

/// The printed report of the first violation that dpor finds.
struct Explained {
    std::optional<Violation> violation;
    std::string stacks;
};

[[nodiscard]] Explained explain(const Program& program) {
    const Report report = explore::explore(program, {});
    if (!report.found)
        return {};
    Machine machine(program, {});
    StackRecorder stacks(&platform::capture_stack);
    machine.observe(&stacks);
    machine.start();
    for (const Choice& choice : report.found->schedule)
        machine.step(choice.actor, choice.option);
    if (machine.enabled().empty())
        judge(machine);
    return {machine.violation(),
            stacks_text(machine, stacks,
                        [](std::uintptr_t) -> std::vector<std::string> { return {"frame"}; })};
}

/// Whether `text` has a line that begins with `head`, and a frame below it.
[[nodiscard]] bool has_stack(const std::string& text, const std::string& head) {
    const std::size_t at = text.find(head);
    return at != std::string::npos && text.find("\n    frame\n", at) == text.find('\n', at);
}

TEST(Check, a_failed_check_of_the_engine_is_a_violation_with_a_schedule) {
    const Explained it = explain([](Start& setup) {
        auto& word = setup.make<Atomic<std::uint64_t>>(0U);
        setup.thread("writer", [&word] { word.store(1, relaxed_order); });
        setup.thread("engine", [&word] {
            MOAT_CHECK(word.load(relaxed_order) == 0, "the word is untouched");
        });
    });
    ASSERT_TRUE(it.violation);
    EXPECT_EQ(it.violation->kind, ViolationKind::check);
    EXPECT_EQ(it.violation->text,
              "CHECK failed: the word is untouched (word.load(relaxed_order) == 0)");
    EXPECT_EQ(it.violation->actor, 1U);
    EXPECT_TRUE(has_stack(it.stacks, "the failure, in engine")) << it.stacks;
}

TEST(Check, the_final_check_is_left_where_it_fails) {
    for (const bool by_the_engine : {false, true}) {
        const Explained it = explain([by_the_engine](Start& setup) {
            auto& word = setup.make<Atomic<std::uint64_t>>(0U);
            setup.thread("writer", [&word] { word.store(1, relaxed_order); });
            setup.at_end([&word, by_the_engine] {
                if (by_the_engine)
                    MOAT_CHECK(word.load(relaxed_order) == 0, "the word is untouched");
                S::check(word.load(relaxed_order) == 0, "the word is untouched");
                ADD_FAILURE() << "nothing runs after a failed check";
            });
        });
        ASSERT_TRUE(it.violation);
        EXPECT_NE(it.violation->text.find("the word is untouched"), std::string::npos);
        EXPECT_TRUE(has_stack(it.stacks, "the failure, in the setup or the final check"))
            << it.stacks;
    }
}

TEST(CheckDeathTest, outside_of_an_exploration_a_failed_check_ends_the_program) {
    const Machine machine([](Start&) {}, {});
    EXPECT_DEATH(MOAT_CHECK(machine.depth() == 1, "nobody has moved"), "nobody has moved");
}

TEST(Stacks, a_use_after_free_has_those_of_access_free_and_allocation) {
    struct Leaf {
        Atomic<std::uint64_t> value;
    };

    const Explained it = explain([](Start& setup) {
        Leaf* const leaf = S::make<Leaf>();
        setup.thread("freer", [leaf] { S::destroy(leaf); });
        setup.thread("reader", [leaf] { static_cast<void>(leaf->value.load(relaxed_order)); });
    });
    ASSERT_TRUE(it.violation);
    EXPECT_EQ(it.violation->kind, ViolationKind::use_after_free);
    EXPECT_TRUE(has_stack(it.stacks, "the access, step 1, in reader")) << it.stacks;
    EXPECT_TRUE(has_stack(it.stacks, "the free, step 0, in freer")) << it.stacks;
    EXPECT_TRUE(has_stack(it.stacks, "the allocation of ")) << it.stacks;
}

TEST(Stacks, a_data_race_has_those_of_both_accesses) {
    const Explained it = explain([](Start& setup) {
        auto& data = setup.make<S::Plain<int>>(0);
        setup.thread("writer", [&data] { data.write(1); });
        setup.thread("reader", [&data] { static_cast<void>(data.read()); });
    });
    ASSERT_TRUE(it.violation);
    EXPECT_TRUE(has_stack(it.stacks, "an access, a read before step 0, in reader")) << it.stacks;
    EXPECT_TRUE(has_stack(it.stacks, "the other access, a write before step 0, in writer"))
        << it.stacks;
}

TEST(Stacks, a_deadlock_has_that_of_everybody_who_waits) {
    struct World {
        S::Mutex a, b;
    };

    const Explained it = explain([](Start& setup) {
        auto& w = setup.make<World>();
        setup.thread("one", [&w] {
            const ExclusiveLock first(w.a);
            const ExclusiveLock second(w.b);
        });
        setup.thread("two", [&w] {
            const ExclusiveLock first(w.b);
            const ExclusiveLock second(w.a);
        });
    });
    ASSERT_TRUE(it.violation);
    EXPECT_TRUE(has_stack(it.stacks, "where it waits, in one")) << it.stacks;
    EXPECT_TRUE(has_stack(it.stacks, "where it waits, in two")) << it.stacks;
}

/// The bytes allocated by the C library; freed memory that it keeps counts for the next allocation.
[[nodiscard]] std::size_t allocated_bytes() {
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

int* volatile kept = nullptr; // so that the compiler keeps the allocation

TEST(Memory, an_engine_that_allocates_on_its_own_is_found_before_the_search) {
    if (sanitized)
        GTEST_SKIP() << "a sanitizer has an allocator of its own, without these figures";
    ExploreOptions options;
    options.machine.allocated_bytes = &allocated_bytes;
    enum class Allocates : std::uint8_t { never, before_the_first_step, later };
    const auto program = [](Allocates when) {
        return [when](Start& start) {
            auto& word = start.make<Atomic<std::uint64_t>>(0U);
            auto& plain = start.make<std::array<S::Plain<int>, 100>>();
            start.thread("hoarder", [&word, &plain, when] {
                for (S::Plain<int>& each : plain)
                    each.write(1); // the machine's own records of these are no memory of the engine
                if (when == Allocates::before_the_first_step)
                    kept = new int(1);
                word.store(1, relaxed_order);
                if (when == Allocates::later)
                    kept = new int(1);
                word.store(2, relaxed_order);
            });
        };
    };
    for (Allocates when : {Allocates::before_the_first_step, Allocates::later}) {
        const Report found = explore::explore(program(when), options);
        ASSERT_TRUE(found.found);
        EXPECT_EQ(found.found->violation.kind, ViolationKind::memory);
    }
    const Report clean = explore::explore(program(Allocates::never), options);
    EXPECT_FALSE(clean.found) << clean.found->violation.text;
    EXPECT_TRUE(clean.exhausted);
}

TEST(Memory, a_program_too_large_for_the_c11_model_is_told_and_ends_nothing_else) {
    const auto program = [](std::size_t count) {
        return [count](Start& start) {
            auto& words = start.make<std::array<Atomic<std::uint64_t>, 64>>();
            start.thread("writer", [&words, count] {
                for (std::size_t i = 0; i != count; ++i)
                    words[i].store(1, relaxed_order);
            });
        };
    };
    ExploreOptions options;
    options.machine.memory_model = MemoryModelKind::c11;
    EXPECT_FALSE(explore::explore(program(48), options).found);
    const Report report = explore::explore(program(49), options);
    ASSERT_TRUE(report.found);
    EXPECT_EQ(report.found->violation.kind, ViolationKind::memory);
    EXPECT_EQ(report.found->violation.text, "more written locations than the c11 model follows");
}

TEST(Choice, every_alternative_is_explored) {
    struct World {
        Atomic<std::uint64_t> chosen;
    };

    for (Strategy strategy : {Strategy::dpor, Strategy::sleep, Strategy::naive}) {
        std::set<std::uint64_t> seen;
        World* world = nullptr;
        Machine machine(
            [&world](Start& setup) {
                auto& w = setup.make<World>();
                world = &w;
                setup.thread("chooser", [&w] { w.chosen.store(S::choose(3), relaxed_order); });
            },
            {});
        SearchOptions options;
        options.visit = [&](const Machine&) { seen.insert(world->chosen.load(relaxed_order)); };
        const SearchResult result = search(strategy, machine, options);
        EXPECT_EQ(result.tally.executions, 3U) << name(strategy);
        EXPECT_EQ(seen, (std::set<std::uint64_t>{0, 1, 2})) << name(strategy);
    }
}

TEST(Choice, notify_one_wakes_each_of_the_waiters_in_some_execution) {
    struct World {
        S::Mutex lock;
        S::Condition changed;
        std::array<Atomic<std::uint64_t>, 2> order;
        Atomic<std::uint64_t> waiting, done;
    };

    std::set<std::pair<std::uint64_t, std::uint64_t>> seen;
    World* world = nullptr;
    Machine machine(
        [&world](Start& setup) {
            auto& w = setup.make<World>();
            world = &w;
            for (unsigned i = 0; i != 2; ++i)
                setup.thread("waiter", [&w, i] {
                    const ExclusiveLock lock(w.lock);
                    w.waiting.fetch_add(1, relaxed_order);
                    w.changed.wait(w.lock);
                    w.order[i].store(w.done.fetch_add(1, relaxed_order), relaxed_order);
                });
            setup.thread("notifier", [&w] {
                while (w.waiting.load(relaxed_order) != 2)
                    S::pause();
                for (std::uint64_t woken = 0; woken != 2; ++woken) {
                    while (w.done.load(relaxed_order) != woken)
                        S::pause();
                    const ExclusiveLock lock(w.lock);
                    w.changed.notify_one();
                }
            });
        },
        {});
    SearchOptions options;
    options.visit = [&](const Machine&) {
        seen.emplace(world->order[0].load(relaxed_order), world->order[1].load(relaxed_order));
    };
    EXPECT_TRUE(search_dpor(machine, options).exhausted);
    EXPECT_TRUE(seen.contains({0, 1}));
    EXPECT_TRUE(seen.contains({1, 0}));
}

/// Two threads; each execution takes a millisecond, like a large program's.
void slow_program(Start& setup) {
    auto& word = setup.make<Atomic<std::uint64_t>>(0U);
    for (const char* name : {"one", "two"})
        setup.thread(name, [&word] {
            for (int i = 0; i != 10; ++i)
                word.fetch_add(1, relaxed_order);
        });
    const auto begin = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(1)) {
    }
}

TEST(Progress, is_asked_for_by_time_and_not_by_a_count_of_executions) {
    for (const Strategy strategy : {Strategy::naive, Strategy::random, Strategy::pct})
        for (const unsigned jobs : {1U, 2U}) {
            ExploreOptions options;
            options.strategy = strategy;
            options.jobs = jobs;
            options.machine.restoration = Restoration::replay; // each runs the setup
            int asked = 0;
            options.progress = [&asked](const Tally&) { return ++asked != 40; };
            const Report report = explore::explore(&slow_program, options);
            EXPECT_EQ(asked, 40) << name(strategy); // and then never again
            EXPECT_FALSE(report.exhausted);
            EXPECT_LT(report.tally.executions, 1000U) << name(strategy) << ", jobs " << jobs;
        }
}

TEST(Progress, ends_minimisation) {
    const Program program = [](Start& setup) {
        auto& word = setup.make<Atomic<std::uint64_t>>(0U);
        for (const char* name : {"one", "two", "three"})
            setup.thread(name, [&word] {
                for (int i = 0; i != 4; ++i)
                    word.fetch_add(1, relaxed_order);
                S::check(word.load(relaxed_order) != 9, "not nine");
            });
    };
    SearchOptions search;
    search.seed = 3;
    Machine machine(program, {});
    const SearchResult result = search_random(machine, search);
    ASSERT_TRUE(result.found);
    int asked = 0;
    const Found least = minimise(program, {}, *result.found, 400000, [&asked] {
        ++asked;
        return false;
    });
    EXPECT_EQ(asked, 1);
    EXPECT_EQ(least.schedule.size(), result.found->schedule.size());
}

} // namespace
} // namespace moat::explore::testing
