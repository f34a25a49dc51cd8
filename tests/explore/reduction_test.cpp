// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Reductions against the naive search on random small programs: the same traces, each completed
// once, and the same final states, under each memory model. A failure prints the program's seed.
#include "lab/explore/explored_sync.hpp"
#include "lab/explore/random.hpp"
#include "traces.hpp"

#include <array>
#include <gtest/gtest.h>

namespace moat::explore::testing {
namespace {

enum class Action : std::uint8_t {
    load,
    store,
    add,
    compare_exchange,
    lock,
    try_lock,
    choose,
    count
};

struct Instruction {
    Action action = Action::load;
    std::uint8_t word = 0;
    std::uint8_t value = 0;
    std::uint8_t inside = 0; ///< instructions that follow under the lock
    bool relaxed = false;
};

struct Source {
    static constexpr std::size_t most_threads = 3;
    static constexpr std::size_t most_instructions = 4;
    std::size_t threads = 0;
    std::array<std::array<Instruction, most_instructions>, most_threads> code{};
    std::array<std::size_t, most_threads> length{};
};

/// Two words, two locks, a result for each instruction: the final state records what each one read.
struct ProgramWorld {
    std::array<ExploredSync::Atomic<std::uint64_t>, 2> words;
    std::array<ExploredSync::Mutex, 2> locks;
    std::array<std::array<std::uint64_t, Source::most_instructions>, Source::most_threads> saw{};
};

[[nodiscard]] Source make_source(std::uint64_t seed, std::size_t threads, std::size_t length) {
    Random random(seed);
    Source source;
    source.threads = threads;
    for (std::size_t t = 0; t != threads; ++t) {
        source.length[t] = 1 + random.below(static_cast<unsigned>(length));
        for (std::size_t i = 0; i != source.length[t]; ++i)
            source.code[t][i] = {
                static_cast<Action>(random.below(static_cast<unsigned>(Action::count))),
                static_cast<std::uint8_t>(random.below(2)),
                static_cast<std::uint8_t>(1 + t * 16 + i),
                static_cast<std::uint8_t>(random.below(2)), random.below(2) == 0};
    }
    return source;
}

void execute(ProgramWorld& world, const Source& source, std::size_t thread, std::size_t& at) {
    const std::size_t index = at++;
    const Instruction& it = source.code[thread][index];
    auto& word = world.words[it.word];
    std::uint64_t& saw = world.saw[thread][index];
    const auto load = it.relaxed ? std::memory_order_relaxed : std::memory_order_acquire;
    const auto store = it.relaxed ? std::memory_order_relaxed : std::memory_order_release;
    const auto inside = [&] {
        for (unsigned i = 0; i != it.inside && at < source.length[thread]; ++i)
            execute(world, source, thread, at);
    };
    switch (it.action) {
    case Action::load:
        saw = word.load(load) + 1;
        break;
    case Action::store:
        word.store(it.value, store);
        break;
    case Action::add:
        saw = word.fetch_add(it.value, std::memory_order_acq_rel) + 1;
        break;
    case Action::compare_exchange: {
        std::uint64_t expected = 0;
        saw = word.compare_exchange_strong(expected, it.value, std::memory_order_seq_cst,
                                           std::memory_order_seq_cst)
                  ? 1
                  : expected + 2;
        break;
    }
    case Action::lock: {
        const ExclusiveLock lock(world.locks[it.word]);
        inside();
        break;
    }
    case Action::try_lock:
        if (world.locks[it.word].try_lock()) {
            saw = 1;
            inside();
            world.locks[it.word].unlock();
        }
        break;
    case Action::choose:
        saw = ExploredSync::choose(2) + 1;
        break;
    case Action::count:
        break;
    }
}

[[nodiscard]] Program program(const Source& source) {
    return [source](Setup& setup) {
        auto& world = setup.make<ProgramWorld>();
        const auto& shared = setup.make<Source>(source);
        for (std::size_t t = 0; t != shared.threads; ++t)
            setup.thread("thread", [&world, &shared, t] {
                for (std::size_t at = 0; at < shared.length[t];)
                    execute(world, shared, t, at);
            });
    };
}

struct Family {
    const char* name;
    MemoryModelKind model;
    std::uint64_t programs;
    std::size_t threads;
    std::size_t length;
};

class Reduction : public ::testing::TestWithParam<Family> {};

TEST_P(Reduction, sees_what_naive_sees) {
    const Family& family = GetParam();
    MachineOptions options;
    options.memory_model = family.model;
    const std::uint64_t programs = sanitized ? family.programs / 50 : family.programs;
    std::uint64_t schedules = 0;
    std::uint64_t traces = 0;
    for (std::uint64_t seed = 1; seed <= programs; ++seed) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        const Program it = program(make_source(seed, family.threads, family.length));
        const Seen naive = see(it, Strategy::naive, options, Collect::traces_too);
        const Seen sleep = see(it, Strategy::sleep, options, Collect::traces_too);
        const Seen dpor = see(it, Strategy::dpor, options, Collect::traces_too);
        schedules += naive.executions;
        traces += dpor.executions;
        ASSERT_TRUE(naive.exhausted && sleep.exhausted && dpor.exhausted);
        ASSERT_EQ(dpor.final_states, naive.final_states);
        ASSERT_EQ(sleep.final_states, naive.final_states);
        // Deadlocks are complete executions that never reach the end.
        if (naive.violating == 0) {
            ASSERT_EQ(dpor.traces, naive.traces);
            ASSERT_EQ(dpor.executions, naive.traces.size()) << "each trace is completed once";
            ASSERT_EQ(sleep.traces, naive.traces);
        } else {
            ASSERT_NE(dpor.violating, 0U);
            ASSERT_NE(sleep.violating, 0U);
        }
    }
    RecordProperty("schedules", std::to_string(schedules));
    RecordProperty("completed_by_dpor", std::to_string(traces));
}

INSTANTIATE_TEST_SUITE_P(
    RandomPrograms, Reduction,
    ::testing::Values(Family{"sc_two_threads", MemoryModelKind::sc, 2000, 2, 4},
                      Family{"sc_three_threads", MemoryModelKind::sc, 500, 3, 3},
                      Family{"tso_two_threads", MemoryModelKind::tso, 500, 2, 3},
                      Family{"tso_three_threads", MemoryModelKind::tso, 60, 3, 2},
                      Family{"c11_two_threads", MemoryModelKind::c11, 2000, 2, 4},
                      Family{"c11_three_threads", MemoryModelKind::c11, 150, 3, 3}),
    [](const auto& tested) { return std::string(tested.param.name); });

} // namespace
} // namespace moat::explore::testing
