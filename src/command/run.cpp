// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `moat run`: runs a program that uses VFIO on soft devices and checks each access of theirs.
// run/launch.hpp starts it; the preloaded library, in run/preload, does the rest.
#include "command/picture/picture.hpp"
#include "command/recording_input.hpp"
#include "command/subcommands.hpp"
#include "command/terminal/help.hpp"
#include "command/terminal/numbers.hpp"
#include "command/terminal/output.hpp"
#include "core/parse.hpp"
#include "fault/answer.hpp"
#include "run/device_kinds.hpp"
#include "run/launch.hpp"
#include "run/program_file.hpp"
#include "run/supervise/supervise.hpp"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iostream>

namespace moat::tools {

namespace {

using fault::with_commas;

struct RunArguments {
    std::vector<std::string> program;
    std::vector<std::string> devices;
    std::string inject = "none";
    std::uint64_t after = 0;
    std::optional<std::uint64_t> seed;
    std::vector<std::string> limits;
    std::string api = "any";
    std::string fail;
    std::string paths = "auto";
    std::string json;
    std::string record;
    PictureFiles pictures;
    unsigned exit_code = 1;
    bool supervise = false;
    bool quiet = false;
};

constexpr const char* who = "moat run";

[[noreturn]] void stop(Exit exit, const std::string& text) {
    throw Stop{exit, std::string(who) + ": " + text};
}

/// Errors that VFIO gives for a map.
constexpr std::array<std::pair<std::string_view, int>, 6> map_errors = {{{"ENOMEM", ENOMEM},
                                                                         {"ENOSPC", ENOSPC},
                                                                         {"EINVAL", EINVAL},
                                                                         {"EEXIST", EEXIST},
                                                                         {"EFAULT", EFAULT},
                                                                         {"EPERM", EPERM}}};

/// "map:3=ENOMEM"
void parse_failure(const std::string& text, run::Options& options) {
    const auto [what, error] = split(text, '=');
    const auto [call, number] = split(what, ':');
    const auto which = number_in(number.value_or(""));
    const auto found = std::ranges::find(map_errors, error.value_or(""),
                                         [](const auto& each) { return each.first; });
    if (call != "map" || !which || *which == 0 || found == map_errors.end())
        stop(Exit::usage, "--fail \"" + text +
                              "\": expected map:NUMBER=ERROR, such as map:3=ENOMEM; errors: "
                              "ENOMEM, ENOSPC, EINVAL, EEXIST, EFAULT, EPERM");
    options.fail_map = *which;
    options.fail_errno = found->second;
}

[[nodiscard]] run::Options options_of(const RunArguments& arguments) {
    run::Options options;
    for (const std::string& each : arguments.devices)
        options.devices.push_back(
            or_stop(run::parse_device(each, static_cast<unsigned>(options.devices.size())),
                    Exit::usage, "moat run: --device"));
    options.inject =
        or_stop(run::parse_injection(arguments.inject), Exit::usage, "moat run: --inject");
    options.inject.after = arguments.after;
    options.inject.seed = arguments.seed;
    if (arguments.seed && options.inject.name == "none")
        stop(Exit::usage, "--seed chooses which operations go wrong: add --inject");
    options.api = run::api_named(arguments.api).value();
    for (const std::string& each : arguments.limits)
        or_stop(run::apply_limit(options.limits, each), Exit::usage, "moat run: --limit");
    options.record = !arguments.record.empty() || arguments.pictures.wanted();
    if (!arguments.fail.empty())
        parse_failure(arguments.fail, options);
    return options;
}

/// The preloaded library: beside the command, or where it is installed.
[[nodiscard]] std::string find_library() {
    namespace fs = std::filesystem;
    std::error_code ignored;
    const fs::path here = fs::read_symlink("/proc/self/exe", ignored).parent_path();
    for (const fs::path& each : {here / MOAT_RUN_LIBRARY, here / MOAT_RUN_INSTALLED})
        if (fs::exists(each, ignored))
            return fs::canonical(each, ignored).string();
    stop(Exit::bound, std::string(MOAT_RUN_LIBRARY) + " lies neither beside this command nor in " +
                          (here / MOAT_RUN_INSTALLED).string());
}

[[nodiscard]] run::Paths paths_of(const std::string& text) {
    if (text == "mount")
        return run::Paths::mounted;
    return text == "redirect" ? run::Paths::redirected : run::Paths::automatic;
}

void say(const std::string& sentence) {
    std::cerr << who << ": " << sentence << '\n';
}

void print_unused(const RunArguments& arguments, const run::Options& options) {
    std::string found;
    for (const run::DeviceChoice& each : options.devices)
        found += (found.empty() ? "" : ", ") + machine::to_string(each.address) + " (group " +
                 std::to_string(each.group()) + ")";
    const std::string_view kind =
        arguments.supervise ? "" : run::why_not_preloaded(arguments.program[0]);
    say("the program opened no soft device: " + found +
        (kind.empty() ? ""
                      : "; " + arguments.program[0] + " is a " + std::string(kind) +
                            " program, on which a preloaded library has no effect: add "
                            "--supervise"));
}

void print_summary(const run::Options& options, const run::Tally& tally) {
    say(counted(tally.maps, "map") + ", " + with_commas(tally.register_accesses) +
        " accesses to registers; the device read memory " + counted(tally.device_reads, "time") +
        ", wrote it " + counted(tally.device_writes, "time") + ", and interrupted " +
        counted(tally.interrupts, "time"));
    if (tally.live_maps() != 0)
        say(counted(tally.live_maps(), "mapping") + " of " + counted(tally.live_bytes(), "byte") +
            " lasted until the end");
    if (tally.untaken != 0)
        say(counted(tally.untaken, "interrupt") + " enabled and sent, but never taken");
    if (options.inject.name != "none" && tally.misdeeds != 0)
        say("the device did wrong " + counted(tally.misdeeds, "time") + " (" + options.inject.name +
            (options.inject.seed ? ", seed " + std::to_string(*options.inject.seed) : "") + ")" +
            (tally.findings != 0 ? ""
             : run::is_wrong_access(options.inject.name)
                 ? "; none of it left the program's mappings, so none can be seen"
                 : "; none of it was an access to memory"));
    say(tally.findings == 0 ? "no finding" : counted(tally.findings, "finding"));
}

void keep_files(const RunArguments& arguments, const run::Launch& launch) {
    if (!arguments.json.empty() && !write_file(who, arguments.json, launch.findings()))
        throw Stop{Exit::bound, ""};
    if (!launch.options().record)
        return;
    const std::string recording = launch.options().folder + '/' + std::string(run::recording_file);
    if (!std::filesystem::exists(recording))
        return; // the program opened no device
    if (arguments.pictures.wanted() && !draw_recording(who, recording, arguments.pictures))
        throw Stop{Exit::bound, ""};
    std::error_code error;
    if (!arguments.record.empty() &&
        !std::filesystem::copy_file(recording, arguments.record,
                                    std::filesystem::copy_options::overwrite_existing, error))
        stop(Exit::bound, "--record " + arguments.record + ": " + error.message());
}

[[nodiscard]] std::expected<run::ProgramEnd, std::string>
run_supervised(const run::Options& options, const std::vector<std::string>& program) {
#ifdef MOAT_HAS_SUPERVISE
    return run::supervise(options, program);
#else
    (void)options;
    (void)program;
    return std::unexpected("--supervise is not in this build of moat, which lacks Zydis or libdw");
#endif
}

int run_program(const RunArguments& arguments) {
    require_output(who, {arguments.json, arguments.record, arguments.pictures.html(),
                         arguments.pictures.trace()});
    const run::Options options = options_of(arguments);
    const std::string library = arguments.supervise ? "" : find_library();
    auto launch =
        or_stop(run::Launch::prepare(options, paths_of(arguments.paths)), Exit::bound, who);
    const auto end =
        or_stop(arguments.supervise ? run_supervised(launch.options(), arguments.program)
                                    : launch.run(arguments.program, library),
                Exit::bound, who);
    const run::Tally tally = launch.tally();
    if (!arguments.quiet && tally.opens == 0)
        print_unused(arguments, launch.options());
    else if (!arguments.quiet)
        print_summary(launch.options(), tally);
    keep_files(arguments, launch);
    return tally.findings != 0 ? static_cast<int>(arguments.exit_code) : end.shell_status();
}

void describe_run(const CLI::App& command) {
    describe(
        command,
        {.paragraphs =
             {"Runs an unmodified program that drives a PCI device through VFIO, and gives it a "
              "soft device. Each access of the device is checked against the program's maps: one "
              "outside of every mapping, after an unmap, against the direction, or before bus "
              "mastering is reported with the program's stacks. Needs neither a device, nor an "
              "IOMMU, nor root.",
              "The exit status is the program's, or 1 if something was found. Reports and the "
              "summary go to standard error.",
              "The program's own maps decide how closely it is checked: an access that stays "
              "inside a mapping is right. The library has no effect on static programs and Go "
              "programs: give --supervise, which follows them by ptrace and seccomp, also without "
              "root. A register access then takes tens of microseconds more."},
         .examples = {{"moat run -- qemu-img info nvme://0000:05:00.0/1", "look at a soft disk"},
                      {"moat run --inject overrun -- qemu-img info nvme://0000:05:00.0/1",
                       "let the disk write past its buffers"},
                      {"moat run --supervise -- ./driver_test", "run a static program"}}});
}

} // namespace

void add_run(CLI::App& app, Exit& exit) {
    static RunArguments arguments;
    CLI::App* const command = app.add_subcommand(
        "run", "run a VFIO program on soft devices and check each of their accesses");
    command->add_option("PROGRAM", arguments.program, "the program and its arguments")
        ->required()
        ->type_name("PROGRAM...");
    command
        ->add_option("--device", arguments.devices,
                     "give it this device: " + run::device_kinds() +
                         "; @BDF sets its address, ,size=SIZE a disk's; default: nvme")
        ->allow_extra_args(false) // or it takes the "--" for its own
        ->type_name("KIND[@BDF][,size=SIZE]");
    command
        ->add_option("--inject", arguments.inject,
                     "what the device does wrong: " + run::injections())
        ->type_name("WRONG[:BYTES]");
    add_number(*command, "--after", arguments.after, "do so many commands right first");
    accept_numbers(*command->add_option("--seed", arguments.seed,
                                        "do wrong in one command of four, the same ones for an "
                                        "equal seed"),
                   {});
    command->add_option("--fail", arguments.fail, "let the NUMBER-th map fail: map:3=ENOMEM")
        ->type_name("map:NUMBER=ERROR");
    command
        ->add_option("--limit", arguments.limits,
                     "limit what the program can map: entries=16 mappings, locked=64M in all, "
                     "addresses of bits=32, reserved=0x10000-0x1ffff cannot be mapped")
        ->allow_extra_args(false)
        ->type_name("NAME=VALUE");
    command->add_option("--api", arguments.api, "the interface of VFIO that the program finds")
        ->check(CLI::IsMember({"any", "type1", "iommufd"}))
        ->capture_default_str();
    command->add_option("--json", arguments.json, "write the findings as JSON lines")
        ->type_name("FILE");
    command->add_option("--record", arguments.record, "write a recording for moat replay")
        ->type_name("FILE");
    arguments.pictures.add_options(*command, "write a page that draws the mappings",
                                   "write trace events for Perfetto");
    add_number(*command, "--exit-code", arguments.exit_code, "exit status if something was found",
               {0, 255});
    command
        ->add_option("--paths", arguments.paths,
                     "how the program sees the devices in /sys and /dev")
        ->check(CLI::IsMember({"auto", "mount", "redirect"}))
        ->capture_default_str();
    command->add_flag("--supervise", arguments.supervise,
                      "for static programs and Go programs: follow the program by ptrace and "
                      "seccomp in place of a preloaded library");
    command->add_flag("--quiet", arguments.quiet, "print no summary");
    describe_run(*command);
    command->callback([&exit] {
        if (arguments.devices.empty())
            arguments.devices = {"nvme"};
        exit = static_cast<Exit>(run_program(arguments));
    });
}

} // namespace moat::tools
