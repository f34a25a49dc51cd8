// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `moat guard`: loads the kernel module moat_guard, sets it, and shows which devices it guards.
// watch/guard_module.hpp reads and writes the module's files.
#include "moat/core/text.hpp"

#include "command/subcommands.hpp"
#include "command/terminal/help.hpp"
#include "command/terminal/numbers.hpp"
#include "command/terminal/output.hpp"
#include "fault/answer.hpp"
#include "watch/guard_module.hpp"
#include "watch/trace/kernel_log.hpp"

#include <CLI/CLI.hpp>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace moat::tools {
namespace {

using nlohmann::ordered_json;

struct GuardArguments {
    std::string root = "/";
    std::string module;
    std::vector<std::string> devices;
    std::uint64_t size = 4096;
    bool json = false;
};

std::string percent(double value) {
    std::ostringstream text;
    text << std::fixed << std::setprecision(value < 1 ? 3 : 1) << value << " %";
    return text.str();
}

void print_row(const std::vector<std::string>& cells) {
    constexpr std::array<int, 5> widths = {14, 10, 10, 8, 10};
    std::cout << std::left;
    for (std::size_t i = 0; i != cells.size(); ++i)
        if (i + 1 == cells.size())
            std::cout << cells[i] << '\n';
        else
            std::cout << std::setw(i < widths.size() ? widths[i] : 12) << cells[i];
}

void print_guard_table(const std::vector<watch::GuardedDevice>& devices) {
    print_row({"ADDRESS", "DRIVER", "DOMAIN", "GUARD", "HELD", "GUARDED", "UNGUARDED", "FAULTS",
               "BEFORE"});
    for (const watch::GuardedDevice& each : devices) {
        const std::string type = each.host.domain.empty() ? "-" : each.host.domain;
        if (!each.is_guarded()) {
            print_row({each.address, each.host.driver, type, "no: " + each.reason});
            continue;
        }
        const watch::GuardDomain& domain = *each.domain;
        print_row({each.address, each.host.driver, type, to_string(ByteCount(domain.guard_bytes)),
                   percent(domain.share()), fault::with_commas(domain.padded),
                   fault::with_commas(domain.plain + domain.over_budget),
                   each.faults ? fault::with_commas(*each.faults) : "-",
                   "at most " + fault::with_commas(domain.before)});
    }
}

void print_guard_json(const std::optional<watch::GuardSettings>& settings,
                      const std::vector<watch::GuardedDevice>& devices) {
    ordered_json lines = ordered_json::array();
    for (const watch::GuardedDevice& each : devices) {
        const watch::GuardDomain domain = each.domain.value_or(watch::GuardDomain{});
        lines.push_back({{"device", each.address},
                         {"driver", each.host.driver},
                         {"domain", each.host.domain},
                         {"guarded", each.is_guarded()},
                         {"reason", each.reason},
                         {"guard_bytes", domain.guard_bytes},
                         {"held_percent", domain.share()},
                         {"padded", domain.padded},
                         {"plain", domain.plain},
                         {"over_budget", domain.over_budget},
                         {"restored", domain.restored},
                         {"missed", domain.missed},
                         {"before", domain.before},
                         {"faults", each.faults ? ordered_json(*each.faults) : nullptr}});
    }
    std::cout << text_of({{"schema", "moat.guard/1"},
                          {"loaded", settings.has_value()},
                          {"size_kib", settings ? settings->size_kib : 0},
                          {"budget_percent", settings ? settings->budget : 0},
                          {"devices", lines}})
              << '\n';
}

void print_settings(const std::optional<watch::GuardSettings>& settings) {
    if (!settings)
        std::cout << "moat_guard is not loaded. Load it: moat guard on\n";
    else if (settings->size_kib == 0)
        std::cout << "moat_guard is loaded, and guards are off. Switch them on: moat guard on\n";
    else
        std::cout << "Each new mapping gets a guard of "
                  << to_string(ByteCount(settings->size_kib << 10)) << "; guards may hold "
                  << settings->budget << " % of a domain's addresses.\n";
}

Exit show_guards(const GuardArguments& arguments) {
    const watch::GuardModule module(arguments.root);
    std::optional<watch::GuardSettings> settings;
    std::vector<watch::GuardDevice> known;
    if (module.is_loaded()) {
        settings = or_stop(module.settings(), Exit::bound, "moat guard");
        known = or_stop(module.state(), Exit::bound, "moat guard");
    }
    auto devices = watch::guarded_devices(watch::read_pci_devices(arguments.root), known,
                                          settings && settings->size_kib != 0);
    if (const auto log = watch::read_kernel_log(arguments.root))
        watch::count_faults(devices, *log);
    if (arguments.json) {
        print_guard_json(settings, devices);
        return Exit::success;
    }
    print_settings(settings);
    if (settings && settings->size_kib != 0)
        print_guard_table(devices);
    return Exit::success;
}

Exit switch_on(const GuardArguments& arguments) {
    const watch::GuardModule module(arguments.root);
    const auto host = watch::read_pci_devices(arguments.root);
    const auto chosen =
        or_stop(watch::select_devices(host, arguments.devices), Exit::bound, "moat guard on");
    if (!module.is_loaded())
        or_stop(module.load(arguments.module), Exit::bound, "moat guard");
    or_stop(module.choose(chosen), Exit::bound, "moat guard");
    or_stop(module.set_size((arguments.size + 1023) >> 10), Exit::bound, "moat guard");
    const Exit exit = show_guards(arguments);
    if (!arguments.json)
        std::cout << "Existing mappings have no guard until their driver maps them again; unbind "
                     "and bind a driver to guard its rings.\n";
    return exit;
}

Exit switch_off(const GuardArguments& arguments) {
    const watch::GuardModule module(arguments.root);
    if (module.is_loaded())
        or_stop(module.set_size(0), Exit::bound, "moat guard");
    return show_guards(arguments);
}

void add_guard_on(CLI::App& guard, GuardArguments& arguments, Exit& exit) {
    static std::optional<std::uint64_t> size;
    CLI::App* const on = guard.add_subcommand("on", "load the module and guard new mappings");
    on->add_option("--device", arguments.devices,
                   "guard these only: a PCI address or the name of a driver")
        ->type_name("BDF|DRIVER");
    add_bytes(*on, "--size", size,
              "size of each guard, rounded up to the IOMMU's page; default: 4K",
              {1, std::uint64_t{1} << 30});
    on->add_option("--module", arguments.module, "load this file; default: what modprobe finds")
        ->type_name("FILE");
    on->callback([&] {
        arguments.size = size.value_or(arguments.size);
        exit = switch_on(arguments);
    });
    describe(*on, {.paragraphs = {"Loads moat_guard if it is not loaded, selects the devices and "
                                  "sets the size. Run it again to change either; existing "
                                  "mappings keep their guards."},
                   .examples = {{"moat guard on", "guard every PCI device, as root"},
                                {"moat guard on --size 64K", "catch longer overruns"}}});
}

} // namespace

