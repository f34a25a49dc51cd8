// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `moat stress bar-walk`: runs a BarWork on real threads for a while and reports rates,
// leaves lost to readers, errors, and threads that make no progress.
#include "moat/core/bits.hpp"
#include "moat/core/text.hpp"

#include "command/bar_work.hpp"
#include "command/subcommands.hpp"
#include "command/terminal/help.hpp"
#include "command/terminal/numbers.hpp"
#include "command/terminal/output.hpp"
#include "command/terminal/progress.hpp"
#include "command/terminal/terminal.hpp"
#include "command/watchdog.hpp"
#include "machine/vfio_host/kernel_vulnerability.hpp"
#include "machine/vfio_host/pci_devices.hpp"

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <sys/utsname.h>
#include <thread>

namespace moat::tools {

namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;
using namespace machine::vfio_host;

struct StressArguments {
    std::string machine = "soft";
    std::string device;
    std::optional<std::uint64_t> bar; ///< of soft
    unsigned readers = 2;
    double seconds = 10;
    double patience = 10;
    std::string config;
    bool accepts_crash = false;
    bool json = false;
};

constexpr std::uint64_t default_bar = 128ULL << 30;

/// The progress of a thread, for the watchdog. Each on its own cache line.
struct alignas(128) Counter {
    std::atomic<std::uint64_t> value{0};
    std::atomic<bool> has_ended{false};

    void increment() { value.fetch_add(1, std::memory_order_relaxed); }

    [[nodiscard]] std::uint64_t read() const { return value.load(std::memory_order_relaxed); }
};

struct Outcome {
    double seconds = 0;
    std::uint64_t reports = 0;
    std::optional<Error> error; ///< of the map, unmap or report that ended the run
    std::optional<Watchdog::Stalled> stalled;
};

class Stress {
  public:
    Stress(const StressArguments& arguments, BarWork& work)
        : arguments_(arguments), work_(work), progress_(arguments.readers + 1),
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
        for (unsigned i = 0; i != arguments_.readers; ++i)
            outcome_.reports += progress_[i].read();
        const std::lock_guard guard(error_lock_);
        outcome_.error = error_;
        return outcome_;
    }

  private:
    void read(unsigned reader) {
        while (!ends_.load(std::memory_order_relaxed)) {
            if (const auto done = work_.report(); !done)
                end_with(done.error());
            progress_[reader].increment();
        }
        progress_[reader].has_ended = true;
    }

    void map() {
        Counter& own = progress_[arguments_.readers];
        const auto step = [&] { own.increment(); };
        while (!ends_.load(std::memory_order_relaxed)) {
            if (const auto done = work_.round(step); !done)
                end_with(done.error());
            own.increment();
        }
        own.has_ended = true;
    }

    void end_with(const Error& error) {
        const std::lock_guard guard(error_lock_);
        if (!error_)
            error_ = error;
        ends_ = true;
    }

    /// Waits until all threads have ended, or one makes no progress.
    void watch() {
        Progress progress(arguments_.seconds);
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
            progress({.what = "bar-walk", .count = work_.rounds(), .unit = "rounds"});
        }
    }

    [[nodiscard]] double seconds() const {
        return std::chrono::duration<double>(Clock::now() - begin_).count();
    }

    const StressArguments& arguments_;
    BarWork& work_;
    std::vector<Counter> progress_; ///< of the readers, then of the mapper
    Watchdog watchdog_;
    std::atomic<bool> ends_{false};
    std::mutex error_lock_;
    std::optional<Error> error_;
    Outcome outcome_;
    std::vector<std::thread> threads_;
    Clock::time_point begin_ = Clock::now();
};

struct Subject {
    std::string device = {}; ///< of vfio
    std::string release = {};
    KernelVerdict kernel = {};

    [[nodiscard]] ordered_json kernel_json() const {
        return {{"release", release}, {"state", name(kernel.state)}, {"why", kernel.why}};
    }
};

/// A report of a run, as text or as a line of JSON.
class Report {
  public:
    Report(const StressArguments& arguments, const Subject& subject, const BarWork& work,
           const Outcome& outcome)
        : arguments_(arguments), subject_(subject), work_(work), outcome_(outcome) {}

    /// Leaves that readers remove in the kernel are no failure of moat.
    [[nodiscard]] bool clean() const {
        const bool whole = !on_kernel() && work_.counts().lost_leaves.value_or(0) != 0;
        return !whole && !outcome_.error && !outcome_.stalled;
    }

