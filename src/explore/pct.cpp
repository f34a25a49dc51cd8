// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Probabilistic concurrency testing: the enabled actor of highest priority moves; at `depth - 1`
// random steps the priority of whoever moves falls below all others. A bug that needs d ordering
// constraints is found with probability at least 1 / (n k^(d-1)) an execution.
// Source: Burckhardt, Kothari, Musuvathi, Nagarakatte, ASPLOS 2010.
#include "moat/explore/random.hpp"

#include "execution_log.hpp"

#include <algorithm>
#include <array>

namespace moat::explore {

namespace {

class Priorities {
  public:
    void shuffle(Random& random, unsigned changes, std::size_t steps) {
        for (unsigned i = 0; i != most_actors; ++i) {
            const unsigned at = random.below(i + 1);
            order_[i] = order_[at];
            order_[at] = static_cast<int>(i) + 1;
        }
        lowest_ = 0;
        changes_.clear();
        for (unsigned i = 0; i != changes; ++i)
            changes_.push_back(random.below(static_cast<unsigned>(steps)));
    }

    [[nodiscard]] Actor highest(ActorSet enabled) const {
        Actor best = enabled.first();
        for (ActorSet rest = enabled.tail(); !rest.empty(); rest = rest.tail())
            if (order_[rest.first()] > order_[best])
                best = rest.first();
        return best;
    }

    void stepped(Actor actor, std::size_t depth) {
        if (std::find(changes_.begin(), changes_.end(), depth) != changes_.end())
            order_[actor] = --lowest_;
    }

    /// Who waits for others must not starve them.
    void paused(Actor actor) { order_[actor] = --lowest_; }

  private:
    std::array<int, most_actors> order_{};
    int lowest_ = 0;
    std::vector<std::size_t> changes_;
};

} // namespace

SearchResult search_pct(Machine& machine, const SearchOptions& options) {
    ExecutionLog log(machine, options);
    Random random(options.seed);
    Priorities priorities;
    machine.start();
    machine.rewind_to_start_only();
    std::size_t longest = 1;
    for (std::uint64_t i = 0; i != options.random_executions; ++i) {
        machine.rewind(0);
        priorities.shuffle(random, options.pct_depth - 1, longest);
        for (ActorSet enabled = machine.enabled(); !enabled.empty(); enabled = machine.enabled()) {
            const Actor actor = priorities.highest(enabled);
            const bool pauses = machine.pending_touch(actor).kind == Kind::pause;
            const unsigned ways = machine.options(actor);
            machine.step(actor, ways == 1 ? 0 : random.below(ways));
            priorities.stepped(actor, machine.depth());
            if (pauses)
                priorities.paused(actor);
        }
        longest = std::max(longest, machine.depth());
        log.result.tally.steps += machine.depth();
        if (!log.ended())
            break;
    }
    return std::move(log.result);
}

} // namespace moat::explore
