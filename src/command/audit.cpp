// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `moat audit`: drives devices with guarded buffers, and reports accesses outside of them.
// The engine lives in src/audit/, what is printed in audit_report.cpp.
#include "audit/audit.hpp"

#include "moat/core/text.hpp"

#include "audit/subject.hpp"
#include "command/audit_recording.hpp"
#include "command/audit_report.hpp"
#include "command/audit_sheet.hpp"
#include "command/picture/picture.hpp"
#include "command/served_device.hpp"
#include "command/subcommands.hpp"
#include "command/terminal/help.hpp"
#include "command/terminal/numbers.hpp"
#include "command/terminal/output.hpp"
#include "command/terminal/progress.hpp"
#include "core/parse.hpp"
#include "machine/vfio_host/pci_devices.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>

namespace moat::tools {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t default_guard = 4096;

struct AuditArguments {
    std::string machine = "soft";
    std::string dma = "message";
    std::string iommu = "intel";
    std::vector<std::string> devices;
    std::optional<std::uint64_t> guard;
    std::string placement = "both";
    std::uint64_t seed = 1;
    double seconds = 0;
    std::uint64_t operations = 0;
    std::string cases;
    std::string inject = "none";
    PictureFiles pictures;
    std::string record;
    std::string sheet;
    std::vector<std::string> compare;
    bool json = false;
    bool list = false;
};

[[nodiscard]] double since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// "12" or "12-14", the last inclusive.
[[nodiscard]] bool parse_cases(const std::string& text, audit::AuditOptions& options) {
    const auto [from, to] = split(text, '-');
    const auto first = number_in(from);
    const auto last = number_in(to.value_or(from));
    if (!first || !last || *last < *first || *last + 1 == 0)
        return false;
    options.first_case = *first;
    options.end_case = *last + 1;
    return true;
}

constexpr std::uint64_t most_wrong_bytes = std::uint64_t{1} << 20;
constexpr std::uint64_t most_delay = 1'000'000; ///< microseconds

/// "overrun", "overrun:16", or "late:16:50" with microseconds.
[[nodiscard]] bool parse_injection(const std::string& text, audit::Wrong& wrong) {
    const auto [what, rest] = split(text, ':');
    const auto [bytes, delay] = split(rest.value_or("64"), ':');
    const auto found = std::ranges::find(audit::injection_names, what);
    if (found == audit::injection_names.end())
        return false;
    wrong.what = static_cast<audit::Injection>(found - audit::injection_names.begin());
    wrong.bytes = number_in(bytes).value_or(0);
    if (delay) {
        const auto microseconds = number_in(*delay);
        if (!microseconds || *microseconds > most_delay || wrong.what != audit::Injection::late)
            return false;
        wrong.delay = std::chrono::microseconds(*microseconds);
    }
    return wrong.bytes != 0 && wrong.bytes <= most_wrong_bytes;
}

[[nodiscard]] audit::Placements placements_of(const std::string& text) {
    if (text == "both")
        return audit::Placements::both;
    return text == "left" ? audit::Placements::left : audit::Placements::right;
}

/// The options of a single run, except the case.
[[nodiscard]] std::string command_of(const AuditArguments& arguments, const audit::Kind& kind) {
    std::string command = "moat audit --machine " + arguments.machine;
    if (kind.machine != "vfio-user")
        command += " --device " + (kind.machine == "vfio" && kind.address ? to_string(*kind.address)
                                                                          : std::string(kind.name));
    if (arguments.dma != "message")
        command += " --dma " + arguments.dma;
    if (arguments.iommu != "intel")
        command += " --iommu " + arguments.iommu;
    command += " --seed " + std::to_string(arguments.seed);
    if (arguments.guard.value_or(default_guard) != default_guard)
        command += " --guard " + std::to_string(*arguments.guard);
    if (arguments.placement != "both")
        command += " --placement " + arguments.placement;
    if (arguments.inject != "none")
        command += " --inject " + arguments.inject;
    return command;
}

/// Below 0 if the end is not known.
[[nodiscard]] double part_done(const audit::AuditOptions& options, const audit::Tally& tally) {
    if (!options.end_case || *options.end_case == ~std::uint64_t{0})
        return -1;
    return static_cast<double>(tally.cases) /
           static_cast<double>(std::max<std::uint64_t>(*options.end_case - options.first_case, 1));
}

class Run {
  public:
    Run(const AuditArguments& arguments, const audit::Wrong& wrong)
        : arguments_(arguments), wrong_(wrong) {
        if (!arguments.record.empty())
            recording_.emplace(arguments.record);
    }

