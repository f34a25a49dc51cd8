// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `moat stress bar-walk`: runs bar_walk.hpp on real threads for a while and says what became of it:
// rates, leaves lost to readers, errors, and a reader that stands still.
#include "moat/core/text.hpp"

#include "bar_walk.hpp"
#include "subcommands.hpp"
#include "watchdog.hpp"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <unistd.h>

namespace moat::tools {

namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

struct Arguments {
    std::uint64_t bar = 128ULL << 30;
    unsigned readers = 2;
    double seconds = 10;
    double patience = 10;
    bool json = false;
};

/// Where a thread has come to, for the one that watches. Each on a line of its own.
struct alignas(128) Counter {
    std::atomic<std::uint64_t> value{0};
    std::atomic<bool> has_ended{false};

    void increment() { value.fetch_add(1, std::memory_order_relaxed); }

    [[nodiscard]] std::uint64_t read() const { return value.load(std::memory_order_relaxed); }
};

/// What was found, by the end of the run.
struct Outcome {
    double seconds = 0;
    std::uint64_t rounds = 0;
    std::uint64_t leaves = 0;
    std::uint64_t reports = 0;
    std::uint64_t lost_leaves = 0;
    std::optional<Error> error; ///< of a map or an unmap, which ended the run
    std::optional<Watchdog::Stalled> stalled;

    [[nodiscard]] bool clean() const { return lost_leaves == 0 && !error && !stalled; }
};

class Stress {
  public:
    explicit Stress(const Arguments& arguments)
        : arguments_(arguments), walk_(ByteCount(arguments.bar)), progress_(arguments.readers + 1),
          watchdog_(arguments.readers + 1, arguments.patience) {}

    Outcome run() {
        for (unsigned i = 0; i != arguments_.readers; ++i)
            threads_.emplace_back([this, i] { read(i); });
        threads_.emplace_back([this] { map(); });
        watch();
        if (!outcome_.stalled)
            for (std::thread& each : threads_)
                each.join();
        outcome_.seconds = seconds();
        outcome_.rounds = walk_.rounds();
        for (unsigned i = 0; i != arguments_.readers; ++i)
            outcome_.reports += progress_[i].read();
        outcome_.leaves = walk_.leaves();
        outcome_.lost_leaves = walk_.lost_leaves();
        return outcome_;
    }

  private:
    void read(unsigned reader) {
        while (!ends_.load(std::memory_order_relaxed)) {
            walk_.report();
            progress_[reader].increment();
        }
        progress_[reader].has_ended = true;
    }

    void map() {
        while (!ends_.load(std::memory_order_relaxed)) {
            if (const auto done = walk_.round(); !done) {
                outcome_.error = done.error();
                ends_ = true;
            }
            progress_[arguments_.readers].increment();
        }
        progress_[arguments_.readers].has_ended = true;
    }

    /// Until all have ended, or one stands still, be it on its way to the end.
    void watch() {
        const bool shows = isatty(STDERR_FILENO) != 0;
        for (bool all_ended = false; !all_ended && !outcome_.stalled;) {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            if (seconds() >= arguments_.seconds)
                ends_ = true;
            all_ended = true;
            for (std::size_t i = 0; i != progress_.size(); ++i)
                if (!progress_[i].has_ended) {
                    all_ended = false;
                    if (const auto stalled = watchdog_.observe(i, progress_[i].read(), seconds()))
                        outcome_.stalled = stalled;
                }
            if (shows)
                std::cerr << '\r' << static_cast<int>(seconds()) << " of " << arguments_.seconds
                          << " s, " << walk_.rounds() << " rounds   " << std::flush;
        }
        if (shows)
            std::cerr << '\n';
    }

    [[nodiscard]] double seconds() const {
        return std::chrono::duration<double>(Clock::now() - begin_).count();
    }

