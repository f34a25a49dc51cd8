// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The measurements of a data sheet: latencies (how long), and what a device does when an access is
// blocked. sheet_reach.hpp has the reaches (how far).
#include "audit/sheet.hpp"

#include "audit/engine/sheet_reach.hpp"
#include "audit/sheet_bench.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace moat::audit {

namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

struct MeasureKind {
    std::string_view name;
    Unit unit;
};

constexpr std::array<MeasureKind, measures> measure_kinds = {
    {{"read-before", Unit::bytes},
     {"read-after", Unit::bytes},
     {"write-before", Unit::bytes},
     {"write-after", Unit::bytes},
     {"rest-of-page", Unit::bytes},
     {"granularity", Unit::bytes},
     {"late", Unit::microseconds},
     {"late-after-deletion", Unit::microseconds},
     {"late-after-stop", Unit::microseconds},
     {"late-after-master", Unit::microseconds},
     {"late-after-reset", Unit::microseconds},
     {"order", Unit::word},
     {"says-if-blocked", Unit::word},
     {"recovery", Unit::word}}};

/// How long a device may take for a late access.
constexpr nanoseconds horizon = 10ms;
/// What a latency is counted from.
using Stop = Measure;

/// How long accesses to one operation's data go on.
class Latency {
  public:
    Latency(SheetBench& bench, unsigned operation, ByteCount length)
        : bench_(bench), operation_(operation), length_(length) {}

    /// Unmaps the data at a time after `from`; a fault later shows an access. Bisects.
    Result<Cell> measure(Stop from) {
        MOAT_LET(std::optional<Trial> trial, at(from, 0ns));
        if (!trial)
            return Cell{.what = from,
                        .cannot_see = from == Measure::late_after_deletion
                                          ? "the driver deletes no queue"
                                          : "the function has no reset"};
        if (!trial->is_late)
            return cell(from, 0ns, trial->end);
        nanoseconds low = trial->begin;
        std::optional<nanoseconds> high;
        for (nanoseconds time = 1us; !high && time < horizon; time *= 2) {
            MOAT_LET(trial, at(from, time));
            if (trial->is_late)
                low = trial->begin;
            else
                high = trial->end;
        }
        while (high && *high - low > 1us) {
            MOAT_LET(trial, at(from, low + (*high - low) / 2));
            if (trial->is_late ? trial->begin <= low : trial->end >= *high)
                break; // what unmapping takes
            (trial->is_late ? low : *high) = trial->is_late ? trial->begin : trial->end;
        }
        Cell made = cell(from, low, high.value_or(low));
        if (!high)
            made.cannot_see = "later accesses";
        return made;
    }

  private:
    struct Trial {
        bool is_late = false;
        nanoseconds begin{}; ///< of the unmap, after the completion or stop
        nanoseconds end{};
    };

    static Cell cell(Measure what, nanoseconds low, nanoseconds high) {
        const auto value = static_cast<std::uint64_t>(low / 1us);
        const auto end = static_cast<std::uint64_t>((high + 1us - 1ns) / 1us);
        return {.what = what, .value = value, .resolution = end - value};
    }

    /// Return: whether the function can be stopped so.
    Result<bool> stop(Stop how) {
        switch (how) {
        case Measure::late_after_deletion:
            return bench_.driver().delete_queues();
        case Measure::late_after_stop:
            bench_.stop();
            return true;
        case Measure::late_after_master:
            bench_.function().set_bus_master(false);
            return true;
        case Measure::late_after_reset:
            return bench_.function().reset().has_value();
        default:
            return true;
        }
    }

    /// Return: nothing if the function cannot be stopped so.
    Result<std::optional<Trial>> at(Stop from, nanoseconds time) {
        MOAT_TRY(bench_.start({}));
        MOAT_LET(const Ran ran, bench_.run(operation_, length_, {}));
        MOAT_LET(const bool is_stopped, stop(from));
        if (!is_stopped)
            return std::optional<Trial>();
        const nanoseconds start = bench_.now();
        bench_.wait(time);
        Trial trial{.begin = bench_.now() - start};
        MOAT_TRY(bench_.unmap(ran.given.back()));
        trial.end = bench_.now() - start;
        MOAT_TRY(bench_.settle(horizon));
        trial.is_late = bench_.is_blocked_inside(ran.given.back());
        return std::optional(trial);
    }

    SheetBench& bench_;
    const unsigned operation_;
    const ByteCount length_;
};

/// Where memory may end inside an operation's data.
struct Cuts {
    std::uint64_t used;   ///< bytes that the device accesses
    std::uint64_t step;   ///< the data's alignment
    std::uint64_t middle; ///< a multiple of it

    Cuts(const Operation& about, ByteCount length)
        : used(std::min(length, about.fills).value()),
          step(std::uint64_t{1} << about.alignment_lg2),
          middle(std::max(used / 2 / step * step, step)) {}
};

/// What one operation's device reports if memory ends in the middle of its data, and what works
/// afterwards.
class BlockedAccess {
  public:
    BlockedAccess(SheetBench& bench, unsigned operation, ByteCount length)
        : bench_(bench), operation_(operation), length_(length) {}