    /// Audits one device. Return: whether that was possible.
    bool device(const audit::Kind& kind) {
        const auto begin = Clock::now();
        const auto failed = [&](const std::string& why) {
            std::cerr << "moat audit: " << kind.name << " (" << kind.machine << "): " << why
                      << '\n';
            return false;
        };
        std::string words;
        const auto subject = audit::Subject::start(kind, wrong_, &words);
        if (!subject) {
            failed(to_string(subject.error()));
            std::cerr << words;
            return false;
        }
        audit::AuditOptions options = (*subject)->options();
        options.guard = ByteCount(arguments_.guard.value_or(default_guard));
        options.placements = placements_of(arguments_.placement);
        options.seed = arguments_.seed;
        if (!arguments_.cases.empty())
            (void)parse_cases(arguments_.cases, options);
        else if (arguments_.operations != 0)
            options.end_case = arguments_.operations;
        else if (arguments_.seconds > 0)
            options.end_case = ~std::uint64_t{0};
        const auto report = [&] {
            Progress progress(arguments_.seconds);
            options.goes_on = [&](const audit::Tally& tally) {
                const std::string findings = std::to_string(tally.findings) + " findings";
                return progress({.what = kind.name,
                                 .count = tally.cases,
                                 .unit = "operations",
                                 .fraction = part_done(options, tally),
                                 .remark = findings});
            };
            if (arguments_.pictures.wanted())
                picture_.observe((*subject)->machine(), options);
            if (recording_)
                recording_->observe((*subject)->machine(), options);
            return audit::audit_function((*subject)->machine(), (*subject)->address(), options);
        }();
        if (!report)
            return failed(to_string(report.error()));
        if (wrong_.what != audit::Injection::none && (*subject)->wronged() == 0 &&
            report->tally.findings == 0)
            return failed(arguments_.inject + " changed none of " +
                          std::to_string(report->tally.cases) +
                          " operations; run more cases, or inject another number of bytes");
        const Audited audited{kind, *report, command_of(arguments_, kind), since(begin)};
        if (arguments_.json)
            print_json(std::cout, audited);
        else
            print_text(std::cout, audited);
        std::cout << std::flush;
        found_ = found_ || report->tally.findings != 0;
        if (arguments_.pictures.wanted())
            pictures_.push_back(picture_.take(audited));
        if (recording_)
            recording_->finish(kind.name, report->address);
        return arguments_.sheet.empty() || sheet(kind);
    }

    [[nodiscard]] bool found() const { return found_; }

    /// Writes the requested files. Return: false after reporting one that cannot be written.
    [[nodiscard]] bool draw() const { return arguments_.pictures.write("moat audit", pictures_); }

