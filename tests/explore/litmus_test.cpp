// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Litmus tests: the outcomes that each memory model allows, no more and no fewer.
// Sources of the sets: x86-TSO (Sewell and others, CACM 2010); RC11 (Lahav and others, PLDI 2017)
// with Batty and others, POPL 2011. Each is searched by dpor and by the naive search.
#include "lab/explore/explored_sync.hpp"
#include "lab/explore/search.hpp"

#include <array>
#include <functional>
#include <gtest/gtest.h>
#include <set>
#include <string>
#include <vector>

namespace moat::explore::testing {
namespace {

constexpr auto rlx = std::memory_order_relaxed;
constexpr auto acq = std::memory_order_acquire;
constexpr auto rel = std::memory_order_release;
constexpr auto seq_cst = std::memory_order_seq_cst;

using Word = ExploredSync::Atomic<std::uint64_t>;

struct World {
    Word x;
    Word y;
    std::array<std::uint64_t, 6> r{};
};

using Thread = void (*)(World&);

/// Every reachable outcome as text: the registers, then the final values of x and y.
class Outcomes {
  public:
    Outcomes(std::vector<Thread> threads, unsigned registers)
        : threads_(std::move(threads)), registers_(registers) {}

    [[nodiscard]] std::set<std::string> under(MemoryModelKind model) const {
        const std::set<std::string> dpor = search_by(Strategy::dpor, model);
        EXPECT_EQ(dpor, search_by(Strategy::naive, model)) << "dpor and naive differ";
        EXPECT_EQ(dpor, search_by(Strategy::sleep, model)) << "dpor and sleep sets differ";
        return dpor;
    }

  private:
    [[nodiscard]] std::set<std::string> search_by(Strategy strategy, MemoryModelKind model) const {
        World* world = nullptr;
        MachineOptions options;
        options.memory_model = model;
        Machine machine(
            [this, &world](Setup& setup) {
                world = &setup.make<World>();
                for (Thread thread : threads_)
                    setup.thread("thread", [thread, it = world] { thread(*it); });
            },
            options);
        std::set<std::string> outcomes;
        SearchOptions search_options;
        search_options.visit = [&](const Machine&) {
            std::string text;
            for (unsigned i = 0; i != registers_; ++i)
                text += std::to_string(world->r[i]);
            outcomes.insert(text);
        };
        EXPECT_TRUE(search(strategy, machine, search_options).exhausted);
        return outcomes;
    }

