// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Whoever can move moves with equal probability; the same seed gives the same schedules.
#include "moat/explore/random.hpp"

#include "execution_log.hpp"

namespace moat::explore {

SearchResult search_random(Machine& machine, const SearchOptions& options) {
    ExecutionLog log(machine, options);
    Random random(options.seed);
    machine.start();
    machine.rewind_to_start_only();
    for (std::uint64_t i = 0; i != options.random_executions; ++i) {
        machine.rewind(0);
        for (ActorSet enabled = machine.enabled(); !enabled.empty(); enabled = machine.enabled()) {
            const Actor actor = enabled.at(random.below(enabled.count()));
            const unsigned ways = machine.options(actor);
            machine.step(actor, ways == 1 ? 0 : random.below(ways));
        }
        log.result.tally.steps += machine.depth();
        if (!log.ended())
            break;
    }
    return std::move(log.result);
}

} // namespace moat::explore
