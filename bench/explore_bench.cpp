// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The explorer beside Relacy on the PUD slot with one walker, one faulter and one zapper, and its
// own rates on larger ones. Relacy needs relacy-dev; without it its rows are left out.
#include "harness.hpp"
#include "lab/explore/explorer.hpp"
#include "lab/scenarios/pud_slot.hpp"

#if defined(MOAT_BENCH_RELACY)
#include "relacy_pud_slot.hpp"
#endif

namespace {

using namespace moat::explore;
using moat::scenarios::pud_slot::Variant;

[[nodiscard]] Program pud_slot(unsigned walkers, unsigned faulters, unsigned zappers,
                               unsigned populators) {
    return moat::scenarios::pud_slot::program(
        {Variant::reload, walkers, faulters, zappers, populators, 1, 3});
}

[[nodiscard]] Report explored(const Program& program, Strategy strategy, unsigned jobs = 1) {
    ExploreOptions options;
    options.strategy = strategy;
    options.jobs = jobs;
    return moat::explore::explore(program, options);
}

#if defined(MOAT_BENCH_RELACY)
void compare_with_relacy(moat::bench::Suite& suite) {
    const Program program = pud_slot(1, 1, 1, 0);
    if (suite.wants("executions of a full search, W1F1Z1"))
        suite.report(
            {.name = "executions of a full search, W1F1Z1",
             .value = static_cast<double>(explored(program, Strategy::dpor).tally.executions),
             .unit = "executions",
             .against = "relacy, full search",
             .against_value = static_cast<double>(moat::bench::relacy_full_search()),
             .goal = 1e-4});
    SearchOptions options;
    Machine machine(program, {});
    moat::bench::Comparison random;
    random.name = "a random schedule, W1F1Z1";
    random.subject.run = [&](std::uint64_t count) {
        options.random_executions = count;
        ++options.seed;
        moat::bench::keep(search_random(machine, options).tally);
    };
    random.against = "relacy, random";
    random.other.run = [](std::uint64_t count) { moat::bench::relacy_random(count); };
    random.goal = 0.5;
    suite.compare(random);
}
#endif

void guide(moat::bench::Suite& suite) {
    const Program large = pud_slot(2, 2, 1, 1);
    for (unsigned jobs : {1U, 2U}) {
        const std::string name =
            "W2F2Z1P1 proved by dpor, " + std::to_string(jobs) + (jobs == 1 ? " job" : " jobs");
        if (!suite.wants(name))
            continue;
        const Report report = explored(large, Strategy::dpor, jobs);
        suite.report({.name = name, .value = report.seconds, .unit = "s"});
    }
    const Program medium = pud_slot(2, 2, 0, 0);
    for (Strategy strategy : {Strategy::dpor, Strategy::sleep}) {
        const std::string name =
            std::string(moat::explore::name(strategy)) + " executions, W2F2, blocked ones too";
        if (!suite.wants(name))
            continue;
        const Report report = explored(medium, strategy);
        const Tally& tally = report.tally;
        suite.report(
            {.name = name,
             .value = static_cast<double>(tally.executions + tally.blocked) / report.seconds / 1e6,
             .unit = "million/s",
             .better = moat::bench::Better::higher});
    }
    if (suite.wants("old: from the first step to the violation, W1F1")) {
        ExploreOptions options;
        options.minimises = false;
        const Report report = moat::explore::explore(
            moat::scenarios::pud_slot::program({Variant::old, 1, 1, 0, 0, 1, 3}), options);
        suite.report({.name = "old: from the first step to the violation, W1F1",
                      .value = report.seconds * 1e6,
                      .unit = "us"});
    }
}

} // namespace

int main(int argc, char** argv) {
    moat::bench::Suite suite("explore", argc, argv);
#if defined(MOAT_BENCH_RELACY)
    compare_with_relacy(suite);
#endif
    guide(suite);
    return suite.finish();
}
