// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// ExecutionLog: judges and counts every execution of a strategy, and reports progress.
// Progress is reported by time, not by a count: executions take microseconds or many milliseconds.
// Used by the strategies only.
#pragma once

#include "lab/explore/races.hpp"
#include "lab/explore/search.hpp"

#include <algorithm>
#include <chrono>

namespace moat::explore {

class ExecutionLog {
  public:
    ExecutionLog(Machine& machine, const SearchOptions& options)
        : machine_(machine), options_(options) {}

    /// Call it when no actor is enabled. Return: whether the search continues.
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
        if (tally.executions >= options_.most_executions ||
            tally.executions + tally.violating >= options_.most_ended)
            return false;
        return passed();
    }

    /// Counts a sleep-blocked execution: other branches cover its continuations.
    bool blocked() {
        ++result.tally.blocked;
        return passed();
    }

    /// Call it after each piece of work. Return: whether the search continues.
    bool passed() { return --left_ != 0 || may_go_on(); }

    SearchResult result;

  private:
    using Clock = std::chrono::steady_clock;

    /// Reads the clock every few milliseconds, for pieces of work of any length.
    [[nodiscard, gnu::noinline]] bool may_go_on() {
        using namespace std::chrono_literals;
        const Clock::time_point now = Clock::now();
        if (now - asked_at_ < 2ms)
            pieces_ = std::min<std::uint32_t>(2 * pieces_, 1U << 16);
        else if (now - asked_at_ > 5ms)
            pieces_ = std::max<std::uint32_t>(pieces_ / 4, 1);
        left_ = pieces_;
        asked_at_ = now;
        return !options_.progress || options_.progress(result.tally);
    }

    Machine& machine_;
    const SearchOptions& options_;
    std::uint32_t pieces_ = 1; ///< between two looks at the clock
    std::uint32_t left_ = 1;
    Clock::time_point asked_at_ = Clock::now();
};

} // namespace moat::explore