    /// Adds says_if_blocked and recovery. Return: whether the device still works.
    Result<bool> measure(std::vector<Cell>& cells) {
        const Cuts cuts(bench_.driver().operations()[operation_], length_);
        MOAT_LET(const Ran ran, bench_.run(operation_, length_, {Fit::cut, cuts.middle}));
        MOAT_TRY(bench_.settle({}));
        const bool was_blocked = !bench_.blocked_beside(ran.given.back()).empty();
        MOAT_LET(const std::string_view recovery, recover(ran.answer.verdict));
        constexpr std::array<std::string_view, 3> answers = {"success", "failure", "no-answer"};
        const auto add = [&](Measure what, std::string_view word) {
            if (was_blocked)
                cells.push_back({.what = what, .word = std::string(word)});
            else
                cells.push_back({.what = what, .cannot_see = "no access was blocked"});
        };
        add(Measure::says_if_blocked, answers.at(static_cast<std::size_t>(ran.answer.verdict)));
        add(Measure::recovery, recovery);
        return recovery != dead;
    }

  private:
    static constexpr std::string_view dead = "dead";

    Result<bool> works() {
        MOAT_LET(const Ran ran, bench_.run(operation_, length_, {}));
        return ran.answer.verdict == Verdict::success;
    }

    Result<std::string_view> recover(Verdict blocked) {
        MOAT_LET(const bool next_works, works());
        if (next_works) // a driver restarts a device that did not answer
            return blocked == Verdict::no_answer ? "needs-restart" : "next-works";
        for (const std::string_view word : {"needs-restart", "needs-reset"}) {
            bench_.stop();
            if (word == "needs-reset")
                static_cast<void>(bench_.function().reset());
            if (!bench_.start({}))
                continue;
            MOAT_LET(const bool works_again, works());
            if (works_again)
                return word;
        }
        return dead;
    }

    SheetBench& bench_;
    const unsigned operation_;
    const ByteCount length_;
};

/// The common divisor of the bytes that arrive before ends of memory inside the data.
Result<Cell> granularity_of(SheetBench& bench, unsigned operation, ByteCount length) {
    const auto unseen = [](std::string_view why) {
        return Cell{.what = Measure::granularity, .cannot_see = std::string(why)};
    };
    const Operation about = bench.driver().operations()[operation];
    if (about.direction != Direction::from_device)
        return unseen("canaries show writes alone");
    const Cuts cuts(about, length);
    std::uint64_t lost = 0;
    std::uint64_t common = 0;
    bool was_blocked = false;
    for (const std::uint64_t more : {0UL, 1UL, 3UL, 7UL}) {
        if (cuts.middle + more * cuts.step >= cuts.used)
            break;
        MOAT_LET(const Ran ran,
                 bench.run(operation, length, {Fit::cut, cuts.middle + more * cuts.step}));
        MOAT_TRY(bench.settle({}));
        if (ran.answer.verdict == Verdict::no_answer)
            return unseen("the device does not answer if memory ends inside a granule");
        was_blocked = was_blocked || !bench.blocked_beside(ran.given.back()).empty();
        const std::uint64_t written = SheetBench::written_inside(ran.given.back());
        lost += ran.given.back().inside() - written;
        common = std::gcd(common, written);
    }
    if (!was_blocked)
        return unseen("no access was blocked");
    if (lost == 0)
        return Cell{.what = Measure::granularity, .value = 1, .resolution = cuts.step - 1};
    return Cell{.what = Measure::granularity, .value = common == 0 ? cuts.used : common};
}

Result<Cell> order_of(SheetBench& bench, unsigned operation, ByteCount length) {
    if (bench.driver().operations()[operation].direction != Direction::from_device)
        return Cell{.what = Measure::order, .cannot_see = "the device writes no data"};
    MOAT_LET(const Ran ran, bench.run(operation, length, {}));
    MOAT_TRY(bench.settle(horizon));
    const bool is_complete = ran.written >= SheetBench::written_inside(ran.given.back());
    return Cell{.what = Measure::order, .word = is_complete ? "data-first" : "completion-first"};
}

void add_reach(std::vector<Cell>& cells, const Reach& reach) {
    const auto add_read = [&](Measure what, const ReadReach& reads) {
        Cell& cell = cells.emplace_back(what, reads.value, reads.resolution);
        if (reads.resolution == ~std::uint64_t{0}) {
            cell.resolution = 0;
            cell.cannot_see = "reads further away";
        }
    };
    const auto add_write = [&](Measure what, std::uint64_t value) {
        cells.push_back({.what = what,
                         .value = value,
                         .cannot_see = reach.wrote_beyond ? "writes further away" : ""});
    };
    add_read(Measure::read_before, reach.reads[0]);
    add_read(Measure::read_after, reach.reads[1]);
    add_write(Measure::write_before, reach.written.before);
    add_write(Measure::write_after, reach.written.after);
    cells.push_back({.what = Measure::rest_of_page, .value = reach.written.rest_of_page});
}

