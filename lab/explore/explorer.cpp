// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One search, or several jobs that share its subtrees; and the claim.
#include "lab/explore/explorer.hpp"

#include "joined.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace moat::explore {

namespace {

[[nodiscard]] SearchOptions search_options(const ExploreOptions& options) {
    SearchOptions search;
    search.most_executions = options.most_executions;
    search.preemptions = options.preemptions;
    search.seed = options.seed;
    search.pct_depth = options.pct_depth;
    search.random_executions = options.random_executions;
    search.progress = options.progress;
    return search;
}

/// The least depth with enough subtrees to keep `parts` equally busy, and their number.
/// It depends on the program alone, so that all shards divide equally.
[[nodiscard]] std::size_t division_depth(const Program& program, const ExploreOptions& options,
                                         unsigned parts) {
    constexpr std::size_t deepest = 16;
    constexpr std::uint64_t subtrees_a_part = 16;
    Machine machine(program, options.machine);
    SearchOptions search = search_options(options);
    search.division.is_mine = [](std::uint64_t) { return false; };
    for (std::size_t depth = 2; depth != deepest; ++depth) {
        search.division.depth = depth;
        const SearchResult top = explore::search(options.strategy, machine, search);
        if (options.progress && !options.progress(top.tally))
            return depth; // the search itself ends at once
        if (top.tally.subtrees >= subtrees_a_part * parts)
            return depth;
    }
    return deepest;
}

/// Consecutive numbers go to different shards.
[[nodiscard]] bool belongs_to(std::uint64_t subtree, const Shard& shard) {
    return subtree % shard.count == shard.index;
}

/// Shared by the jobs of one exploration.
struct Jobs {
    std::atomic<std::uint64_t> next_subtree{0};
    std::atomic<bool> stop{false};
    std::mutex reporting; ///< held by the job that reports progress, until it ends
    std::mutex mutex;
    Report report;

    void add(SearchResult result) {
        const std::lock_guard lock(mutex);
        report.tally.add(result.tally);
        report.exhausted = report.exhausted && result.exhausted;
        if (result.found && !report.found) {
            report.found = std::move(result.found);
            stop.store(true, std::memory_order_relaxed);
        }
    }
};

/// Every job walks the top of the tree alone and takes the next free subtree.
void run_job(const Program& program, const ExploreOptions& options, unsigned job, std::size_t depth,
             Jobs& jobs) {
    SearchOptions search = search_options(options);
    std::uint64_t claimed = 0;
    bool has_claim = false;
    if (depth != 0) {
        search.division.depth = depth;
        search.division.is_mine = [&](std::uint64_t subtree) {
            if (!belongs_to(subtree, options.shard))
                return false;
            const std::uint64_t turn = subtree / options.shard.count;
            if (!has_claim || claimed < turn) {
                claimed = jobs.next_subtree.fetch_add(1, std::memory_order_relaxed);
                has_claim = true;
            }
            return claimed == turn;
        };
    } else {
        search.seed = options.seed + job;
        search.random_executions = options.random_executions / options.jobs +
                                   (job < options.random_executions % options.jobs ? 1 : 0);
    }
    std::unique_lock reporting(jobs.reporting, std::defer_lock);
    search.progress = [&](const Tally& tally) {
        if (jobs.stop.load(std::memory_order_relaxed))
            return false;
        if (!options.progress || (!reporting && !reporting.try_lock()))
            return true;
        const bool goes_on = options.progress(tally);
        if (!goes_on)
            jobs.stop.store(true, std::memory_order_relaxed);
        return goes_on;
    };
    Machine machine(program, options.machine);
    jobs.add(explore::search(options.strategy, machine, search));
}

[[nodiscard]] Report explore_divided(const Program& program, const ExploreOptions& options) {
    Jobs jobs;
    jobs.report.exhausted = true;
    const std::size_t depth =
        is_exhaustive(options.strategy)
            ? division_depth(program, options, std::max(options.jobs, options.shard.count))
            : 0;
    std::vector<std::thread> threads;
    for (unsigned job = 1; job < options.jobs; ++job)
        threads.emplace_back([&, job] { run_job(program, options, job, depth, jobs); });
    run_job(program, options, 0, depth, jobs);
    for (std::thread& thread : threads)
        thread.join();
    return std::move(jobs.report);
}

/// Before a search: whether a few random schedules, run step by step, keep memory from outside the
/// arena. Querying the allocator at every step of the search itself would cost more than
/// the step, and other jobs allocate meanwhile.
[[nodiscard]] std::optional<Found> find_foreign_memory(const Program& program,
                                                       const ExploreOptions& options) {
    Machine machine(program, options.machine);
    std::optional<Found> found;
    SearchOptions search;
    search.random_executions = 10;
    search.progress = options.progress;
    search.on_violation = OnViolation::go_on;
    search.visit_violation = [&](const Machine& at, const Violation& violation) {
        if (violation.kind == ViolationKind::memory && !found)
            found = {violation, schedule_of(at)};
    };
    // Each round begins with the setup, so that it includes allocations before the first step. An
    // allocator that reuses freed blocks shows an allocation only once these are used
    // up.
    constexpr std::uint64_t rounds = 20;
    for (std::uint64_t round = 0; round != rounds && !found; ++round) {
        if (options.progress && !options.progress({}))
            break;
        search.seed = options.seed + round;
        static_cast<void>(search_random(machine, search));
    }
    return found;
}

[[nodiscard]] std::string what_was_searched(const ExploreOptions& options) {
    switch (options.strategy) {
    case Strategy::dpor:
    case Strategy::sleep:
    case Strategy::naive:
        return "every schedule";
    case Strategy::bound:
        return "every schedule of at most " + std::to_string(options.preemptions) + " preemptions";
    case Strategy::pct:
    case Strategy::random:
        return "random schedules";
    }
    return {};
}

} // namespace

