// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "command/served_device.hpp"

#include "moat/core/text.hpp"

#include "audit/driver.hpp"
#include "command/terminal/output.hpp"

#include <array>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <ostream>
#include <span>
#include <utility>

namespace moat::tools {

namespace {

using namespace machine::vfio_user;
using machine::digits;
using nlohmann::ordered_json;

/// A bit of a server's flags, and its names in JSON and in text.
struct Flag {
    std::uint32_t bit;
    const char* field;
    const char* word;
};

constexpr std::array<Flag, 4> region_flags = {
    {{region_readable, "readable", "read"},
     {region_writable, "writable", "write"},
     {region_mappable, "mappable", "mappable"},
     {region_has_capabilities, "capabilities", "capabilities"}}};

constexpr std::array<Flag, 4> interrupt_flags = {
    {{interrupt_eventfd, "eventfd", "eventfd"},
     {interrupt_maskable, "maskable", "maskable"},
     {interrupt_masks_itself, "masks_itself", "masks itself"},
     {interrupt_no_resize, "fixed", "fixed number"}}};

/// VFIO's names of a PCI function's indices; a number after those.
template <std::size_t count>
[[nodiscard]] std::string name_in(const std::array<const char*, count>& names,
                                  std::uint32_t index) {
    return index < count ? names[index] : std::to_string(index);
}

[[nodiscard]] std::string region_name(std::uint32_t index) {
    constexpr std::array names = {"BAR0", "BAR1", "BAR2",          "BAR3", "BAR4",
                                  "BAR5", "ROM",  "configuration", "VGA"};
    return name_in(names, index);
}

[[nodiscard]] std::string interrupt_name(std::uint32_t index) {
    constexpr std::array names = {"INTx", "MSI", "MSI-X", "error", "request"};
    return name_in(names, index);
}

[[nodiscard]] std::string words_of(std::uint32_t flags, std::span<const Flag> all) {
    std::string words;
    for (const Flag& each : all)
        if ((flags & each.bit) != 0)
            words.append(words.empty() ? "" : ", ").append(each.word);
    return words;
}

void add_flags(ordered_json& line, std::uint32_t flags, std::span<const Flag> all) {
    for (const Flag& each : all)
        line[each.field] = (flags & each.bit) != 0;
}

[[nodiscard]] std::string version_of(const Capabilities& connection) {
    return "0." + std::to_string(connection.minor);
}

/// A row of the table: what, how much, which flags.
void print_row(std::ostream& out, const std::string& what, const std::string& size,
               const std::string& flags) {
    out << "  " << std::left << std::setw(15) << what << std::right << std::setw(8) << size
        << (flags.empty() ? "" : "  ") << flags << '\n';
}

void print_left_out(std::ostream& out, std::uint32_t told, std::size_t shown, const char* what) {
    if (told != shown)
        out << "  " << shown << " of " << told << ' ' << what << " are shown; the server describes "
            << "no others, or moat asks for no more than " << RemoteDevice::most_surveyed << '\n';
}

} // namespace

Result<ServedDevice> look_at_served_device(std::string_view socket) {
    MOAT_LET(const auto remote,
             RemoteDevice::connect(std::string(socket), Channel::usual_patience));
    MOAT_LET(auto survey, remote->survey());
    return ServedDevice{.machine = "vfio-user:" + std::string(socket),
                        .info = remote->info(),
                        .survey = std::move(survey),
                        .driver = audit::driver_of(remote->info())};
}

void print_text(std::ostream& out, const ServedDevice& device) {
    const auto& [connection, answer, regions, interrupts, subsystem_vendor, subsystem_device,
                 revision] = device.survey;
    out << device.machine << ": " << digits(device.info.vendor, 4) << ':'
        << digits(device.info.device, 4) << ", class " << digits(device.info.class_code, 6)
        << ", revision " << digits(revision, 2) << ", subsystem " << digits(subsystem_vendor, 4)
        << ':' << digits(subsystem_device, 4)
        << ((answer.flags & device_resets) != 0 ? "" : ", no reset") << '\n'
        << "driver: "
        << (device.driver.empty() ? "none; moat audit cannot drive it" : device.driver)
        << "\nregions:\n";
    for (const RegionInfo& each : regions)
        if (each.size != 0)
            print_row(out, region_name(each.index), to_string(ByteCount(each.size)),
                      words_of(each.flags, region_flags));
    print_left_out(out, answer.regions, regions.size(), "regions");
    out << "interrupts:\n";
    for (const IrqInfo& each : interrupts)
        if (each.count != 0)
            print_row(out, interrupt_name(each.index), std::to_string(each.count),
                      words_of(each.flags, interrupt_flags));
    print_left_out(out, answer.interrupts, interrupts.size(), "kinds of interrupts");
    out << "connection: version " << version_of(connection) << ", a message has up to "
        << to_string(ByteCount(connection.transfer)) << " and " << connection.descriptors
        << " descriptors, up to " << connection.maps << " maps"
        << (connection.twin_socket ? ", twin socket" : "")
        << (connection.write_multiple ? ", several writes in a message" : "") << '\n';
}

void print_json(std::ostream& out, const ServedDevice& device) {
    const Survey& survey = device.survey;
    const Capabilities& connection = survey.connection;
    ordered_json regions = ordered_json::array();
    for (const RegionInfo& each : survey.regions) {
        ordered_json& region = regions.emplace_back();
        region = {{"index", each.index}, {"name", region_name(each.index)}, {"bytes", each.size}};
        add_flags(region, each.flags, region_flags);
    }
    ordered_json interrupts = ordered_json::array();
    for (const IrqInfo& each : survey.interrupts) {
        ordered_json& kind = interrupts.emplace_back();
        kind = {
            {"index", each.index}, {"name", interrupt_name(each.index)}, {"vectors", each.count}};
        add_flags(kind, each.flags, interrupt_flags);
    }
    out << text_of({{"schema", "moat.served_device/1"},
                    {"machine", device.machine},
                    {"vendor", device.info.vendor},
                    {"device", device.info.device},
                    {"class", device.info.class_code},
                    {"revision", survey.revision},
                    {"subsystem_vendor", survey.subsystem_vendor},
                    {"subsystem_device", survey.subsystem_device},
                    {"resets", (survey.device.flags & device_resets) != 0},
                    {"driver",
                     device.driver.empty() ? ordered_json(nullptr) : ordered_json(device.driver)},
                    {"regions", regions},
                    {"interrupts", interrupts},
                    {"connection",
                     {{"version", version_of(connection)},
                      {"most_descriptors", connection.descriptors},
                      {"most_bytes", connection.transfer},
                      {"most_maps", connection.maps},
                      {"twin_socket", connection.twin_socket},
                      {"write_multiple", connection.write_multiple}}}})
        << '\n';
}

} // namespace moat::tools