    const Arguments& arguments_;
    BarWalk walk_;
    std::vector<Counter> progress_; ///< of the readers, then of the mapper
    Watchdog watchdog_;
    std::atomic<bool> ends_{false};
    Outcome outcome_;
    std::vector<std::thread> threads_;
    Clock::time_point begin_ = Clock::now();
};

[[nodiscard]] std::string name_of(std::size_t worker, const Arguments& arguments) {
    return worker == arguments.readers ? "the mapper" : "reader " + std::to_string(worker + 1);
}

void print_json(const Arguments& arguments, const Outcome& outcome) {
    ordered_json line;
    line["stress"] = "bar-walk";
    line["bar_bytes"] = arguments.bar;
    line["readers"] = arguments.readers;
    line["seconds"] = outcome.seconds;
    line["rounds"] = outcome.rounds;
    line["leaves_mapped"] = outcome.leaves;
    line["reports"] = outcome.reports;
    line["leaves_lost"] = outcome.lost_leaves;
    line["error"] = nullptr;
    if (outcome.error)
        line["error"] = {{"errno", vfio::errno_name(outcome.error->code())},
                         {"text", to_string(*outcome.error)}};
    line["stalled"] = nullptr;
    if (outcome.stalled)
        line["stalled"] = {{"who", name_of(outcome.stalled->worker, arguments)},
                           {"seconds", outcome.stalled->seconds}};
    line["clean"] = outcome.clean();
    std::cout << line << '\n';
}

void print_text(const Arguments& arguments, const Outcome& outcome) {
    const auto rate = [&](std::uint64_t count) {
        return std::to_string(static_cast<std::uint64_t>(static_cast<double>(count) /
                                                         std::max(outcome.seconds, 1e-9))) +
               "/s";
    };
    std::cout << outcome.rounds << " rounds (" << rate(outcome.rounds) << "), " << outcome.leaves
              << " leaves mapped (" << rate(outcome.leaves) << "), " << outcome.reports
              << " reports by " << arguments.readers << " readers (" << rate(outcome.reports)
              << ")\n"
              << "leaves lost to readers: " << outcome.lost_leaves << '\n';
    if (outcome.error)
        std::cout << "ended by " << vfio::errno_name(outcome.error->code()) << ": "
                  << to_string(*outcome.error) << '\n';
    if (outcome.stalled)
        std::cout << name_of(outcome.stalled->worker, arguments) << " stands still for "
                  << outcome.stalled->seconds << " s, after " << outcome.stalled->progress
                  << (outcome.stalled->worker == arguments.readers ? " rounds\n" : " reports\n");
    std::cout << (outcome.clean() ? "clean\n" : "NOT clean\n");
}

[[nodiscard]] Exit run(const Arguments& arguments) {
    // A thread that stands still cannot be joined, nor can what it uses go.
    auto* const stress = new Stress(arguments);
    const Outcome outcome = stress->run();
    arguments.json ? print_json(arguments, outcome) : print_text(arguments, outcome);
    if (outcome.stalled) {
        std::cout.flush();
        std::_Exit(static_cast<int>(Exit::found));
    }
    delete stress;
    return outcome.clean() ? Exit::success : Exit::found;
}

} // namespace

void add_stress(CLI::App& app, Exit& exit) {
    static Arguments arguments;
    CLI::App* const command =
        app.add_subcommand("stress", "real threads on the engines, for a stated time");
    command->require_subcommand(1);
    CLI::App* const walk = command->add_subcommand(
        "bar-walk", "DMA maps of three BARs in a loop beside readers of numa_maps");
    walk->add_option("--bar", arguments.bar, "size of the large BAR, as 128G")
        ->transform(CLI::AsSizeValue(false))
        ->default_str("128G");
    walk->add_option("--readers", arguments.readers, "threads that report")
        ->check(CLI::Range(0U, 64U))
        ->capture_default_str();
    walk->add_option("--time", arguments.seconds, "how many seconds")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    walk->add_option("--watchdog", arguments.patience,
                     "seconds after which a thread stands still that made no progress")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    walk->add_flag("--json", arguments.json, "the result as one line of JSON");
    walk->callback([&exit] {
        if (arguments.bar == 0 || !is_aligned(arguments.bar, 12) ||
            arguments.bar > BarWalk::largest_bar.value())
            throw CLI::ValidationError("--bar is a multiple of 4K, from 4K to 1T, and not " +
                                       std::to_string(arguments.bar));
        exit = run(arguments);
    });
}

} // namespace moat::tools
