// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `moat devices`, `moat bind`, `moat unbind`: lists this host's functions and their drivers, and
// changes the driver. machine/vfio_host/pci_devices.hpp accesses sysfs.
#include "moat/core/text.hpp"

#include "command/subcommands.hpp"
#include "command/terminal/help.hpp"
#include "command/terminal/output.hpp"
#include "machine/vfio_host/pci_devices.hpp"
#include "machine/vfio_user/remote_device.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>

namespace moat::tools {
namespace {

using namespace machine::vfio_host;
using nlohmann::ordered_json;

struct DevicesArguments {
    std::string root{sysfs};
    std::string machine;
    std::string address;
    bool json = false;
};

template <class T>
std::string number_or_dash(const std::optional<T>& value) {
    return value ? std::to_string(*value) : "-";
}

/// Its largest memory BAR, with a unit.
std::string largest_bar_text(const machine::FunctionInfo& info) {
    std::uint64_t largest = 0;
    for (const machine::Bar& bar : info.bars)
        if (bar.kind != machine::BarKind::ports)
            largest = std::max(largest, bar.size.value());
    constexpr std::string_view units = "BKMGT";
    std::size_t unit = 0;
    for (; largest >= 1024 && largest % 1024 == 0 && unit + 1 != units.size(); ++unit)
        largest /= 1024;
    return largest == 0 ? "-" : std::to_string(largest) + units[unit];
}

void print_table(const std::vector<HostFunction>& functions) {
    const auto line = [](const auto& address, const auto& ids, const auto& class_code,
                         const auto& group, const auto& node, const auto& bar, const auto& driver) {
        std::cout << std::left << std::setw(14) << address << std::setw(11) << ids << std::setw(8)
                  << class_code << std::setw(7) << group << std::setw(6) << node << std::setw(9)
                  << bar << driver << '\n';
    };
    line("ADDRESS", "ID", "CLASS", "GROUP", "NODE", "BAR", "DRIVER");
    for (const HostFunction& each : functions)
        line(to_string(each.info.address),
             machine::digits(each.info.vendor, 4) + ':' + machine::digits(each.info.device, 4),
             machine::digits(each.info.class_code, 6), number_or_dash(each.group),
             number_or_dash(each.node), largest_bar_text(each.info),
             each.driver.empty() ? "-" : each.driver);
}

void print_json(std::span<const HostFunction> functions) {
    const auto or_null = [](const std::optional<unsigned>& value) {
        return value ? ordered_json(*value) : ordered_json(nullptr);
    };
    for (const HostFunction& each : functions) {
        ordered_json line;
        line["schema"] = "moat.device/1";
        line["address"] = to_string(each.info.address);
        line["vendor"] = each.info.vendor;
        line["device"] = each.info.device;
        line["class"] = each.info.class_code;
        line["group"] = or_null(each.group);
        line["node"] = or_null(each.node);
        line["driver"] = each.driver.empty() ? ordered_json(nullptr) : ordered_json(each.driver);
        line["bars"] = ordered_json::array();
        for (const machine::Bar& bar : each.info.bars)
            line["bars"].push_back(bar.size.value());
        std::cout << line << '\n';
    }
}

/// The function of the server of "vfio-user:SOCKET", without a group or driver.
[[nodiscard]] std::vector<HostFunction> served_function(std::string_view machine) {
    using machine::vfio_user::Channel;
    constexpr std::string_view prefix = "vfio-user:";
    if (!machine.starts_with(prefix))
        throw Stop{Exit::usage, "moat devices: --machine: \"" + std::string(machine) +
                                    "\" is not vfio-user:SOCKET"};
    const auto device =
        or_stop(machine::vfio_user::RemoteDevice::connect(
                    std::string(machine.substr(prefix.size())), Channel::usual_patience),
                Exit::bound, "moat devices: " + std::string(machine));
    HostFunction function;
    function.info = device->info();
    return {function};
}

[[nodiscard]] Exit list(const DevicesArguments& arguments) {
    const auto functions = arguments.machine.empty() ? or_stop(list_functions(arguments.root),
                                                               Exit::bound, "moat devices")
                                                     : served_function(arguments.machine);
    arguments.json ? print_json(functions) : print_table(functions);
    return Exit::success;
}

/// Changes the driver of one function by `change_hands`, and prints the result.
[[nodiscard]] Exit change(const std::string& who, const DevicesArguments& arguments,
                          Result<void> (*change_hands)(machine::Bdf, std::string_view)) {
    const auto address = parse_bdf(arguments.address);
    if (!address)
        throw Stop{Exit::usage,
                   who + ": " + arguments.address +
                       " is not a PCI address such as 0000:00:04.0; moat devices lists them"};
    or_stop(change_hands(*address, arguments.root), Exit::bound, who);
    const HostFunction now = or_stop(find_function(*address, arguments.root), Exit::bound, who);
    if (arguments.json)
        print_json(std::span(&now, 1));
    else
        std::cout << to_string(*address) << ": " << (now.driver.empty() ? "no driver" : now.driver)
                  << '\n';
    return Exit::success;
}

} // namespace

void add_devices(CLI::App& app, Exit& exit) {
    static DevicesArguments arguments;
    const auto add = [&](const char* name, const char* summary) {
        CLI::App* const command = app.add_subcommand(name, summary);
        command->add_option("--sysfs", arguments.root, "the folder where sysfs is mounted")
            ->type_name("FOLDER")
            ->capture_default_str();
        command->add_flag("--json", arguments.json, "print JSON lines (docs/report_schema.md)");
        return command;
    };
    CLI::App* const devices = add("devices", "list this host's PCI functions and their drivers");
    devices->add_option("--machine", arguments.machine, "the device of a vfio-user server")
        ->type_name("vfio-user:SOCKET");
    devices->callback([&exit] { exit = list(arguments); });
    describe(
        *devices,
        {.paragraphs = {"Lists the PCI functions of this host: address, vendor and device, class, "
                        "IOMMU group, NUMA node, largest BAR, and driver. A function without a "
                        "group has no IOMMU."},
         .examples = {{"moat devices", "list all functions"},
                      {"moat devices --json", "print JSON lines for a script"}}});
    const auto add_change = [&](const char* name, const char* summary, auto change_hands) {
        CLI::App* const command = add(name, summary);
        command->add_option("address", arguments.address, "PCI address, such as 0000:00:04.0")
            ->required();
        command->callback([&exit, who = std::string("moat ") + name, change_hands] {
            exit = change(who, arguments, change_hands);
        });
        return command;
    };
    describe(
        *add_change("bind", "bind a PCI function to vfio-pci", &bind_to_vfio),
        {.paragraphs = {"Unbinds a function from its driver and binds it to vfio-pci, so that moat "
                        "audit --machine vfio can drive it. The binding lasts until moat unbind "
                        "or the next boot. Unmount the file systems of a disk first."},
         .examples = {{"moat bind 0000:00:04.0", "bind the function, as root"},
                      {"moat bind 0000:00:04.0 --json", "and print its new state as JSON"}}});
    describe(
        *add_change("unbind", "return a PCI function to its kernel driver", &unbind_from_vfio),
        {.paragraphs = {"Unbinds a function from vfio-pci. The kernel then probes for a driver, as "
                        "at boot."},
         .examples = {{"moat unbind 0000:00:04.0", "return the function, as root"},
                      {"moat unbind 0000:00:04.0 --json", "and print its new state as JSON"}}});
}

} // namespace moat::tools
