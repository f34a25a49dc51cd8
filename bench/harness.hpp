// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The one shape of every benchmark: two sides alternate in one run, a row is printed, and a goal is
// judged by a ratio or a count. No measured code lives here. Every bench/<area>_bench.cpp uses it.
//
//     int main(int argc, char** argv) {
//         moat::bench::Suite suite("page_table", argc, argv);
//         suite.compare({.name = "translate, tables hot",
//                        .subject = {.run = [&](std::uint64_t count) {
//                            for (; count != 0; --count)
//                                moat::bench::keep(table.translate(next_address()));
//                        }},
//                        .against = "a hand-written 4-level walk",
//                        .other = {.run = [&](std::uint64_t count) { ... }},
//                        .goal = 1.7}); // subject / other; leave it out where the row is a guide
//         return suite.finish();
//     }
//
// The program understands --json (one object a line), --filter TEXT (rows whose name contains it)
// and --help. CMake builds bench/<area>_bench.cpp to build/<preset>/bench/bench_<area> by itself.
// Rows of `Measure::instructions` need valgrind: the program runs itself once more under callgrind,
// where all rows but those are skipped, so keep what is set up outside of the closures small.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace moat::bench {

/// Tells the compiler that `value` is used and that memory may have changed.
template <class T>
inline void keep(const T& value) {
    asm volatile("" : : "m"(value) : "memory");
}

enum class Better : std::uint8_t { lower, higher };

/// One printed line. `ratio` and `met` follow from the rest; see Suite::report.
struct Row {
    std::string name = {};
    double value = 0;
    std::string unit = {};
    std::string against = {}; ///< what is on the other side; empty where nothing is
    double against_value = 0;
    Better better = Better::lower;
    /// For the ratio where there is another side, else for the value, which then is a count and
    /// never a time. No goal: the row is a guide.
    std::optional<double> goal = {};
    /// Half the interquartile range of the ratio over the repetitions, by its median; 0: unknown.
    double noise = 0;

    [[nodiscard]] std::optional<double> ratio() const;
    [[nodiscard]] std::optional<bool> met() const;
};

/// Something to be measured.
struct Side {
    /// Performs the operation `count` times.
    std::function<void(std::uint64_t count)> run = {};
    /// Not measured; called before each call of `run`.
    std::function<void()> prepare = {};
    /// How many operations one preparation serves.
    std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
};

enum class Measure : std::uint8_t {
    time,         ///< nanoseconds an operation, the median of `repetitions`
    instructions, ///< instructions an operation, exact; for differences below 10 %
};

struct Comparison {
    std::string name = {};
    Side subject = {};
    std::string against = {}; ///< empty: the subject alone, as a guide
    Side other = {};
    std::optional<double> goal = {}; ///< for subject / other
    Measure measure = Measure::time;
    /// `Measure::instructions`: over how many operations the count is taken.
    std::uint64_t counted = 1000;
};

/// Work that several threads do at once, each on its own part.
using ThreadWork = std::function<void(unsigned thread, std::uint64_t count)>;

struct ThreadComparison {
    std::string name = {};
    ThreadWork subject = {};
    std::string against = {};
    ThreadWork other = {};
    std::optional<double> goal = {}; ///< for the subject's slow-down / the other's
    unsigned threads = 2;
};

/// Nanoseconds an operation takes each thread: alone, and beside the others.
struct ThreadTimes {
    double alone = 0;
    double together = 0;

    [[nodiscard]] double slow_down() const { return together / alone; }
};

/// Keeps the calling thread on the index-th of the cores that the program may use.
void pin_to_core(unsigned index);

/// Runs `work` once on one thread and once on `threads`, each pinned to a core of its own, all
/// started by a barrier. For rows that `compare_threads` cannot say.
[[nodiscard]] ThreadTimes time_threads(const ThreadWork& work, unsigned threads,
                                       std::uint64_t count);

/// The benchmarks of one program.
class Suite {
  public:
    /// Medians are taken of this many; both sides in turn within each.
    static constexpr int repetitions = 31;

    /// Ends the program when an argument is not understood.
    Suite(std::string area, int argc, char** argv);

    /// Whether --filter leaves this row in; for a costly set-up around a row.
    [[nodiscard]] bool wants(const std::string& name) const;

    /// Whether this run only counts instructions, many times slower than it would be: set up and
    /// measure nothing else.
    [[nodiscard]] bool only_counts() const { return inside_callgrind_; }

    void compare(const Comparison& what);

    /// The row's values are slow-downs: each thread's time beside others over its time alone. A
    /// pure-arithmetic loop on the other side says what the machine itself takes.
    void compare_threads(const ThreadComparison& what);

    /// A row measured elsewhere: a count, or a figure from a longer run.
    void report(const Row& row);

    /// Return: the program's exit status; a missed goal is no failure of the program.
    [[nodiscard]] int finish() const;

  private:
    void compare_instructions(const Comparison& what);
    void count_under_callgrind();

    std::string area_;
    std::string filter_;
    std::vector<std::string> arguments_;
    bool json_ = false;
    bool inside_callgrind_ = false;
    bool header_printed_ = false;
    std::optional<std::map<std::string, double>> instructions_;
};

} // namespace moat::bench