    void print_json() const {
        const BarWork::Counts counts = work_.counts();
        ordered_json line;
        line["schema"] = "moat.stress/1";
        line["stress"] = "bar-walk";
        line["machine"] = arguments_.machine;
        line["device"] = nullptr;
        line["kernel"] = nullptr;
        if (on_kernel()) {
            line["device"] = subject_.device;
            line["kernel"] = subject_.kernel_json();
        }
        line["bar_bytes"] = work_.bar().value();
        line["readers"] = arguments_.readers;
        line["seconds"] = outcome_.seconds;
        line["rounds"] = work_.rounds();
        line["bytes_mapped"] = work_.bytes();
        line["leaves_mapped"] = or_null(counts.leaves);
        line["reports"] = outcome_.reports;
        line["leaves_lost"] = or_null(counts.lost_leaves);
        line["einval_retried"] = counts.retries;
        line["error"] = nullptr;
        if (outcome_.error)
            line["error"] = {{"errno", work_.errno_name(*outcome_.error)},
                             {"text", to_string(*outcome_.error)}};
        line["stalled"] = nullptr;
        if (outcome_.stalled)
            line["stalled"] = {{"who", name_of_stalled()}, {"seconds", outcome_.stalled->seconds}};
        line["clean"] = clean();
        std::cout << line << '\n';
    }

    void print_text() const {
        const BarWork::Counts counts = work_.counts();
        std::cout << work_.rounds() << " rounds (" << rate(work_.rounds()) << "), "
                  << (work_.bytes() >> 30) << " GiB mapped (" << rate(work_.bytes() >> 30) << ")";
        if (const auto leaves = counts.leaves)
            std::cout << " by " << *leaves << " leaves (" << rate(*leaves) << ")";
        std::cout << ", " << outcome_.reports << " reports by " << arguments_.readers
                  << " readers (" << rate(outcome_.reports) << ")\n"
                  << "leaves lost to readers: ";
        if (const auto lost = counts.lost_leaves)
            std::cout << *lost << '\n';
        else
            std::cout << "not counted by this kernel (no thp_split_pud in /proc/vmstat)\n";
        if (on_kernel())
            std::cout << "maps that failed with EINVAL: " << counts.retries
                      << ", each retried in smaller pieces\n";
        if (outcome_.error)
            std::cout << "stopped by " << work_.errno_name(*outcome_.error) << ": "
                      << to_string(*outcome_.error) << '\n';
        if (outcome_.stalled)
            std::cout << name_of_stalled() << " stalled for " << outcome_.stalled->seconds
                      << " s after " << outcome_.stalled->progress
                      << (is_mapper(*outcome_.stalled) ? " steps\n" : " reports\n");
        std::cout << (clean() ? toned(Tone::good, "clean") : toned(Tone::bad, "NOT clean")) << '\n';
    }

  private:
    [[nodiscard]] bool on_kernel() const { return !subject_.device.empty(); }

    [[nodiscard]] bool is_mapper(const Watchdog::Stalled& stalled) const {
        return stalled.worker == arguments_.readers;
    }

    [[nodiscard]] std::string name_of_stalled() const {
        return is_mapper(*outcome_.stalled)
                   ? "the mapper"
                   : "reader " + std::to_string(outcome_.stalled->worker + 1);
    }

    [[nodiscard]] static ordered_json or_null(const std::optional<std::uint64_t>& value) {
        return value ? ordered_json(*value) : ordered_json(nullptr);
    }

    /// With one decimal below one a second.
    [[nodiscard]] std::string rate(std::uint64_t count) const {
        const double value = static_cast<double>(count) / std::max(outcome_.seconds, 1e-9);
        std::ostringstream text;
        text << std::fixed << std::setprecision(value < 10 ? 1 : 0) << value << "/s";
        return text.str();
    }

    const StressArguments& arguments_;
    const Subject& subject_;
    const BarWork& work_;
    const Outcome& outcome_;
};

[[nodiscard]] Exit run(const StressArguments& arguments, const Subject& subject,
                       std::unique_ptr<BarWork> work) {
    // A stuck thread cannot be joined, so the objects that it uses must stay.
    auto* const stress = new Stress(arguments, *work);
    const Outcome outcome = stress->run();
    const Report report(arguments, subject, *work, outcome);
    arguments.json ? report.print_json() : report.print_text();
    if (outcome.stalled) {
        std::_Exit(static_cast<int>(finish_output(Exit::found)));
    }
    delete stress;
    return report.clean() ? Exit::success : Exit::found;
}

/// Of the running kernel: by its release, and by its configuration if that is readable.
[[nodiscard]] Subject ask_kernel(const std::string& config_file) {
    utsname about{};
    ::uname(&about);
    Subject subject{.release = about.release};
    std::ostringstream config;
    for (const std::string& each : {config_file, "/boot/config-" + subject.release,
                                    "/lib/modules/" + subject.release + "/config"})
        if (std::ifstream in(each); in && config.view().empty())
            config << in.rdbuf();
    subject.kernel = kernel_vulnerability(subject.release, device_leaves(config.view()));
    return subject;
}

