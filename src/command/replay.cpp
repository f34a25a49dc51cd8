// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `moat replay`: reads a recording; prints its findings and traffic, or what a policy would cost
// and catch; reduces it to a fault. watch/ does the work.
#include "watch/replay.hpp"

#include "moat/core/text.hpp"

#include "command/findings.hpp"
#include "command/picture/picture.hpp"
#include "command/policy_table.hpp"
#include "command/recording_input.hpp"
#include "command/subcommands.hpp"
#include "command/terminal/help.hpp"
#include "command/terminal/numbers.hpp"
#include "command/terminal/output.hpp"
#include "fault/answer.hpp"
#include "fault/recording.hpp"
#include "watch/follower.hpp"
#include "watch/recording_file.hpp"
#include "watch/reduce.hpp"

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

namespace moat::tools {

namespace {

using fault::with_commas;
using nlohmann::ordered_json;

struct ReplayArguments {
    std::string file;
    std::optional<std::uint64_t> guard;
    std::optional<std::uint64_t> guard_before;
    std::optional<std::uint64_t> quarantine;
    std::string placement;
    std::string device;
    std::string reduce;
    std::uint64_t fault = 1;
    PictureFiles pictures;
    bool json = false;

    [[nodiscard]] bool has_policy() const {
        return guard || guard_before || quarantine || !placement.empty();
    }
};

class RecordingReplay {
  public:
    explicit RecordingReplay(const ReplayArguments& arguments)
        : arguments_(arguments), file_("moat replay", arguments.file),
          findings_(arguments.json, symbols_) {}

    Exit run() {
        read();
        groups_ = traffic_.finish();
        if (!arguments_.device.empty())
            std::erase_if(groups_, [this](const watch::GroupTraffic& group) {
                return !group.devices.contains(arguments_.device);
            });
        if (arguments_.has_policy())
            replay_policy();
        else
            conclude();
        if (!arguments_.reduce.empty())
            reduce();
        if (arguments_.pictures.wanted() &&
            !draw_recording("moat replay", arguments_.file, arguments_.pictures))
            return Exit::bound;
        if (!findings_.empty())
            return Exit::found;
        return damage_ ? Exit::bound : Exit::success;
    }

  private:
    void read() {
        const auto report = [this](const watch::Finding& found) {
            if (!arguments_.device.empty() && found.device != arguments_.device)
                return;
            const std::string text = findings_.add(found);
            if (!arguments_.has_policy())
                std::cout << text;
        };
        fault::RecordingReader& reader = file_.reader();
        auto event = reader.next();
        for (; event && *event != nullptr && output_works(); event = reader.next()) {
            ++events_;
            if (first_ns_ == 0) // devices are described before the first time
                first_ns_ = (*event)->time_ns;
            last_ns_ = (*event)->time_ns;
            follow(follower_, **event, report);
            print_note(**event);
        }
        if (!event)
            damage_ = event.error();
        if (damage_ && events_ == 0)
            throw Stop{Exit::bound, "moat replay: " + arguments_.file + ": " + to_string(*damage_)};
        if (damage_)
            std::cerr << "moat replay: " << arguments_.file << ": " << to_string(*damage_)
                      << "; only the " << with_commas(events_) << " events before it are known\n";
        else if (reader.incomplete_bytes() != 0)
            std::cerr << "moat replay: " << arguments_.file << " ends within a record: ignored "
                      << with_commas(reader.incomplete_bytes()) << " bytes\n";
    }

    void print_note(const fault::DmaEvent& event) {
        if (!arguments_.device.empty() && event.device != arguments_.device)
            return;
        const std::string text = findings_.add_note(event);
        if (!arguments_.has_policy())
            std::cout << text;
    }

    [[nodiscard]] double seconds() const {
        return static_cast<double>(last_ns_ - std::min(first_ns_, last_ns_)) / 1e9;
    }

    /// Without a policy: the traffic.
    void conclude() {
        if (arguments_.json)
            return print_json();
        std::cout << findings_.repeated();
        if (findings_.empty())
            std::cout << "No fault was recorded.\n";
        std::cout << with_commas(events_) << " events in " << time_text(seconds() * 1e9) << '\n';
        if (follower_.lost() != 0)
            std::cout << "Lost: " << counted(follower_.lost(), "event") << '\n';
        for (const watch::DeviceCounts& device : follower_.devices())
            if (arguments_.device.empty() || device.device == arguments_.device)
                std::cout << device.device << (device.driver.empty() ? "" : " " + device.driver)
                          << ": " << with_commas(device.maps) << " maps, "
                          << with_commas(device.unmaps) << " unmaps, " << with_commas(device.live)
                          << " live at the end (" << to_string(ByteCount(device.live_bytes))
                          << ")\n";
        for (const watch::GroupTraffic& group : groups_)
            print_exposure(group);
    }

