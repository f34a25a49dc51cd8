// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How the harness measures and prints. What a benchmark sees is in harness.hpp.
#include "harness.hpp"

#include <algorithm>
#include <array>
#include <barrier>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <pthread.h>
#include <sched.h>
#include <string_view>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>

#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#define MOAT_BENCH_HAS_CALLGRIND 1
#else
#define MOAT_BENCH_HAS_CALLGRIND 0
#endif

namespace moat::bench {

namespace {

using Clock = std::chrono::steady_clock;

/// Long beside the clock's own cost, short beside a scheduler's time slice.
constexpr double sample_nanoseconds = 1e6;
/// How often a sample is repeated because the scheduler took the core away meanwhile.
constexpr int most_attempts = 20;

double since(Clock::time_point start) {
    return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
}

/// How often the calling thread lost its core without asking for it.
long preemptions() {
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nivcsw;
}

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

/// Return: how far `values`' ratios to `others` spread, as Row::noise says.
double noise_of(std::vector<double> values, const std::vector<double>& others) {
    if (values.size() != others.size())
        return 0;
    for (std::size_t i = 0; i != values.size(); ++i)
        values[i] /= others[i];
    std::ranges::sort(values);
    const std::size_t quarter = values.size() / 4;
    return (values[values.size() - 1 - quarter] - values[quarter]) / 2 / values[values.size() / 2];
}

/// Time on the wall, and whether all of it was the measured thread's own.
struct Sample {
    double nanoseconds = 0;
    bool undisturbed = true;
};

/// Return: the first undisturbed one of `sample`'s results, or the shortest of many.
template <class TakeSample>
double settled(const TakeSample& sample) {
    double shortest = std::numeric_limits<double>::max();
    for (int attempt = 0; attempt != most_attempts; ++attempt) {
        const Sample taken = sample();
        if (taken.undisturbed)
            return taken.nanoseconds;
        shortest = std::min(shortest, taken.nanoseconds);
    }
    return shortest;
}

/// Return: nanoseconds for `count` operations, preparations left out.
double time_of(const Side& side, std::uint64_t count) {
    return settled([&] {
        Sample sample;
        for (std::uint64_t left = count; left != 0;) {
            const std::uint64_t part = std::min(left, side.most);
            if (side.prepare)
                side.prepare();
            const long before = preemptions();
            const Clock::time_point start = Clock::now();
            side.run(part);
            sample.nanoseconds += since(start);
            sample.undisturbed &= preemptions() == before;
            left -= part;
        }
        return sample;
    });
}

/// Return: how many operations make a sample; `time` measures a given number of them. The fastest
/// of three counts: an interruption would make every sample of the row too short to be warm.
template <class Time>
std::uint64_t operations_a_sample(const Time& time) {
    std::uint64_t count = 1;
    for (;;) {
        const double taken = std::min({time(count), time(count), time(count)});
        if (taken >= sample_nanoseconds / 4) {
            const double scaled = static_cast<double>(count) * sample_nanoseconds / taken;
            return std::max<std::uint64_t>(1, static_cast<std::uint64_t>(scaled));
        }
        count *= 2;
    }
}

/// Return: the mean over the threads of the nanoseconds that each took.
double time_together(const ThreadWork& work, unsigned threads, std::uint64_t count) {
    return settled([&] {
        std::barrier start(static_cast<std::ptrdiff_t>(threads));
        std::vector<Sample> samples(threads);
        std::vector<std::thread> running;
        for (unsigned index = 0; index != threads; ++index)
            running.emplace_back([&, index] {
                pin_to_core(index);
                start.arrive_and_wait();
                const long before = preemptions();
                const Clock::time_point begin = Clock::now();
                work(index, count);
                samples[index] = {since(begin), preemptions() == before};
            });
        Sample mean;
        for (unsigned index = 0; index != threads; ++index) {
            running[index].join();
            mean.nanoseconds += samples[index].nanoseconds / threads;
            mean.undisturbed &= samples[index].undisturbed;
        }
        return mean;
    });
}

std::string json_string(std::string_view text) {
    std::string quoted = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\')
            quoted += '\\';
        quoted += c;
    }
    return quoted + '"';
}

std::string number(double value) {
    std::array<char, 40> text{};
    std::snprintf(text.data(), text.size(), value < 1e4 ? "%.4g" : "%.0f", value);
    return text.data();
}

void print_line(const std::array<std::string, 8>& cells) {
    constexpr std::array<int, 8> widths = {-56, 10, -12, 10, 7, 8, -6, 0};
    for (std::size_t i = 0; i != cells.size(); ++i)
        std::printf("%*s ", widths[i], cells[i].c_str());
    std::printf("\n");
}

/// The environment tells a program that runs under callgrind where to leave its counts.
constexpr const char* inside_variable = "MOAT_BENCH_INSIDE_CALLGRIND";

enum class Which : std::uint8_t { subject, other };

std::string label(const std::string& row, Which which, std::uint64_t count) {
    return row + (which == Which::subject ? " / subject / " : " / other / ") +
           std::to_string(count);
}

#if MOAT_BENCH_HAS_CALLGRIND
void count_side(const std::string& row, Which which, const Side& side, std::uint64_t count) {
    if (side.prepare)
        side.prepare();
    side.run(1); // what only the first call does is not the operation's cost
    if (side.prepare)
        side.prepare();
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
    CALLGRIND_TOGGLE_COLLECT;
    side.run(count);
    CALLGRIND_TOGGLE_COLLECT;
    CALLGRIND_STOP_INSTRUMENTATION;
    const std::string name = label(row, which, count);
    CALLGRIND_DUMP_STATS_AT(name.c_str());
}
#else
void count_side(const std::string&, Which, const Side&, std::uint64_t) {}
#endif

/// Reads callgrind's dumps: "desc: Trigger: Client Request: <label>" and "totals: <count>".
std::map<std::string, double> read_dumps(const std::filesystem::path& folder) {
    constexpr std::string_view trigger = "desc: Trigger: Client Request: ";
    constexpr std::string_view totals = "totals: ";
    std::map<std::string, double> counts;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        std::ifstream dump(entry.path());
        std::string found;
        for (std::string line; std::getline(dump, line);) {
            if (line.starts_with(trigger))
                found = line.substr(trigger.size());
            else if (line.starts_with(totals) && !found.empty())
                counts[found] = std::strtod(line.c_str() + totals.size(), nullptr);
        }
    }
    return counts;
}