  private:
    /// Measures the device in a machine of its own, and writes its sheet.
    bool sheet(const audit::Kind& kind) {
        const auto failed = [&](const Error& why) {
            std::cerr << "moat audit: --sheet: " << kind.name << " (" << kind.machine
                      << "): " << to_string(why) << '\n';
            return false;
        };
        const auto subject = audit::Subject::start(kind, wrong_);
        if (!subject)
            return failed(subject.error());
        const auto address = (*subject)->address();
        const auto measured = audit::measure((*subject)->machine(), address, (*subject)->options());
        if (!measured)
            return failed(measured.error());
        const auto functions = (*subject)->machine().functions();
        const auto function =
            std::ranges::find(functions, address, &machine::FunctionInfo::address);
        const auto line = sheet_json(kind, *function, *measured);
        if (arguments_.json)
            std::cout << text_of(line) << '\n';
        else
            print_sheet(std::cout, *measured);
        std::cout << std::flush;
        const std::string text =
            arguments_.sheet.ends_with(".html")
                ? sheet_page(kind, *measured, command_of(arguments_, kind) + " --sheet FILE")
                : text_of(line) + "\n";
        return write_file("moat audit", arguments_.sheet, text);
    }

    const AuditArguments& arguments_;
    const audit::Wrong wrong_;
    bool found_ = false;
    AuditPicture picture_;
    std::optional<AuditRecording> recording_;
    std::vector<nlohmann::ordered_json> pictures_; ///< one a device
};

/// SOCKET of "vfio-user:SOCKET".
[[nodiscard]] std::optional<std::string_view> server_of(std::string_view machine) {
    constexpr std::string_view prefix = "vfio-user:";
    if (!machine.starts_with(prefix))
        return std::nullopt;
    return machine.substr(prefix.size());
}

[[nodiscard]] bool is_named(const audit::Kind& kind, const std::string& name) {
    const auto address = machine::vfio_host::parse_bdf(name);
    return kind.name == name || (address && kind.address == *address);
}

/// The devices named by name or address, in the order of the table; or the machine's default ones.
/// Stops at one that does not exist.
[[nodiscard]] std::vector<audit::Kind> chosen_kinds(const AuditArguments& arguments) {
    std::vector<audit::Kind> kinds;
    if (const auto socket = server_of(arguments.machine)) {
        if (!arguments.devices.empty())
            throw Stop{Exit::usage,
                       "moat audit: " + arguments.machine + " has one device; leave out --device"};
        const bool shares_memory = arguments.dma == "shared";
        if (shares_memory)
            std::cerr << "moat audit: with --dma shared, accesses outside of mapped pages fail "
                         "inside the server and are not seen\n";
        return {audit::vfio_user_kind(*socket, shares_memory)};
    }
    for (const audit::Kind& each : audit::kinds())
        if (each.machine == arguments.machine &&
            (arguments.devices.empty()
                 ? each.by_default
                 : std::ranges::any_of(arguments.devices,
                                       [&](const auto& name) { return is_named(each, name); })))
            kinds.push_back(each);
    for (audit::Kind& each : kinds)
        each.iommu = *machine::qemu::iommu_named(arguments.iommu);
    for (const std::string& name : arguments.devices) {
        if (std::ranges::any_of(kinds, [&](const auto& kind) { return is_named(kind, name); }))
            continue;
        std::string words;
        if (const auto address = machine::vfio_host::parse_bdf(name);
            address && arguments.machine == "vfio") {
            const auto found = audit::vfio_kind_at(*address, words);
            if (found) {
                kinds.push_back(*found);
                continue;
            }
            words = to_string(found.error()) + '\n' + words;
        }
        std::string why = "moat audit: machine " + arguments.machine + " has no device " + name +
                          "; see moat audit --list\n" + words + "devices:";
        for (const audit::Kind& each : audit::kinds())
            if (each.machine == arguments.machine)
                why.append(" ").append(each.name).append(
                    each.address ? " (" + to_string(*each.address) + ")" : "");
        throw Stop{Exit::usage, why};
    }
    return kinds;
}

Exit list_served(const AuditArguments& arguments, std::string_view socket) {
    const ServedDevice device =
        or_stop(look_at_served_device(socket), Exit::bound, "moat audit: " + arguments.machine);
    arguments.json ? print_json(std::cout, device) : print_text(std::cout, device);
    return Exit::success;
}

/// What --iommu may say for the device.
[[nodiscard]] std::span<const std::string_view> iommus_of(const audit::Kind& kind) {
    if (kind.machine != "qemu")
        return {};
    return machine::qemu::iommu_names;
}

Exit list(const AuditArguments& arguments) {
    if (const auto socket = server_of(arguments.machine))
        return list_served(arguments, *socket);
    for (const audit::Kind& each : audit::kinds())
        if (arguments.json)
            std::cout << nlohmann::ordered_json{{"schema", "moat.audit_device/1"},
                                                {"machine", each.machine},
                                                {"device", each.name},
                                                {"summary", each.summary},
                                                {"by_default", each.by_default},
                                                {"iommus", iommus_of(each)}}
                      << '\n';
        else
            std::cout << each.machine << "  " << each.name
                      << std::string(20 - std::min<std::size_t>(each.name.size(), 19), ' ')
                      << each.summary << (each.by_default ? "" : "; only by --device") << '\n';
    return Exit::success;
}

Exit run(const AuditArguments& arguments) {
    if (arguments.list)
        return list(arguments);
    if (!arguments.compare.empty())
        return compare_sheets(arguments.compare[0], arguments.compare[1]);
    if (arguments.iommu != "intel" && arguments.machine != "qemu")
        throw Stop{Exit::usage, "moat audit: --iommu " + arguments.iommu +
                                    " is for --machine qemu; " + arguments.machine +
                                    " has its own"};
    audit::Wrong wrong;
    if (!parse_injection(arguments.inject, wrong)) {
        std::string why =
            "moat audit: --inject: \"" + arguments.inject + "\" is not a fault; valid faults:";
        for (const std::string_view each : audit::injection_names)
            why.append(" ").append(each);
        throw Stop{Exit::usage, why + ", each also with 1 to " + std::to_string(most_wrong_bytes) +
                                    " bytes, late also with microseconds: overrun:16 late:16:50"};
    }
    const std::vector<audit::Kind> kinds = chosen_kinds(arguments);
    if (!arguments.pictures.html().empty() && kinds.size() != 1)
        throw Stop{Exit::usage, "moat audit: --html draws one device; select it with --device"};
    if (!arguments.sheet.empty() && kinds.size() != 1)
        throw Stop{Exit::usage, "moat audit: --sheet measures one device; select it with --device"};
    if (!arguments.sheet.empty() && arguments.dma == "shared")
        throw Stop{Exit::usage, "moat audit: --sheet needs the accesses of --dma message"};
    require_output("moat audit", {arguments.pictures.html(), arguments.pictures.trace(),
                                  arguments.record, arguments.sheet});
    Run run(arguments, wrong);
    bool all = true;
    for (const audit::Kind& kind : kinds)
        all = output_works() && run.device(kind) && all;
    if (!run.draw())
        return Exit::bound;
    if (run.found())
        return Exit::found;
    return all ? Exit::success : Exit::bound;
}

/// Which cases run, and how.
void add_case_options(CLI::App& command, AuditArguments& arguments) {
    add_bytes(command, "--guard", arguments.guard,
              "guard on each side of a buffer, rounded up to pages", {1, std::uint64_t{1} << 20})
        ->default_str(std::to_string(default_guard));
    command
        .add_option("--placement", arguments.placement, "put buffers at this end of their pages")
        ->check(CLI::IsMember({"left", "right", "both"}))
        ->capture_default_str();
    add_number(command, "--seed", arguments.seed, "seed of the random operations and lengths")
        ->capture_default_str();
    add_seconds(command, "--time", arguments.seconds, "audit each device for this long");
    CLI::Option* const operations =
        add_number(command, "--operations", arguments.operations,
                   "operations for each device; default: one for each boundary", {.least = 1});
    command.add_option("--case", arguments.cases, "run only this case, or FIRST-LAST")
        ->check(CLI::Validator(
            [](std::string& text) {
                audit::AuditOptions parsed;
                return parse_cases(text, parsed)
                           ? std::string()
                           : '"' + text + "\" is not a case; write 12, or 12-14 for a range";
            },
            ""))
        ->excludes(operations);
}

void describe_audit(CLI::App& command) {
    command.footer("Faults: overrun, underrun, late, stale, read-only, short-transfer, "
                   "short-buffer, no-invalidate, wrong-data.");
    describe(
        command,
        {.paragraphs =
             {"Drives devices with buffers between guard pages, at every boundary of their "
              "lengths. Reports accesses outside a buffer, accesses after completion, accesses "
              "that bypass the IOMMU, data that was not written, data other than what an earlier "
              "operation stored, and success for transfers that the IOMMU blocked.",
              "Machine soft has models of devices in this process. Machine qemu has QEMU's "
              "devices, behind the IOMMU that --iommu names. Machine vfio has devices of this host "
              "that moat bind "
              "gave to VFIO. Machine vfio-user:SOCKET has the device of a vfio-user server, "
              "whose DMA moat's IOMMU checks message by message. The audit writes to disks.",
              "Each finding prints the command that reproduces it.",
              "--sheet then measures how far and how long the device accesses memory outside of "
              "its buffers, and what it does if it is blocked."},
         .examples = {
             {"moat audit --list", "list the devices"},
             {"moat audit --machine vfio-user:/tmp/nvme.sock --list", "show a server's device"},
             {"moat audit --device nvme", "audit a model of an NVMe controller"},
             {"moat audit --device nvme --inject overrun --case 0",
              "the same model, writing past its buffers"},
         }});
}

} // namespace