    static void print_exposure(const watch::GroupTraffic& group) {
        const watch::Exposure exposure = watch::exposure_of(group);
        std::cout << names_of(group) << ": " << counted(exposure.adjacent_pairs, "pair")
                  << " of neighbours without an unmapped page between them";
        const watch::Spread& reuse = exposure.reused_after_ns;
        if (reuse.count != 0)
            std::cout << "; addresses were used again after "
                      << time_text(static_cast<double>(reuse.least)) << " at the earliest, "
                      << time_text(static_cast<double>(reuse.median)) << " in the median";
        std::cout << '\n';
    }

    void print_json() {
        ordered_json devices = ordered_json::array();
        for (const watch::DeviceCounts& device : follower_.devices())
            if (arguments_.device.empty() || device.device == arguments_.device)
                devices.push_back(json_of(device));
        ordered_json groups = ordered_json::array();
        for (const watch::GroupTraffic& group : groups_)
            groups.push_back(
                {{"devices", group.devices}, {"exposure", json_of(watch::exposure_of(group))}});
        std::cout << text_of({{"schema", "moat.recording/1"},
                              {"events", events_},
                              {"bytes", file_.reader().offset()},
                              {"incomplete_bytes", damage_ ? 0 : file_.reader().incomplete_bytes()},
                              {"damage",
                               damage_ ? ordered_json(to_string(*damage_)) : ordered_json(nullptr)},
                              {"seconds", seconds()},
                              {"faults", follower_.faults()},
                              {"faults_not_logged", follower_.faults_without_line()},
                              {"events_lost", follower_.lost()},
                              {"devices", devices},
                              {"groups", groups}})
                  << '\n';
    }

    [[nodiscard]] watch::Policy policy() const {
        watch::Policy policy{.guard = ByteCount(arguments_.guard.value_or(0)),
                             .guard_before = ByteCount(arguments_.guard_before.value_or(0)),
                             .quarantine = ByteCount(arguments_.quarantine.value_or(0))};
        if (!arguments_.placement.empty())
            policy.placement =
                arguments_.placement == "right" ? dma::Placement::right : dma::Placement::left;
        return policy;
    }

    void replay_policy() {
        const watch::Policy wanted = policy();
        const watch::Policy plain;
        if (groups_.empty() && !arguments_.json)
            std::cout << "No mapping was recorded.\n";
        for (const watch::GroupTraffic& group : groups_) {
            const auto before = outcome_of(group, plain);
            const auto after = outcome_of(group, wanted);
            if (arguments_.json) {
                print_policy_json(group, plain, before);
                print_policy_json(group, wanted, after);
                continue;
            }
            std::cout << names_of(group) << ": " << counted(before.cost.maps, "map")
                      << "; policy: " << to_text(wanted) << '\n'
                      << policy_table({{"recorded", watch::exposure_of(group)},
                                       {"guard 0", before.exposure, &before.cost},
                                       {"policy", after.exposure, &after.cost}})
                      << '\n';
        }
    }

    static watch::PolicyOutcome outcome_of(const watch::GroupTraffic& group,
                                           const watch::Policy& policy) {
        return or_stop(watch::replay(group, policy), Exit::usage,
                       "moat replay: the policy " + to_text(policy));
    }

    static void print_policy_json(const watch::GroupTraffic& group, const watch::Policy& policy,
                                  const watch::PolicyOutcome& outcome) {
        ordered_json line = {{"schema", "moat.policy/1"}, {"devices", group.devices}};
        line.update(json_of(policy));
        line["cost"] = json_of(outcome.cost);
        line["exposure"] = json_of(outcome.exposure);
        std::cout << text_of(line) << '\n';
    }

