// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every enabled actor moves with equal probability; the same seed gives the same schedules.
#include "execution_log.hpp"
#include "lab/explore/random.hpp"

namespace moat::explore {

namespace {

class AnyoneAlike final : public Chooser {
  public:
    explicit AnyoneAlike(std::uint64_t seed) : random_(seed) {}

    Choice choose(const Machine& machine) override {
        const ActorSet enabled = machine.enabled();
        const Actor actor =
            enabled.tail().empty() ? enabled.first() : enabled.at(random_.below(enabled.count()));
        const unsigned ways = machine.options(actor);
        return {static_cast<std::uint8_t>(actor),
                static_cast<std::uint8_t>(ways == 1 ? 0 : random_.below(ways))};
    }

  private:
    Random random_;
};

} // namespace

SearchResult search_random(Machine& machine, const SearchOptions& options) {
    ExecutionLog log(machine, options);
    AnyoneAlike chooser(options.seed);
    machine.start();
    machine.rewind_to_start_only();
    for (std::uint64_t i = 0; i != options.random_executions; ++i) {
        machine.rewind(0);
        machine.run(chooser);
        log.result.tally.steps += machine.depth();
        if (!log.ended())
            break;
    }
    return std::move(log.result);
}

} // namespace moat::explore