void add_guard(CLI::App& app, Exit& exit) {
    static GuardArguments arguments;
    CLI::App* const guard = app.add_subcommand(
        "guard", "put unmapped pages between the DMA mappings of kernel drivers");
    guard->require_subcommand(1);
    describe(
        *guard,
        {.paragraphs =
             {"Loads and sets the kernel module moat_guard, which leaves unmapped pages after "
              "each DMA mapping of kernel drivers. A device that writes past its buffer then "
              "causes an IOMMU fault instead of changing the neighbour, and moat watch names the "
              "buffer. Needs root and an IOMMU, and no patched kernel.",
              "Guards do not catch an access that stays inside a page, or one between the "
              "segments of a scatter list. They catch an access after an unmap only after the "
              "IOMMU's lazy flush; iommu.strict=1 flushes at once. Devices of identity domains "
              "cannot be guarded.",
              "Guards hold at most half of a domain's addresses. Beyond that the module leaves "
              "mappings without a guard and counts them. It can be unloaded while guarded "
              "mappings exist."},
         .examples = {{"moat guard status", "which devices are guarded, and which are not"},
                      {"moat guard on", "guard new mappings, as root"},
                      {"moat guard off", "make new mappings without guards"}}});
    add_guard_on(*guard, arguments, exit);
    CLI::App* const off = guard->add_subcommand("off", "make new mappings without guards");
    off->callback([&exit] { exit = switch_off(arguments); });
    describe(*off, {.paragraphs = {"Sets the size of guards to 0. The module stays loaded; rmmod "
                                   "moat_guard unloads it, at any time."},
                    .examples = {{"moat guard off", "as root"}}});
    CLI::App* const status = guard->add_subcommand("status", "show which devices are guarded");
    status->callback([&exit] { exit = show_guards(arguments); });
    describe(
        *status,
        {.paragraphs = {"Shows the domain's type of each PCI device with a driver, and the size "
                        "of its guards or why it has none. Of a guarded device it also shows the "
                        "share of addresses that guards hold, mappings made with and without a "
                        "guard, IOMMU faults, and address ranges older than the guards.",
                        "Faults are counted in the kernel's log, which limits the rate of such "
                        "lines and forgets old ones: there may have been more."},
         .examples = {{"moat guard status", "as root"},
                      {"moat guard status --json", "print a JSON line for a script"}}});
    for (CLI::App* const each : {guard->get_subcommand("on"), off, status}) {
        each->add_flag("--json", arguments.json, "print JSON lines (docs/report_schema.md)");
        each->add_option("--root", arguments.root, "the folder that contains sys")
            ->type_name("FOLDER")
            ->capture_default_str();
    }
}

} // namespace moat::tools
