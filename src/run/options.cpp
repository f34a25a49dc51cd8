// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Options as text: lines of "name value". A folder's name may contain any character but a newline.
#include "run/options.hpp"

#include "core/parse.hpp"
#include "machine/vfio_host/pci_devices.hpp"
#include "run/device_kinds.hpp"

#include <algorithm>
#include <array>
#include <optional>

namespace moat::run {

namespace {

constexpr unsigned first_bus = 5;
constexpr std::uint64_t most_capacity = std::uint64_t{1} << 40;

/// Return: whether the line was understood.
bool apply(Options& options, std::string_view name, std::string_view value) {
    const auto set = [](auto& to, const auto& from) {
        if (from)
            to = *from;
        return from.has_value();
    };
    if (name == "device") {
        auto device = parse_device(value, static_cast<unsigned>(options.devices.size()));
        if (!device)
            return false;
        options.devices.push_back(*std::move(device));
        return true;
    }
    if (name == "inject")
        return set(options.inject, parse_injection(value));
    if (name == "after")
        return set(options.inject.after, number_in<std::uint64_t>(value));
    if (name == "fail_map")
        return set(options.fail_map, number_in<std::uint64_t>(value));
    if (name == "fail_errno")
        return set(options.fail_errno, number_in<int>(value));
    if (name == "seed")
        return set(options.inject.seed, number_in<std::uint64_t>(value));
    if (name == "api")
        return set(options.api, api_named(value));
    if (name == "limit")
        return apply_limit(options.limits, value).has_value();
    if (name == "redirect" || name == "record") {
        (name == "record" ? options.record : options.redirect) = true;
        return value.empty();
    }
    if (name == "folder") {
        options.folder = value;
        return !value.empty();
    }
    return false;
}

} // namespace

std::optional<Api> api_named(std::string_view wanted) {
    constexpr std::array all = {Api::any, Api::type1, Api::iommufd};
    const auto* const found = std::ranges::find(all, wanted, [](Api each) { return name(each); });
    return found == all.end() ? std::nullopt : std::optional(*found);
}

std::string to_text(const Options& options) {
    std::string text;
    const auto add = [&](std::string_view option, const std::string& value) {
        text += std::string(option) + ' ' + value + '\n';
    };
    for (const DeviceChoice& each : options.devices)
        add("device",
            each.kind + '@' + machine::to_string(each.address) +
                (each.capacity.value() == 0 ? ""
                                            : ",size=" + std::to_string(each.capacity.value())));
    add("inject", options.inject.name + ':' + std::to_string(options.inject.bytes));
    add("after", std::to_string(options.inject.after));
    add("fail_map", std::to_string(options.fail_map));
    add("fail_errno", std::to_string(options.fail_errno));
    if (options.inject.seed)
        add("seed", std::to_string(*options.inject.seed));
    add("api", std::string(name(options.api)));
    for (const std::string& each : to_texts(options.limits))
        add("limit", each);
    if (options.redirect)
        add("redirect", "");
    if (options.record)
        add("record", "");
    add("folder", options.folder);
    return text;
}

std::expected<Options, std::string> parse_options(std::string_view text) {
    Options options;
    while (!text.empty()) {
        const std::string_view line = take_until(text, '\n');
        std::string_view value = line;
        const std::string_view name = take_until(value, ' ');
        if (!apply(options, name, value))
            return std::unexpected("not an option of the preloaded library: " + std::string(line));
    }
    return options;
}

std::expected<DeviceChoice, std::string> parse_device(std::string_view text, unsigned index) {
    DeviceChoice choice{
        .kind = "", .address = machine::Bdf((first_bus + index) & 0xff, 0, 0), .capacity = {}};
    std::string_view rest = text;
    std::string_view place = take_until(rest, ',');
    choice.kind = take_until(place, '@');
    if (!is_device_kind(choice.kind))
        return std::unexpected("\"" + choice.kind + "\" is no device: " + device_kinds());
    if (!place.empty()) {
        const auto address = machine::vfio_host::parse_bdf(place);
        if (!address)
            return std::unexpected("\"" + std::string(place) +
                                   "\" is no PCI address such as 0000:05:00.0");
        choice.address = *address;
    }
    while (!rest.empty()) {
        std::string_view value = take_until(rest, ',');
        const std::string_view name = take_until(value, '=');
        const auto bytes = bytes_in(value);
        if (name != "size" || !bytes || *bytes == 0 || *bytes % 4096 != 0 || *bytes > most_capacity)
            return std::unexpected("\"" + std::string(text) +
                                   "\": expected size=BYTES, a multiple of 4096 up to 1T");
        choice.capacity = ByteCount(*bytes);
    }
    return choice;
}

std::expected<Injection, std::string> parse_injection(std::string_view text) {
    Injection injection;
    std::string_view bytes = text;
    injection.name = take_until(bytes, ':');
    if (!is_injection(injection.name))
        return std::unexpected("\"" + injection.name + "\" is no injection: " + injections());
    if (!bytes.empty()) {
        const auto value = number_in<std::uint64_t>(bytes);
        if (!value || *value == 0 || *value > machine::soft::DataPhase::most_stray)
            return std::unexpected("\"" + std::string(bytes) +
                                   "\" is no number of bytes between 1 and 1048576");
        injection.bytes = *value;
    }
    return injection;
}

} // namespace moat::run
