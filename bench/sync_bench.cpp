// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RealSync's RCU beside liburcu, the peer that most C programs use; docs/decisions/0002-rcu.md
// draws the conclusion. liburcu is called through its library, as a program that is not LGPL must.
#include "moat/sync/real.hpp"

#include "harness.hpp"

#include <atomic>
#include <cstdint>

// clang-format off: only the flavour that comes first has its call_rcu declared.
#include <urcu/urcu-memb.h>
#include <urcu/urcu-mb.h>
// clang-format on

namespace {

using namespace moat;
using bench::keep;

/// Each does `work` within a read section, `count` times.
void in_epoch_sections(std::uint64_t count, const auto& work) {
    for (; count != 0; --count) {
        const RealSync::ReadSection reading;
        work();
    }
}

void in_memb_sections(std::uint64_t count, const auto& work) {
    for (; count != 0; --count) {
        urcu_memb_read_lock();
        work();
        urcu_memb_read_unlock();
    }
}

void in_mb_sections(std::uint64_t count, const auto& work) {
    for (; count != 0; --count) {
        urcu_mb_read_lock();
        work();
        urcu_mb_read_unlock();
    }
}

std::atomic<std::uint64_t> word{1};

void follow() {
    keep(word.load(std::memory_order_acquire));
}

void read_sections(bench::Suite& suite) {
    const bench::Side epoch{.run = [](std::uint64_t count) { in_epoch_sections(count, follow); }};
    const bench::Side memb{.run = [](std::uint64_t count) { in_memb_sections(count, follow); }};
    const bench::Side mb{.run = [](std::uint64_t count) { in_mb_sections(count, follow); }};
    suite.compare({.name = "a read section",
                   .subject = epoch,
                   .against = "liburcu-mb",
                   .other = mb,
                   .goal = 1.0});
    suite.compare({.name = "a read section beside liburcu-memb",
                   .subject = epoch,
                   .against = "liburcu-memb",
                   .other = memb,
                   .goal = 1.0});
    suite.compare({.name = "a read section of 64 loads",
                   .subject = {.run =
                                   [](std::uint64_t count) {
                                       in_epoch_sections(count, [] {
                                           for (int i = 0; i != 64; ++i)
                                               follow();
                                       });
                                   }},
                   .against = "liburcu-memb",
                   .other = {.run =
                                 [](std::uint64_t count) {
                                     in_memb_sections(count, [] {
                                         for (int i = 0; i != 64; ++i)
                                             follow();
                                     });
                                 }},
                   .goal = 1.3});
    suite.compare({.name = "a nested read section",
                   .subject = {.run =
                                   [](std::uint64_t count) {
                                       const RealSync::ReadSection outer;
                                       in_epoch_sections(count, follow);
                                   }},
                   .against = "liburcu-memb",
                   .other = {.run =
                                 [](std::uint64_t count) {
                                     urcu_memb_read_lock();
                                     in_memb_sections(count, follow);
                                     urcu_memb_read_unlock();
                                 }},
                   .goal = 1.0});
}

void read_sections_of_threads(bench::Suite& suite) {
    suite.compare_threads(
        {.name = "read sections of two threads",
         .subject = [](unsigned, std::uint64_t count) { in_epoch_sections(count, follow); },
         .against = "arithmetic",
         .other =
             [](unsigned, std::uint64_t count) {
                 for (std::uint64_t x = count; count != 0; --count) {
                     x = x * 6364136223846793005U + 1;
                     keep(x);
                 }
             },
         .goal = 1.3});
}

void grace_periods(bench::Suite& suite) {
    suite.compare({.name = "a grace period, nobody reads",
                   .subject = {.run =
                                   [](std::uint64_t count) {
                                       for (; count != 0; --count)
                                           RealSync::synchronize();
                                   }},
                   .against = "liburcu-memb",
                   .other = {.run =
                                 [](std::uint64_t count) {
                                     for (; count != 0; --count)
                                         urcu_memb_synchronize_rcu();
                                 }},
                   .goal = 1.0});
}

struct Peer {
    rcu_head head;
    std::uint64_t value;
};

/// Both sides free on a thread of their own while this one goes on.
void retiring(bench::Suite& suite) {
    const auto retire = [](std::uint64_t count) {
        for (; count != 0; --count)
            RealSync::retire(RealSync::make<std::uint64_t>(count));
    };
    const auto call_rcu = [](std::uint64_t count) {
        for (; count != 0; --count) {
            auto* const node = new Peer{{}, count};
            urcu_memb_call_rcu(&node->head,
                               [](rcu_head* head) { delete reinterpret_cast<Peer*>(head); });
        }
    };
    suite.compare({.name = "make a node and retire it",
                   .subject = {.run = retire, .prepare = RealSync::barrier, .most = 10'000},
                   .against = "liburcu-memb, call_rcu",
                   .other = {.run = call_rcu, .prepare = urcu_memb_barrier, .most = 10'000}});
}

} // namespace

int main(int argc, char** argv) {
    bench::Suite suite("sync", argc, argv);
    urcu_memb_register_thread();
    urcu_mb_register_thread();
    read_sections(suite);
    read_sections_of_threads(suite);
    grace_periods(suite);
    retiring(suite);
    urcu_mb_unregister_thread();
    urcu_memb_unregister_thread();
    return suite.finish();
}