    /// Reads the recording once more. Return: false after reporting a file that cannot be written.
    void reduce() {
        const std::string about = "moat replay: --reduce " + arguments_.reduce;
        const auto pass = [this](fault::DmaEventSink sink) -> Result<void> {
            RecordingFile file("moat replay", arguments_.file);
            auto event = file.reader().next();
            for (; event && *event != nullptr; event = file.reader().next())
                sink(**event);
            return {}; // what precedes damage can be reduced
        };
        auto out =
            or_stop(watch::create_recording(arguments_.reduce, symbols_), Exit::bound, about);
        Result<void> written;
        const auto keep = [&](const fault::DmaEvent& event) {
            if (written)
                written = out.add(event);
        };
        const auto reduced =
            or_stop(watch::reduce(pass, arguments_.fault - 1, keep), Exit::bound, about);
        or_stop(written, Exit::bound, about);
        or_stop(out.flush(), Exit::bound, about);
        if (arguments_.json)
            std::cout << text_of({{"schema", "moat.reduction/1"},
                                  {"file", arguments_.reduce},
                                  {"fault", arguments_.fault},
                                  {"events", reduced.events},
                                  {"kept", reduced.kept}})
                      << '\n';
        else
            std::cout << "Fault " << arguments_.fault << " needs " << with_commas(reduced.kept)
                      << " of " << with_commas(reduced.events) << " events: " << arguments_.reduce
                      << '\n';
    }

    [[nodiscard]] static std::string names_of(const watch::GroupTraffic& group) {
        std::string names;
        for (const std::string& each : group.devices)
            names += (names.empty() ? "" : ", ") + each;
        return names;
    }

    const ReplayArguments& arguments_;
    RecordingFile file_;
    std::function<void(std::uintptr_t, fault::FrameSink)> symbols_ = [this](std::uintptr_t address,
                                                                            fault::FrameSink sink) {
        file_.reader().symbolise(address, sink);
    };
    Findings findings_;
    watch::Traffic traffic_;
    watch::Follower follower_{{.observer = &traffic_}};
    std::vector<watch::GroupTraffic> groups_;
    std::optional<Error> damage_;
    std::uint64_t events_ = 0;
    std::uint64_t first_ns_ = 0;
    std::uint64_t last_ns_ = 0;
};

Exit run(const ReplayArguments& arguments) {
    require_output("moat replay",
                   {arguments.reduce, arguments.pictures.html(), arguments.pictures.trace()});
    return RecordingReplay(arguments).run();
}

} // namespace

void add_replay(CLI::App& app, Exit& exit) {
    static ReplayArguments arguments;
    CLI::App* const command = app.add_subcommand(
        "replay", "replay a recording: its faults, or what a policy would cost and catch");
    command->add_option("file", arguments.file, "a recording (docs/recording_format.md)")
        ->type_name("FILE")
        ->required();
    constexpr NumberRange any_size = {0, std::uint64_t{1} << 57};
    add_bytes(*command, "--guard", arguments.guard, "policy: unmapped bytes after each mapping",
              {0, std::uint64_t{1} << 30});
    add_bytes(*command, "--guard-before", arguments.guard_before,
              "policy: unmapped bytes before each mapping", {0, std::uint64_t{1} << 30});
    add_bytes(*command, "--quarantine", arguments.quarantine,
              "policy: bytes of unmapped addresses that stay out of use", any_size);
    command
        ->add_option("--placement", arguments.placement,
                     "policy: move buffers below a page to this edge of a page of their own")
        ->check(CLI::IsMember({"right", "left"}));
    command->add_option("--device", arguments.device, "show this device and its group only")
        ->type_name("BDF");
    command
        ->add_option("--reduce", arguments.reduce,
                     "write a recording of the few events that a fault needs")
        ->type_name("FILE");
    add_number(*command, "--fault", arguments.fault, "the fault to reduce to; 1 is the first", {1});
    arguments.pictures.add_options(*command, "write a page that draws the mappings of one group",
                                   "write trace events for Perfetto");
    command->add_flag("--json", arguments.json, "print JSON lines (docs/report_schema.md)");
    describe(
        *command,
        {.paragraphs =
             {"Reads a recording of moat watch --record. Without a policy it prints a report for "
              "each fault, as moat watch did, and a summary of the traffic.",
              "With a policy it runs the same maps and unmaps through moat's allocator and page "
              "tables. A table compares the recorded addresses, no guards, and the policy: the "
              "address space, page tables and time that it costs, and the overruns, late accesses "
              "and recorded faults that it catches. The time is measured by a steady clock, as the "
              "least of several runs; compare its columns."},
         .examples = {{"moat replay tests/watch/data/overrun.rec",
                       "the findings of a recording, and its traffic"},
                      {"moat replay tests/watch/data/overrun.rec --guard 4k --quarantine 1m",
                       "what a guard page and a quarantine cost and catch"},
                      {"moat replay tests/watch/data/overrun.rec --reduce /dev/null",
                       "shrink it to its first fault"}}});
    command->callback([&exit] { exit = run(arguments); });
}

} // namespace moat::tools
