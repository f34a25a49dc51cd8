// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `moat watch`: follows the DMA mappings of the running kernel's drivers and reports each IOMMU
// fault with the mapping that the device strayed from. watch/ traces and diagnoses.
#include "moat/core/text.hpp"
#include "moat/fault/report.hpp"

#include "command/findings.hpp"
#include "command/picture/picture.hpp"
#include "command/picture/traffic_picture.hpp"
#include "command/subcommands.hpp"
#include "command/terminal/help.hpp"
#include "command/terminal/numbers.hpp"
#include "command/terminal/output.hpp"
#include "command/terminal/terminal.hpp"
#include "command/watch_table.hpp"
#include "fault/answer.hpp"
#include "watch/follower.hpp"
#include "watch/kernel_symbols.hpp"
#include "watch/recording_file.hpp"
#include "watch/textfile.hpp"
#include "watch/trace/source.hpp"

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <unistd.h>

namespace moat::tools {

namespace {

using nlohmann::ordered_json;
using SteadyClock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr auto table_interval = 1s;
constexpr auto record_interval = 1s; ///< what a crash may lose
constexpr auto textfile_interval = 10s;

struct WatchArguments {
    watch::SourceOptions source;
    double seconds = 0;
    std::string textfile;
    std::string record;
    PictureFiles pictures;
    bool json = false;
};

volatile std::sig_atomic_t is_interrupted = 0;

void end_on_signals() {
    struct sigaction action = {};
    action.sa_handler = [](int) { is_interrupted = 1; };
    for (const int signal : {SIGINT, SIGTERM, SIGHUP})
        ::sigaction(signal, &action, nullptr);
}

/// Prints findings, each distinct one once, and the table below them.
class WatchOutput {
  public:
    WatchOutput(const WatchArguments& arguments, watch::CurrentKernelSymbols& symbols)
        : json_(arguments.json), findings_(json_, symbols),
          has_table_(!json_ && terminal_columns(STDOUT_FILENO) != 0) {}

    void finding(const watch::Finding& found) { print(findings_.add(found)); }

    void note(const fault::DmaEvent& event) { print(findings_.add_note(event)); }

    [[nodiscard]] bool found() const { return !findings_.empty(); }

    void draw_table(const watch::Follower& follower) {
        if (!has_table_)
            return;
        const auto now = SteadyClock::now();
        const std::chrono::duration<double> seconds = now - drawn_at_;
        constexpr std::size_t most_lines = 20;
        const auto devices = follower.devices();
        erase_table();
        for (const std::string& line : watch_table(devices, maps_before_, seconds.count(),
                                                   most_lines, terminal_columns(STDOUT_FILENO))) {
            std::cout << line << '\n';
            ++table_lines_;
        }
        std::cout << std::flush;
        for (const watch::DeviceCounts& device : devices)
            maps_before_[device.device] = device.maps;
        drawn_at_ = now;
    }

    void conclude(const watch::Follower& follower, const std::vector<std::string>& sources) {
        if (json_) {
            print_summary_json(follower, sources);
            return;
        }
        erase_table();
        std::cout << findings_.repeated();
        if (findings_.empty())
            std::cout << "No fault was logged.\n";
        if (follower.faults_without_line() != 0)
            std::cout << fault::with_commas(follower.faults_without_line())
                      << " more faults were not logged: the kernel limits their rate.\n";
        if (follower.lost() != 0)
            std::cout << fault::with_commas(follower.lost())
                      << " events were lost: the buffer was full (--buffer).\n";
        std::uint64_t maps = 0;
        for (const watch::DeviceCounts& device : follower.devices())
            maps += device.maps;
        std::cout << fault::with_commas(maps) << " mappings followed.\n";
    }

  private:
    void print(const std::string& text) {
        if (!text.empty())
            erase_table();
        std::cout << text << std::flush;
    }

    static void print_summary_json(const watch::Follower& follower,
                                   const std::vector<std::string>& sources) {
        ordered_json devices = ordered_json::array();
        for (const watch::DeviceCounts& device : follower.devices())
            devices.push_back(json_of(device));
        std::cout << text_of({{"schema", "moat.watch/1"},
                              {"sources", sources},
                              {"faults", follower.faults()},
                              {"faults_not_logged", follower.faults_without_line()},
                              {"events_lost", follower.lost()},
                              {"overlaps", follower.overlaps()},
                              {"devices", devices}})
                  << '\n';
    }

    void erase_table() {
        if (table_lines_ != 0) // up, and clear to the end of the screen
            std::cout << "\033[" << table_lines_ << "A\033[J";
        table_lines_ = 0;
    }

    bool json_;
    Findings findings_;
    bool has_table_;
    std::size_t table_lines_ = 0;
    std::map<std::string, std::uint64_t> maps_before_;
    SteadyClock::time_point drawn_at_ = SteadyClock::now();
};

/// Work that is due again after a while.
class Due {
  public:
    explicit Due(SteadyClock::duration interval) : interval_(interval) {}

    [[nodiscard]] bool operator()() {
        const auto now = SteadyClock::now();
        if (now < next_)
            return false;
        next_ = now + interval_;
        return true;
    }

  private:
    SteadyClock::duration interval_;
    SteadyClock::time_point next_ = SteadyClock::now();
};

class Watch {
  public:
    Watch(const WatchArguments& arguments, watch::TraceSource source)
        : arguments_(arguments), source_(std::move(source)), output_(arguments, symbols_) {
        if (!arguments.record.empty())
            recording_ = or_stop(watch::create_recording(arguments.record, symbols_), Exit::bound,
                                 "moat watch: --record " + arguments.record);
    }

