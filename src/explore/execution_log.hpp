// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What every strategy does at the end of an execution: judge it, count it, tell.
// Used by the strategies only.
#pragma once

#include "moat/explore/races.hpp"
#include "moat/explore/search.hpp"

namespace moat::explore {

class ExecutionLog {
  public:
    ExecutionLog(Machine& machine, const SearchOptions& options)
        : machine_(machine), options_(options) {}

    /// To be called where nobody is enabled. Return: whether the search goes on.
    bool ended() {
        judge(machine_);
        Tally& tally = result.tally;
        if (machine_.violation()) {
            ++tally.violating;
            if (!result.found)
                result.found = {*machine_.violation(), schedule_of(machine_)};
            if (options_.visit_violation)
                options_.visit_violation(machine_, *machine_.violation());
            if (options_.on_violation == OnViolation::stop)
                return false;
        } else if (machine_.cut()) {
            ++tally.cut;
        } else {
            ++tally.executions;
            if (options_.visit)
                machine_.inspect([&] { options_.visit(machine_); });
        }
        if (tally.executions >= options_.most_executions)
            return false;
        return (tally.executions & 0xfff) != 0 || may_go_on();
    }

    /// Sleep-blocked: everything that could follow is seen elsewhere.
    bool blocked() { return (++result.tally.blocked & 0xfff) != 0 || may_go_on(); }

    SearchResult result;

  private:
    [[nodiscard]] bool may_go_on() const {
        return !options_.progress || options_.progress(result.tally);
    }

    Machine& machine_;
    const SearchOptions& options_;
};

} // namespace moat::explore