Report explore(const Program& program, const ExploreOptions& given) {
    using SteadyClock = std::chrono::steady_clock;
    Report report;
    ExploreOptions options = given;
    std::atomic<bool> ended{false};
    if (given.progress)
        options.progress = [&](const Tally& tally) { // not called again after it returned false
            if (!ended.load(std::memory_order_relaxed) && !given.progress(tally))
                ended.store(true, std::memory_order_relaxed);
            return !ended.load(std::memory_order_relaxed);
        };
    if (options.machine.allocated_bytes != nullptr) {
        report.found = find_foreign_memory(program, options);
        if (report.found)
            return report;
    }
    options.machine.allocated_bytes = nullptr;
    SteadyClock::time_point begin;
    if (options.jobs > 1 || options.shard.count > 1) {
        begin = SteadyClock::now();
        report = explore_divided(program, options);
    } else {
        Machine machine(program, options.machine);
        begin = SteadyClock::now();
        SearchResult result = search(options.strategy, machine, search_options(options));
        report.tally = result.tally;
        report.exhausted = result.exhausted;
        report.found = std::move(result.found);
    }
    report.seconds = std::chrono::duration<double>(SteadyClock::now() - begin).count();
    report.exhausted = report.exhausted && is_exhaustive(options.strategy);
    if (report.found && options.minimises)
        report.found =
            minimise(program, options.machine, *std::move(report.found), most_minimising_executions,
                     [&] { return !options.progress || options.progress(report.tally); });
    return report;
}

std::string claim(const ExploreOptions& options, const Report& report, const std::string& scope) {
    std::string text;
    if (report.found)
        text = "refuted: ";
    else if (!report.exhausted)
        text = "not proved, a bound was reached first: ";
    else if (options.shard.count > 1)
        text = joined({"proved for shard ", std::to_string(options.shard.index), " of ",
                       std::to_string(options.shard.count), ": "});
    else
        text = "proved: ";
    text += joined({scope, "; ", what_was_searched(options), " (", name(options.strategy), ")"});
    text += joined({"; memory model ", name(options.machine.memory_model)});
    text += joined({"; at most ", std::to_string(options.machine.most_steps), " steps"});
    if (options.machine.failing_allocations != 0)
        text += joined({"; up to ", std::to_string(options.machine.failing_allocations),
                        " failing allocations"});
    if (options.machine.symmetry == Symmetry::ordered)
        text += "; threads that are alike begin in one order";
    text += joined({"; ", std::to_string(report.tally.executions), " complete executions"});
    if (report.tally.cut != 0)
        text += joined({", ", std::to_string(report.tally.cut), " cut"});
    return text + (report.exhausted ? "; exhausted" : "; not exhausted");
}

} // namespace moat::explore