/// Whether to begin. Prints to stderr, which survives a crash.
[[nodiscard]] bool may_begin(const StressArguments& arguments, const Subject& subject) {
    std::cerr << "kernel " << subject.release << ", CVE-2026-31456: " << name(subject.kernel.state)
              << ": " << subject.kernel.why << '\n';
    if (subject.kernel.state == Vulnerability::not_affected ||
        subject.kernel.state == Vulnerability::fixed || arguments.accepts_crash)
        return true;
    std::cerr << "moat stress: not started: it may crash this host, or hang every later read of "
                 "/proc/PID/numa_maps; --i-accept-a-crash starts it\n";
    if (arguments.json)
        std::cout << ordered_json({{"schema", "moat.stress_refused/1"},
                                   {"stress", "bar-walk"},
                                   {"machine", arguments.machine},
                                   {"kernel", subject.kernel_json()}})
                  << '\n';
    return false;
}

[[nodiscard]] Exit run_vfio(const StressArguments& arguments) {
    Subject subject = ask_kernel(arguments.config);
    if (!may_begin(arguments, subject))
        return Exit::bound;
    std::optional<machine::Bdf> wanted;
    if (!arguments.device.empty())
        wanted = or_stop(parse_bdf(arguments.device), Exit::usage, "moat stress");
    machine::Bdf device;
    auto walk = or_stop(kernel_bar_walk(wanted, device), Exit::bound, "moat stress");
    subject.device = to_string(device);
    if (!arguments.json)
        std::cout << subject.device << ": a BAR of " << (walk->bar().value() >> 20) << " MiB\n"
                  << std::flush;
    return run(arguments, subject, std::move(walk));
}

[[nodiscard]] Exit run(const StressArguments& arguments) {
    require_output("moat stress");
    if (arguments.machine == "vfio") {
        if (arguments.bar)
            throw CLI::ValidationError("--bar needs --machine soft; a device has its own BARs");
        return run_vfio(arguments);
    }
    if (!arguments.device.empty() || !arguments.config.empty() || arguments.accepts_crash)
        throw CLI::ValidationError(
            "a device, --kernel-config and --i-accept-a-crash need --machine vfio");
    const std::uint64_t bar = arguments.bar.value_or(default_bar);
    if (bar == 0 || !is_aligned(bar, 12) || bar > largest_bar.value())
        throw CLI::ValidationError("--bar: " + std::to_string(bar) +
                                   " is not a multiple of 4K from 4K to 1T");
    return run(arguments, {}, bar_walk(ByteCount(bar)));
}

} // namespace

void add_stress(CLI::App& app, Exit& exit) {
    static StressArguments arguments;
    CLI::App* const command =
        app.add_subcommand("stress", "run an engine on real threads for a stated time");
    command->require_subcommand(1);
    describe(
        *command,
        {.paragraphs = {"Runs an engine on real threads for a stated time and prints rates, lost "
                        "leaves, errors and stalled threads.",
                        "bar-walk reproduces the page-walk race: it maps large BARs for DMA in a "
                        "loop while threads read numa_maps, on moat's address space or on this "
                        "host's kernel. If this host's kernel may crash, it starts only with "
                        "--i-accept-a-crash."},
         .examples = {{"moat stress bar-walk --time 1", "the reported case, a BAR of 128 GiB"},
                      {"moat stress bar-walk --bar 1G --readers 1 --time 0.5 --json",
                       "a smaller BAR, JSON for a script"}}});
    CLI::App* const walk =
        command->add_subcommand("bar-walk", "map large BARs for DMA while threads read numa_maps");
    walk->add_option("device", arguments.device,
                     "PCI address (--machine vfio); default: the function with the largest BAR");
    walk->add_option("--machine", arguments.machine,
                     "soft: moat's address space; vfio: this host's kernel")
        ->check(CLI::IsMember({"soft", "vfio"}))
        ->capture_default_str();
    add_bytes(*walk, "--bar", arguments.bar, "size of the large BAR (--machine soft)",
              {4096, largest_bar.value()})
        ->default_str("128G");
    add_number(*walk, "--readers", arguments.readers, "threads that read numa_maps", {0, 64})
        ->capture_default_str();
    add_seconds(*walk, "--time", arguments.seconds, "run for this long")->capture_default_str();
    add_seconds(*walk, "--watchdog", arguments.patience,
                "report a thread that makes no progress for this long")
        ->capture_default_str();
    walk->add_option("--kernel-config", arguments.config,
                     "the kernel's configuration, if /boot has none")
        ->check(CLI::ExistingFile)
        ->type_name("FILE");
    walk->add_flag("--i-accept-a-crash", arguments.accepts_crash,
                   "start even if this host's kernel has, or may have, CVE-2026-31456");
    walk->add_flag("--json", arguments.json,
                   "print the result as one JSON line (docs/report_schema.md)");
    walk->callback([&exit] { exit = run(arguments); });
}

} // namespace moat::tools