void add_audit(CLI::App& app, Exit& exit) {
    static AuditArguments arguments;
    CLI::App* const command = app.add_subcommand(
        "audit", "drive devices with guarded buffers and report accesses outside of them");
    command
        ->add_option("--machine", arguments.machine,
                     "in this process, in QEMU, on this host, or vfio-user:SOCKET of a server")
        ->check(CLI::IsMember({"soft", "qemu", "vfio"}) |
                CLI::Validator(
                    [](std::string& text) {
                        return server_of(text) ? std::string() : "not vfio-user:SOCKET";
                    },
                    ""))
        ->capture_default_str();
    command
        ->add_option("--dma", arguments.dma,
                     "a server asks for each access, or maps the pages of buffers")
        ->check(CLI::IsMember({"message", "shared"}))
        ->capture_default_str();
    command
        ->add_option("--iommu", arguments.iommu, "in QEMU: the IOMMU that the devices are behind")
        ->check(CLI::IsMember(std::vector<std::string>(machine::qemu::iommu_names.begin(),
                                                       machine::qemu::iommu_names.end())))
        ->capture_default_str();
    command->add_option("--device", arguments.devices,
                        "a name or address from --list; default: all devices of the machine");
    add_case_options(*command, arguments);
    command->add_option("--inject", arguments.inject,
                        "make the device (on QEMU, its driver) misbehave: FAULT[:BYTES]; "
                        "late:BYTES:MICROSECONDS");
    arguments.pictures.add_options(*command, "write a page that draws one device's buffers",
                                   "write trace events for Perfetto");
    command->add_option("--record", arguments.record, "write a recording for moat replay")
        ->type_name("FILE");
    command
        ->add_option("--sheet", arguments.sheet,
                     "also measure the device, and write its data sheet (.json or .html)")
        ->type_name("FILE");
    command
        ->add_option("--compare", arguments.compare,
                     "only compare two data sheets: report what reaches further or comes later")
        ->type_name("SHEET")
        ->expected(2);
    command->add_flag("--json", arguments.json, "print JSON lines (docs/report_schema.md)");
    command->add_flag("--list", arguments.list, "list the devices, or show a server's");
    describe_audit(*command);
    command->callback([&exit] { exit = run(arguments); });
}

} // namespace moat::tools
