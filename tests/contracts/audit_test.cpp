// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// audit: plans, arenas, and whole audits of the soft device with any seed, case and guard.
// A programmer's error by contract, so not a row: a driver without any operation.
#include "moat/core/text.hpp"

#include "audit/arena.hpp"
#include "audit/audit.hpp"
#include "audit/plan.hpp"
#include "contract.hpp"
#include "machine/soft/edu.hpp"
#include "machine/soft/soft_machine.hpp"

#include <array>
#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using audit::Placements;

std::vector<Row> plans() {
    return {
        {.name = "Plan",
         .arguments = {{.name = "number", .good = 7},
                       {.name = "seed", .good = 1},
                       {.name = "granule", .good = 512},
                       {.name = "longest", .good = 1 << 20},
                       {.name = "shortest", .good = 512},
                       {.name = "placements", .good = 2, .bits = 1}},
         .call = [](Values v) -> Outcome {
             const std::array operations = {audit::Operation{.name = "read",
                                                             .granule = ByteCount(v[2]),
                                                             .longest = ByteCount(v[3]),
                                                             .shortest = ByteCount(v[4])},
                                            audit::Operation{.name = "flush"}};
             const audit::Plan plan(operations, static_cast<Placements>(v[5]), v[1]);
             const audit::Case made = plan.at(v[0]);
             EXPECT_LT(made.operation, operations.size());
             EXPECT_EQ(made.number, v[0]);
             EXPECT_TRUE(plan.round_end(v[0]) > v[0] || v[0] == ~std::uint64_t{0});
             EXPECT_EQ(plan.at(v[0]).length, made.length);
             return returned;
         }},
    };
}

std::vector<Row> arenas() {
    const auto machine = std::make_shared<machine::soft::SoftMachine>();
    const auto place = [=](const audit::ArenaConfig& config, const audit::Need& need) -> Outcome {
        const auto domain = machine->create_domain();
        auto arena = audit::Arena::create(*machine, **domain, config);
        if (!arena)
            return arena.error();
        for (const auto placement : {dma::Placement::left, dma::Placement::right}) {
            arena->begin_operation();
            const auto placed = arena->place(need, placement, audit::Life::operation, 0);
            if (!placed)
                return placed.error();
            EXPECT_TRUE(placed->pages.contains(placed->range)) << placed->range;
            EXPECT_EQ(audit::Arena::look(*placed).around(), 0U);
            EXPECT_TRUE(arena->unmap(*placed));
            arena->retire(*placed, {});
        }
        arena->start_over();
        return returned;
    };
    return {
        {.name = "place",
         .arguments = {{.name = "size", .good = 100},
                       {.name = "alignment_lg2", .good = 4, .bits = 32, .more = {12, 13, 20}}},
         .call =
             [=](Values v) {
                 return place({}, {.what = "data",
                                   .size = ByteCount(v[0]),
                                   .alignment_lg2 = static_cast<unsigned>(v[1])});
             }},
        {.name = "Arena::create",
         .arguments = {{.name = "guard", .good = 4096},
                       {.name = "seed", .good = 1},
                       {.name = "window", .good = 64 << 20, .named = false},
                       {.name = "memory", .good = 1 << 20}},
         .call =
             [=](Values v) {
                 if (depends_on_host(v[3]))
                     return Outcome();
                 return place({.guard = ByteCount(v[0]),
                               .seed = v[1],
                               .window = ByteCount(v[2]),
                               .memory = ByteCount(v[3])},
                              {.what = "data", .size = ByteCount(100)});
             }},
    };
}

std::vector<Row> audits() {
    return {
        {.name = "audit_function",
         .arguments = {{.name = "seed", .good = 1},
                       {.name = "first_case", .good = 0},
                       {.name = "cases", .good = 2, .bits = 3},
                       {.name = "guard", .good = 4096, .named = false},
                       {.name = "settle", .good = 0}},
         .call =
             [](Values v) {
                 machine::soft::Edu edu;
                 machine::soft::SoftMachine machine;
                 constexpr machine::Bdf address{0, 4, 0};
                 EXPECT_TRUE(machine.add(address, edu));
                 audit::AuditOptions options;
                 options.seed = v[0];
                 options.first_case = v[1];
                 options.end_case = v[1] + v[2]; // may precede it, too
                 options.guard = ByteCount(v[3]);
                 options.settle = std::chrono::nanoseconds(static_cast<std::int64_t>(v[4]));
                 options.last_settle = options.settle;
                 const auto report = audit::audit_function(machine, address, options);
                 EXPECT_TRUE(!report || report->tally.cases <= v[2]);
                 // After settling has used up the clock, the device has no time left to answer.
                 EXPECT_TRUE(!report || report->findings.empty() || v[4] >= 1ULL << 60);
                 return outcome(report);
             }},
    };
}

TEST(AuditContracts, plans_take_any_number) {
    expect_contracts(plans);
}

TEST(AuditContracts, arenas_take_any_number) {
    expect_contracts(arenas);
}

TEST(AuditContracts, audits_take_any_number) {
    expect_contracts(audits);
}

} // namespace
} // namespace moat::tests
