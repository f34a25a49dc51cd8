// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The PUD slot with one walker, one faulter and one zapper, for Relacy: the peer of bench_explore.
// Its macros stay in this file.
#include "relacy_pud_slot.hpp"

#include <relacy/relacy.hpp>
#include <sstream>

#if defined(__clang__)
#pragma clang diagnostic ignored "-Wdollar-in-identifier-extension" // Relacy's place of a call
#endif

namespace moat::bench {

namespace {

constexpr int none = 0;
constexpr int leaf = 1;
constexpr int table = 2;

struct PudSlot : rl::test_suite<PudSlot, 3> {
    rl::atomic<int> slot;
    rl::mutex lock;

    void before() { store(leaf); }

    int load() { return slot.load(rl::memory_order_seq_cst); }

    void store(int value) { slot.store(value, rl::memory_order_seq_cst); }

    void split() {
        lock.lock($);
        if (load() == leaf)
            store(none);
        lock.unlock($);
    }

    void walk() {
        for (int attempt = 0; attempt != 3; ++attempt) {
            const int seen = load();
            if (seen == none)
                return;
            if (seen == leaf)
                split();
            if (load() != table)
                continue;
            RL_ASSERT(load() == table);
            return;
        }
    }

    void fault() {
        if (load() != none)
            return;
        lock.lock($);
        if (load() == none)
            store(leaf);
        lock.unlock($);
    }

    void thread(unsigned index) {
        if (index == 0)
            walk();
        else if (index == 1)
            fault();
        else
            split();
    }
};

std::uint64_t run(rl::scheduler_type_e scheduler, std::uint64_t executions) {
    rl::test_params parameters;
    parameters.search_type = scheduler;
    parameters.iteration_count = executions;
    std::ostringstream quiet;
    parameters.output_stream = &quiet;
    parameters.progress_stream = &quiet;
    rl::simulate<PudSlot>(parameters);
    return parameters.stop_iteration;
}

} // namespace

std::uint64_t relacy_full_search() {
    return run(rl::fair_full_search_scheduler_type, 0);
}

std::uint64_t relacy_random(std::uint64_t executions) {
    return run(rl::random_scheduler_type, executions);
}

} // namespace moat::bench
