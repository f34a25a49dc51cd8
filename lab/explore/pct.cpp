// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Probabilistic concurrency testing: the enabled actor of highest priority moves; at `depth - 1`
// random steps the priority of whoever moves falls below all others. A bug that needs d ordering
// constraints is found with probability at least 1 / (n k^(d-1)) an execution.
// Source: Burckhardt, Kothari, Musuvathi, Nagarakatte, ASPLOS 2010.
#include "execution_log.hpp"
#include "lab/explore/random.hpp"

#include <algorithm>
#include <array>

namespace moat::explore {

namespace {

class Priorities final : public Chooser {
  public:
    explicit Priorities(std::uint64_t seed) : random_(seed) {}

    void shuffle(unsigned changes, std::size_t steps) {
        for (unsigned i = 0; i != most_actors; ++i) {
            const unsigned at = random_.below(i + 1);
            order_[i] = order_[at];
            order_[at] = static_cast<int>(i) + 1;
        }
        lowest_ = 0;
        changes_.clear();
        for (unsigned i = 0; i != changes; ++i)
            changes_.push_back(random_.below(static_cast<unsigned>(steps)));
    }

    /// An actor that waits for others must not starve them.
    Choice choose(const Machine& machine) override {
        const Actor actor = highest(machine.enabled());
        const unsigned ways = machine.options(actor);
        if (std::find(changes_.begin(), changes_.end(), machine.depth() + 1) != changes_.end() ||
            machine.pending_touch(actor).kind == Kind::pause)
            order_[actor] = --lowest_;
        return {static_cast<std::uint8_t>(actor),
                static_cast<std::uint8_t>(ways == 1 ? 0 : random_.below(ways))};
    }

  private:
    [[nodiscard]] Actor highest(ActorSet enabled) const {
        Actor best = enabled.first();
        for (ActorSet rest = enabled.tail(); !rest.empty(); rest = rest.tail())
            if (order_[rest.first()] > order_[best])
                best = rest.first();
        return best;
    }

    Random random_;
    std::array<int, most_actors> order_{};
    int lowest_ = 0;
    std::vector<std::size_t> changes_;
};

} // namespace

SearchResult search_pct(Machine& machine, const SearchOptions& options) {
    ExecutionLog log(machine, options);
    Priorities priorities(options.seed);
    machine.start();
    machine.rewind_to_start_only();
    std::size_t longest = 1;
    for (std::uint64_t i = 0; i != options.random_executions; ++i) {
        machine.rewind(0);
        priorities.shuffle(options.pct_depth - 1, longest);
        machine.run(priorities);
        longest = std::max(longest, machine.depth());
        log.result.tally.steps += machine.depth();
        if (!log.ended())
            break;
    }
    return std::move(log.result);
}

} // namespace moat::explore