/// Return: whether `arguments` ran to a good end, its output left out.
bool run_quietly(std::vector<std::string> arguments) {
    const pid_t child = fork();
    if (child == 0) {
        setenv(inside_variable, "1", 1);
        (void)!std::freopen("/dev/null", "w", stdout);
        std::vector<char*> raw;
        for (std::string& each : arguments)
            raw.push_back(each.data());
        raw.push_back(nullptr);
        execvp(raw[0], raw.data());
        _exit(127);
    }
    int status = 0;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

} // namespace

void pin_to_core(unsigned index) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    std::vector<int> cores;
    for (int core = 0; core != CPU_SETSIZE; ++core)
        if (CPU_ISSET(core, &allowed))
            cores.push_back(core);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cores[index % cores.size()], &one);
    pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

std::optional<double> Row::ratio() const {
    if (against.empty())
        return std::nullopt;
    return value / against_value;
}

std::optional<bool> Row::met() const {
    if (!goal)
        return std::nullopt;
    const double judged = ratio().value_or(value);
    return better == Better::lower ? judged <= *goal : judged >= *goal;
}

ThreadTimes time_threads(const ThreadWork& work, unsigned threads, std::uint64_t count) {
    const auto operations = static_cast<double>(count);
    return {time_together(work, 1, count) / operations,
            time_together(work, threads, count) / operations};
}

Suite::Suite(std::string area, int argc, char** argv)
    : area_(std::move(area)), arguments_(argv, argv + argc),
      inside_callgrind_(std::getenv(inside_variable) != nullptr) {
    for (std::size_t i = 1; i < arguments_.size(); ++i) {
        if (arguments_[i] == "--json") {
            json_ = true;
        } else if (arguments_[i] == "--filter" && i + 1 < arguments_.size()) {
            filter_ = arguments_[++i];
        } else {
            const bool asked = arguments_[i] == "--help";
            std::fprintf(asked ? stdout : stderr, "usage: %s [--json] [--filter TEXT]\n", argv[0]);
            std::exit(asked ? 0 : 2);
        }
    }
}

bool Suite::wants(const std::string& name) const {
    return name.find(filter_) != std::string::npos;
}

void Suite::compare(const Comparison& what) {
    if (!wants(what.name))
        return;
    if (what.measure == Measure::instructions)
        return compare_instructions(what);
    if (inside_callgrind_)
        return;
    const auto subject = [&](std::uint64_t count) { return time_of(what.subject, count); };
    const auto other = [&](std::uint64_t count) { return time_of(what.other, count); };
    const std::uint64_t subject_count = operations_a_sample(subject);
    const std::uint64_t other_count = what.against.empty() ? 0 : operations_a_sample(other);
    std::vector<double> subject_times;
    std::vector<double> other_times;
    for (int i = 0; i != repetitions; ++i) {
        subject_times.push_back(subject(subject_count) / static_cast<double>(subject_count));
        if (other_count != 0)
            other_times.push_back(other(other_count) / static_cast<double>(other_count));
    }
    report({.name = what.name,
            .value = median(subject_times),
            .unit = "ns",
            .against = what.against,
            .against_value = other_times.empty() ? 0 : median(other_times),
            .goal = what.goal,
            .noise = noise_of(subject_times, other_times)});
}