    std::vector<Thread> threads_;
    unsigned registers_;
};

using Set = std::set<std::string>;

template <auto Store, auto Load>
Outcomes store_buffering() {
    return {{[](World& w) {
                 w.x.store(1, Store);
                 w.r[0] = w.y.load(Load);
             },
             [](World& w) {
                 w.y.store(1, Store);
                 w.r[1] = w.x.load(Load);
             }},
            2};
}

TEST(StoreBuffering, both_zero_is_for_buffers) {
    const Set interleaved = {"01", "10", "11"};
    const Set weak = {"00", "01", "10", "11"};
    EXPECT_EQ((store_buffering<rel, acq>().under(MemoryModelKind::sc)), interleaved);
    EXPECT_EQ((store_buffering<rel, acq>().under(MemoryModelKind::tso)), weak);
    EXPECT_EQ((store_buffering<rel, acq>().under(MemoryModelKind::c11)), weak);
    EXPECT_EQ((store_buffering<rlx, rlx>().under(MemoryModelKind::c11)), weak);
}

TEST(StoreBuffering, sequentially_consistent_accesses_forbid_it) {
    const Set interleaved = {"01", "10", "11"};
    EXPECT_EQ((store_buffering<seq_cst, seq_cst>().under(MemoryModelKind::tso)), interleaved);
    EXPECT_EQ((store_buffering<seq_cst, seq_cst>().under(MemoryModelKind::c11)), interleaved);
}

template <auto Store, auto Load>
Outcomes message_passing() {
    return {{[](World& w) {
                 w.x.store(1, rlx);
                 w.y.store(1, Store);
             },
             [](World& w) {
                 w.r[0] = w.y.load(Load);
                 w.r[1] = w.x.load(rlx);
             }},
            2};
}

TEST(MessagePassing, needs_a_release_and_an_acquire_under_c11) {
    const Set right = {"00", "01", "11"};
    const Set stale = {"00", "01", "10", "11"};
    EXPECT_EQ((message_passing<rel, acq>().under(MemoryModelKind::c11)), right);
    EXPECT_EQ((message_passing<rlx, acq>().under(MemoryModelKind::c11)), stale);
    EXPECT_EQ((message_passing<rel, rlx>().under(MemoryModelKind::c11)), stale);
}

TEST(MessagePassing, needs_nothing_under_tso) {
    const Set right = {"00", "01", "11"};
    EXPECT_EQ((message_passing<rlx, rlx>().under(MemoryModelKind::tso)), right);
    EXPECT_EQ((message_passing<rlx, rlx>().under(MemoryModelKind::sc)), right);
}

template <auto Store, auto Load>
Outcomes independent_reads_of_independent_writes() {
    return {{[](World& w) { w.x.store(1, Store); }, [](World& w) { w.y.store(1, Store); },
             [](World& w) {
                 w.r[0] = w.x.load(Load);
                 w.r[1] = w.y.load(Load);
             },
             [](World& w) {
                 w.r[2] = w.y.load(Load);
                 w.r[3] = w.x.load(Load);
             }},
            4};
}

TEST(IndependentReads, may_disagree_about_the_order_unless_sequentially_consistent) {
    const auto count = [](const Set& outcomes) {
        return std::pair(outcomes.size(), outcomes.contains("1010"));
    };
    const std::pair<std::size_t, bool> agree = {15, false};
    const std::pair<std::size_t, bool> all = {16, true};
    EXPECT_EQ(count(independent_reads_of_independent_writes<rel, acq>().under(MemoryModelKind::sc)),
              agree);
    EXPECT_EQ(
        count(independent_reads_of_independent_writes<rel, acq>().under(MemoryModelKind::tso)),
        agree);
    EXPECT_EQ(
        count(independent_reads_of_independent_writes<rel, acq>().under(MemoryModelKind::c11)),
        all);
    EXPECT_EQ(count(independent_reads_of_independent_writes<seq_cst, seq_cst>().under(
                  MemoryModelKind::c11)),
              agree);
}

/// RC11 allows the outcome 11 for relaxed accesses only in its extension with promises; program
/// order and reads-from are acyclic here.
TEST(LoadBuffering, is_not_explored) {
    const Outcomes outcomes({[](World& w) {
                                 w.r[0] = w.x.load(rlx);
                                 w.y.store(1, rlx);
                             },
                             [](World& w) {
                                 w.r[1] = w.y.load(rlx);
                                 w.x.store(1, rlx);
                             }},
                            2);
    const Set expected = {"00", "01", "10"};
    EXPECT_EQ(outcomes.under(MemoryModelKind::c11), expected);
    EXPECT_EQ(outcomes.under(MemoryModelKind::tso), expected);
}

TEST(Coherence, two_reads_do_not_go_back) {
    const Outcomes outcomes({[](World& w) { w.x.store(1, rlx); },
                             [](World& w) {
                                 w.r[0] = w.x.load(rlx);
                                 w.r[1] = w.x.load(rlx);
                             }},
                            2);
    const Set expected = {"00", "01", "11"};
    EXPECT_EQ(outcomes.under(MemoryModelKind::c11), expected);
    EXPECT_EQ(outcomes.under(MemoryModelKind::tso), expected);
}

TEST(Coherence, a_read_does_not_see_behind_its_own_write) {
    const Outcomes outcomes({[](World& w) { w.x.store(1, rlx); },
                             [](World& w) {
                                 w.x.store(2, rlx);
                                 w.r[0] = w.x.load(rlx);
                                 w.r[1] = w.x.load(rlx);
                             }},
                            2);
    const Set expected = {"22", "21", "11"};
    EXPECT_EQ(outcomes.under(MemoryModelKind::c11), expected);
    // A buffer forwards its own store, and 1 is read although it was written after the flush.
    EXPECT_EQ(outcomes.under(MemoryModelKind::tso), expected);
}

TEST(Coherence, all_agree_on_the_order_of_writes_to_one_location) {
    const Outcomes outcomes({[](World& w) { w.x.store(1, rlx); },
                             [](World& w) { w.x.store(2, rlx); },
                             [](World& w) {
                                 w.r[0] = w.x.load(rlx);
                                 w.r[1] = w.x.load(rlx);
                             },
                             [](World& w) {
                                 w.r[2] = w.x.load(rlx);
                                 w.r[3] = w.x.load(rlx);
                             }},
                            4);
    for (MemoryModelKind model : {MemoryModelKind::c11, MemoryModelKind::tso}) {
        const Set seen = outcomes.under(model);
        EXPECT_FALSE(seen.contains("1221")) << name(model);
        EXPECT_TRUE(seen.contains("1212")) << name(model);
        EXPECT_TRUE(seen.contains("0012")) << name(model);
    }
}

/// Two locations written crosswise, and both first writes win: this needs stores that precede
/// others in modification order.
template <auto Store>
Outcomes crosswise_writes() {
    return {{[](World& w) {
                 w.x.store(1, Store);
                 w.y.store(2, Store);
                 w.r[0] = w.y.load(rlx);
             },
             [](World& w) {
                 w.y.store(1, Store);
                 w.x.store(2, Store);
                 w.r[1] = w.x.load(rlx);
             }},
            2};
}

TEST(CrosswiseWrites, both_first_writes_can_win_under_c11_only) {
    EXPECT_TRUE((crosswise_writes<rel>().under(MemoryModelKind::c11).contains("11")));
    EXPECT_FALSE((crosswise_writes<seq_cst>().under(MemoryModelKind::c11).contains("11")));
    EXPECT_FALSE((crosswise_writes<rel>().under(MemoryModelKind::tso).contains("11")));
}

TEST(ReadModifyWrite, is_atomic_under_every_model) {
    const Outcomes outcomes({[](World& w) { w.r[0] = w.x.fetch_add(1, rlx); },
                             [](World& w) { w.r[1] = w.x.fetch_add(1, rlx); }},
                            2);
    const Set expected = {"01", "10"};
    for (MemoryModelKind model : {MemoryModelKind::sc, MemoryModelKind::tso, MemoryModelKind::c11})
        EXPECT_EQ(outcomes.under(model), expected) << name(model);
}

/// A relaxed read-modify-write in between keeps the release's message alive.
TEST(ReleaseSequence, goes_on_through_read_modify_writes) {
    const Outcomes outcomes({[](World& w) {
                                 w.x.store(1, rlx);
                                 w.y.store(1, rel);
                             },
                             [](World& w) { w.y.fetch_add(1, rlx); },
                             [](World& w) {
                                 w.r[0] = w.y.load(acq);
                                 w.r[1] = w.x.load(rlx);
                             }},
                            2);
    const Set seen = outcomes.under(MemoryModelKind::c11);
    EXPECT_FALSE(seen.contains("20"));
    EXPECT_TRUE(seen.contains("21"));
    EXPECT_TRUE(seen.contains("10")) << "here 1 is the other's addition, which releases nothing";
}

TEST(WriteToReadCausality, holds_through_a_chain_of_releases) {
    const Outcomes outcomes({[](World& w) { w.x.store(1, rlx); },
                             [](World& w) {
                                 w.r[0] = w.x.load(acq);
                                 w.y.store(1, rel);
                             },
                             [](World& w) {
                                 w.r[1] = w.y.load(acq);
                                 w.r[2] = w.x.load(rlx);
                             }},
                            3);
    EXPECT_FALSE(outcomes.under(MemoryModelKind::c11).contains("110"));
    EXPECT_TRUE(outcomes.under(MemoryModelKind::c11).contains("010"));
    EXPECT_FALSE(outcomes.under(MemoryModelKind::tso).contains("110"));
}

/// x86-TSO's example n6: a thread sees its own store before others do.
TEST(Forwarding, a_thread_sees_its_own_store_first) {
    const Outcomes outcomes({[](World& w) {
                                 w.x.store(1, rlx);
                                 w.r[0] = w.x.load(rlx);
                                 w.r[1] = w.y.load(rlx);
                             },
                             [](World& w) {
                                 w.y.store(1, rlx);
                                 w.r[2] = w.y.load(rlx);
                                 w.r[3] = w.x.load(rlx);
                             }},
                            4);
    EXPECT_TRUE(outcomes.under(MemoryModelKind::tso).contains("1010"));
    EXPECT_FALSE(outcomes.under(MemoryModelKind::sc).contains("1010"));
}

/// On x86 a plain store releases a lock, so later reads may come before it is visible.
TEST(Locks, hand_over_what_was_written_under_every_model) {
    struct Locked {
        ExploredSync::Mutex lock;
        Word x;
        std::uint64_t saw = 0;
    };

    for (MemoryModelKind model :
         {MemoryModelKind::sc, MemoryModelKind::tso, MemoryModelKind::c11}) {
        MachineOptions options;
        options.memory_model = model;
        Machine machine(
            [](explore::Setup& setup) {
                auto& w = setup.make<Locked>();
                for (int i = 0; i != 2; ++i)
                    setup.thread("adder", [&w] {
                        const ExclusiveLock lock(w.lock);
                        w.x.store(w.x.load(rlx) + 1, rlx);
                    });
                setup.at_end([&w] {
                    ExploredSync::check(w.x.load(rlx) == 2, "an addition under a lock is lost");
                });
            },
            options);
        const SearchResult result = search_dpor(machine, {});
        EXPECT_TRUE(result.exhausted) << name(model);
        EXPECT_FALSE(result.found) << name(model);
    }
}

} // namespace
} // namespace moat::explore::testing