    Exit run() {
        print_sources();
        const auto end = SteadyClock::now() + std::chrono::duration<double>(arguments_.seconds);
        while (is_interrupted == 0 && output_works() &&
               (arguments_.seconds == 0 || SteadyClock::now() < end)) {
            or_stop(source_.poll(sink_), Exit::bound, "moat watch: the trace");
            if (table_is_due_())
                output_.draw_table(follower_);
            write_files();
            wait();
        }
        or_stop(source_.finish(sink_), Exit::bound, "moat watch: the trace");
        if (recording_)
            flush_recording();
        if (arguments_.pictures.wanted() &&
            !arguments_.pictures.write("moat watch", picture_.take()))
            return Exit::bound;
        output_.conclude(follower_, source_.sources());
        return output_.found() ? Exit::found : Exit::success;
    }

  private:
    void print_sources() const {
        for (const std::string& sentence : source_.sources())
            std::cerr << "moat watch: " << sentence << '\n';
        std::cerr << "moat watch: watching; Ctrl-C ends it\n";
    }

    void write_files() {
        if (!arguments_.textfile.empty() && textfile_is_due_())
            or_stop(watch::replace_file(arguments_.textfile, watch::textfile(follower_)),
                    Exit::bound, "moat watch: --textfile " + arguments_.textfile);
        if (recording_ && recording_is_due_())
            flush_recording();
    }

    void flush_recording() {
        or_stop(recording_->flush(), Exit::bound, "moat watch: --record " + arguments_.record);
    }

    void wait() const {
        std::vector<pollfd> ready;
        for (const int descriptor : source_.descriptors())
            ready.push_back({.fd = descriptor, .events = POLLIN, .revents = 0});
        ::poll(ready.data(), ready.size(),
               static_cast<int>(watch::TraceSource::poll_interval.count()));
    }

    void add(const fault::DmaEvent& event) {
        const auto report = [this](const watch::Finding& found) { output_.finding(found); };
        follower_.add(event, report);
        output_.note(event);
        if (recording_)
            or_stop(recording_->add(event), Exit::bound,
                    "moat watch: --record " + arguments_.record);
    }

    const WatchArguments& arguments_;
    watch::TraceSource source_;
    watch::CurrentKernelSymbols symbols_;
    TrafficPicture picture_{symbols_};
    watch::Follower follower_{{.observer = arguments_.pictures.wanted() ? &picture_ : nullptr}};
    WatchOutput output_;
    std::optional<fault::RecordingWriter> recording_;
    Due table_is_due_{table_interval};
    Due recording_is_due_{record_interval};
    Due textfile_is_due_{textfile_interval};
    const std::function<void(const fault::DmaEvent&)> sink_ = [this](const auto& event) {
        add(event);
    };
};

Exit run(const WatchArguments& arguments) {
    require_output("moat watch", {arguments.record, arguments.textfile, arguments.pictures.html(),
                                  arguments.pictures.trace()});
    end_on_signals();
    auto source = or_stop(watch::TraceSource::begin(arguments.source), Exit::bound, "moat watch");
    return Watch(arguments, std::move(source)).run();
}

} // namespace

void add_watch(CLI::App& app, Exit& exit) {
    static WatchArguments arguments;
    static std::optional<std::uint64_t> buffer;
    CLI::App* const command = app.add_subcommand(
        "watch", "follow this kernel's DMA mappings and name those that devices stray from");
    command
        ->add_option("--device", arguments.source.devices,
                     "watch these only: a PCI address or the name of a driver")
        ->type_name("BDF|DRIVER");
    command->add_flag("--stacks", arguments.source.stacks,
                      "record the kernel's stack of each mapping");
    add_seconds(*command, "--for", arguments.seconds, "end after this long");
    add_bytes(*command, "--buffer", buffer, "trace buffer of each CPU; default: 4 MiB",
              {std::uint64_t{64} << 10, std::uint64_t{1} << 30});
    command
        ->add_option("--instance", arguments.source.instance,
                     "read this tracefs instance, which the kernel's command line began")
        ->type_name("NAME");
    command
        ->add_option("--textfile", arguments.textfile,
                     "write counters for Prometheus' textfile collector, every 10 s")
        ->type_name("FILE");
    command->add_option("--record", arguments.record, "write what happens to a recording")
        ->type_name("FILE");
    arguments.pictures.add_options(*command, "write a page that draws the mappings of one group",
                                   "write trace events for Perfetto");
    command->add_flag("--json", arguments.json, "print JSON lines (docs/report_schema.md)");
    describe(
        *command,
        {.paragraphs =
             {"Follows the live DMA mappings of kernel drivers' devices by tracing, and the "
              "faults of the IOMMU. Each fault gets a report: device, driver, the mapping it "
              "strayed from and by how many bytes, who mapped it, whether it was unmapped, and "
              "its neighbours. Needs root, tracefs and an IOMMU; needs no patch and no module.",
              "Mappings from before the watch are unknown. To know those as well, begin the trace "
              "on the kernel's command line and name it with --instance: "
              "docs/guides/debug_a_kernel_driver.md.",
              "Everything is undone at the end. After a kill, the next start does it."},
         .examples = {{"moat watch", "watch every device"},
                      {"moat watch --device nvme --stacks", "one driver, with kernel stacks"},
                      {"moat watch --for 60 --json", "a minute, as JSON lines"}}});
    command->callback([&exit] {
        if (buffer)
            arguments.source.buffer_kib = *buffer >> 10;
        exit = run(arguments);
    });
}

} // namespace moat::tools