void Suite::compare_threads(const ThreadComparison& what) {
    if (!wants(what.name) || inside_callgrind_)
        return;
    const auto operations = [](const ThreadWork& work) {
        return operations_a_sample(
            [&](std::uint64_t count) { return time_together(work, 1, count); });
    };
    const std::uint64_t subject_count = operations(what.subject);
    const std::uint64_t other_count = operations(what.other);
    std::vector<double> subject;
    std::vector<double> other;
    for (int i = 0; i != repetitions; ++i) {
        subject.push_back(time_threads(what.subject, what.threads, subject_count).slow_down());
        other.push_back(time_threads(what.other, what.threads, other_count).slow_down());
    }
    report({.name = what.name,
            .value = median(subject),
            .unit = "x slower",
            .against = what.against,
            .against_value = median(other),
            .goal = what.goal,
            .noise = noise_of(subject, other)});
}

void Suite::compare_instructions(const Comparison& what) {
    // The difference of two lengths leaves out the call, the toggling and what only begins.
    const std::uint64_t lengths[] = {what.counted, 2 * what.counted};
    if (inside_callgrind_) {
        for (const std::uint64_t count : lengths) {
            count_side(what.name, Which::subject, what.subject, count);
            if (!what.against.empty())
                count_side(what.name, Which::other, what.other, count);
        }
        return;
    }
    if (!instructions_)
        count_under_callgrind();
    const auto an_operation = [&](Which which) {
        const auto shorter = instructions_->find(label(what.name, which, lengths[0]));
        const auto longer = instructions_->find(label(what.name, which, lengths[1]));
        if (shorter == instructions_->end() || longer == instructions_->end())
            return -1.0;
        return (longer->second - shorter->second) / static_cast<double>(what.counted);
    };
    const double subject = an_operation(Which::subject);
    if (subject < 0) {
        std::fprintf(stderr, "SKIPPED %s: valgrind did not count it\n", what.name.c_str());
        return;
    }
    report({.name = what.name,
            .value = subject,
            .unit = "instructions",
            .against = what.against,
            .against_value = what.against.empty() ? 0 : an_operation(Which::other),
            .goal = what.goal});
}

void Suite::count_under_callgrind() {
    std::string pattern = (std::filesystem::temp_directory_path() / "moat-bench-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) {
        instructions_.emplace();
        return;
    }
    std::vector<std::string> command = {"valgrind",
                                        "--tool=callgrind",
                                        "--quiet",
                                        "--instr-atstart=no",
                                        "--collect-atstart=no",
                                        "--callgrind-out-file=" + pattern + "/dump",
                                        std::filesystem::read_symlink("/proc/self/exe").string()};
    command.insert(command.end(), arguments_.begin() + 1, arguments_.end());
    run_quietly(command);
    instructions_ = read_dumps(pattern);
    std::filesystem::remove_all(pattern);
}

void Suite::report(const Row& row) {
    if (!wants(row.name) || inside_callgrind_)
        return;
    const auto ratio = row.ratio();
    const auto met = row.met();
    if (json_) {
        std::printf("{\"area\":%s,\"name\":%s,\"value\":%s,\"unit\":%s,\"against\":%s,"
                    "\"against_value\":%s,\"ratio\":%s,\"better\":\"%s\",\"goal\":%s,\"met\":%s,"
                    "\"noise\":%s}\n",
                    json_string(area_).c_str(), json_string(row.name).c_str(),
                    number(row.value).c_str(), json_string(row.unit).c_str(),
                    ratio ? json_string(row.against).c_str() : "null",
                    ratio ? number(row.against_value).c_str() : "null",
                    ratio ? number(*ratio).c_str() : "null",
                    row.better == Better::lower ? "lower" : "higher",
                    row.goal ? number(*row.goal).c_str() : "null",
                    met ? (*met ? "true" : "false") : "null", number(row.noise).c_str());
    } else {
        if (!std::exchange(header_printed_, true))
            print_line({area_, "value", "unit", "against", "ratio", "goal", "", "against what"});
        const std::string sign = row.better == Better::lower ? "<= " : ">= ";
        print_line({row.name, number(row.value), row.unit, ratio ? number(row.against_value) : "",
                    ratio ? number(*ratio) : "", row.goal ? sign + number(*row.goal) : "",
                    met ? (*met ? "met" : "MISSED") : "", row.against});
    }
    std::fflush(stdout);
}

int Suite::finish() const {
    return 0;
}

} // namespace moat::bench