Result<void> add_times(SheetBench& bench, unsigned operation, std::vector<Cell>& cells) {
    MOAT_TRY(bench.start({}));
    const ByteCount length = sheet_lengths(bench.driver().operations()[operation]).back();
    MOAT_LET(Cell order, order_of(bench, operation, length));
    Latency latency(bench, operation, length);
    for (const Measure from :
         {Measure::late, Measure::late_after_deletion, Measure::late_after_stop,
          Measure::late_after_master, Measure::late_after_reset}) {
        MOAT_LET(Cell cell, latency.measure(from));
        cells.push_back(std::move(cell));
    }
    cells.push_back(std::move(order));
    return {};
}

/// Starts a driver. Return: whether it could. Errors: the machine's.
Result<bool> starts(SheetBench& bench) {
    const auto started = bench.start({});
    if (!started)
        MOAT_TRY(bench.health());
    return started.has_value();
}

void add_unseen(std::vector<Cell>& cells, std::initializer_list<Measure> all) {
    for (const Measure each : all)
        cells.push_back({.what = each, .cannot_see = "a blocked access left the device dead"});
}

/// Return: whether the device works afterwards.
Result<bool> add_blocked(SheetBench& bench, unsigned operation, std::vector<Cell>& cells) {
    MOAT_LET(const bool works, starts(bench));
    if (!works) {
        add_unseen(cells, {Measure::says_if_blocked, Measure::recovery});
        return false;
    }
    const ByteCount length = sheet_lengths(bench.driver().operations()[operation]).back();
    return BlockedAccess(bench, operation, length).measure(cells);
}

Result<void> add_granularity(SheetBench& bench, unsigned operation, std::vector<Cell>& cells) {
    MOAT_LET(const bool works, starts(bench));
    if (!works) {
        add_unseen(cells, {Measure::granularity});
        return {};
    }
    const ByteCount length = sheet_lengths(bench.driver().operations()[operation]).back();
    MOAT_LET(Cell cell, granularity_of(bench, operation, length));
    cells.push_back(std::move(cell));
    return {};
}

/// Without records of blocked accesses, what rests on them is unknown.
void hide_blocked(std::vector<Cell>& cells) {
    using enum Measure;
    for (Cell& cell : cells)
        switch (cell.what) {
        case read_before:
        case read_after:
        case late:
        case late_after_deletion:
        case late_after_stop:
        case late_after_master:
        case late_after_reset:
        case says_if_blocked:
        case recovery:
            cell = {.what = cell.what, .cannot_see = "the IOMMU does not record what it blocks"};
            break;
        case write_before:
        case write_after:
            cell.cannot_see = "writes further away";
            break;
        default:
            break;
        }
}

} // namespace

std::string_view name(Measure measure) {
    return measure_kinds.at(static_cast<std::size_t>(measure)).name;
}

Unit unit_of(Measure measure) {
    return measure_kinds.at(static_cast<std::size_t>(measure)).unit;
}

Result<Sheet> measure(machine::Machine& machine, machine::Bdf address,
                      const AuditOptions& options) {
    MOAT_LET(const auto bench, SheetBench::create(machine, address, options));
    Reaches reaches(*bench);
    MOAT_TRY(reaches.measure());
    const auto function =
        std::ranges::find(machine.functions(), address, &machine::FunctionInfo::address);
    Sheet sheet{.driver = std::string(bench->driver().name()),
                .rows = {},
                .caches_translations = function->caches_translations};
    const std::vector<Operation> operations(bench->driver().operations().begin(),
                                            bench->driver().operations().end());
    const auto add_rows = [&](std::string_view operation) {
        for (const auto& [key, reach] : reaches.all())
            if (key.first == operation) {
                Row& row = sheet.rows.emplace_back(std::string(key.first), std::string(key.second));
                add_reach(row.cells, reach);
            }
    };
    for (const Operation& each : operations)
        add_rows(each.name);
    const auto each_data_row = [&](auto&& visit) -> Result<void> {
        for (Row& row : sheet.rows) {
            const auto found = std::ranges::find(operations, row.operation, &Operation::name);
            if (row.buffer == "data" && found != operations.end())
                MOAT_TRY(visit(static_cast<unsigned>(found - operations.begin()), row.cells));
        }
        return {};
    };
    MOAT_TRY(each_data_row([&](unsigned operation, std::vector<Cell>& cells) {
        return add_times(*bench, operation, cells);
    }));
    // Last, because blocked accesses may end a device; those inside a granule more often.
    bool is_alive = true;
    MOAT_TRY(each_data_row([&](unsigned operation, std::vector<Cell>& cells) -> Result<void> {
        if (!is_alive) {
            add_unseen(cells, {Measure::says_if_blocked, Measure::recovery});
            return {};
        }
        MOAT_LET(is_alive, add_blocked(*bench, operation, cells));
        return {};
    }));
    MOAT_TRY(each_data_row([&](unsigned operation, std::vector<Cell>& cells) {
        return add_granularity(*bench, operation, cells);
    }));
    add_rows(any_operation);
    for (Row& row : sheet.rows) {
        if (!options.records_faults)
            hide_blocked(row.cells);
        std::ranges::sort(row.cells, {}, &Cell::what);
    }
    return sheet;
}

} // namespace moat::audit
