// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "watch/guard_state.hpp"

#include "moat/fault/decode.hpp"
#include "moat/fault/record.hpp"

#include "core/parse.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <utility>

namespace moat::watch {
namespace {

constexpr std::string_view state_version = "moat_guard 1";

constexpr std::array<std::pair<std::string_view, std::uint64_t GuardDomain::*>, 11> domain_fields =
    {{
        {"domain", &GuardDomain::number},
        {"guard_bytes", &GuardDomain::guard_bytes},
        {"since_us", &GuardDomain::since_us},
        {"held_pages", &GuardDomain::held_pages},
        {"limit_pages", &GuardDomain::limit_pages},
        {"before", &GuardDomain::before},
        {"padded", &GuardDomain::padded},
        {"plain", &GuardDomain::plain},
        {"over_budget", &GuardDomain::over_budget},
        {"restored", &GuardDomain::restored},
        {"missed", &GuardDomain::missed},
    }};

/// The module's word and what it means to a user.
constexpr std::array<std::pair<std::string_view, std::string_view>, 6> refusals = {{
    {"identity-domain", "identity domain: the IOMMU passes its accesses through; boot with "
                        "iommu.passthrough=0"},
    {"no-iommu", "not behind an IOMMU"},
    {"not-a-dma-domain", "another owner, such as VFIO, has its address space"},
    {"test-mapping-failed", "the module's test mapping failed"},
    {"mapping-passed-no-hook", "its mappings do not pass the hooked function"},
    {"too-many-domains",
     "the module has no room for another domain; choose fewer devices (--device)"},
}};

/// Whether `word` is "name=value" with a value that fits; ignores names that later modules add.
bool read_field(std::string_view word, GuardDevice& device) {
    const std::string_view name = take_until(word, '=');
    if (name == "refused") {
        device.refused = word;
        return !word.empty();
    }
    const auto value = number_in(word);
    if (!value)
        return false;
    if (!device.domain)
        device.domain.emplace();
    for (const auto& [known, member] : domain_fields)
        if (name == known)
            (*device.domain).*member = *value;
    return true;
}

std::optional<GuardDevice> read_device(std::string_view line) {
    GuardDevice device;
    if (take_until(line, ' ') != "device")
        return std::nullopt;
    device.address = take_until(line, ' ');
    while (!line.empty())
        if (!read_field(take_until(line, ' '), device))
            return std::nullopt;
    return device.address.empty() ? std::nullopt : std::optional(std::move(device));
}

std::string refusal_text(const std::string& word) {
    const auto* const found =
        std::ranges::find(refusals, word, [](auto& each) { return each.first; });
    return found == refusals.end() ? word : std::string(found->second);
}

/// Empty: new mappings are guarded.
std::string reason_without_guard(const PciDevice& host, const GuardDevice* known,
                                 bool guards_are_on) {
    if (!guards_are_on)
        return "guards are off";
    if (known != nullptr && !known->refused.empty())
        return refusal_text(known->refused);
    if (known != nullptr && known->domain && known->domain->guard_bytes != 0)
        return "";
    return host.group ? "not chosen" : "not behind an IOMMU";
}

} // namespace

double GuardDomain::share() const {
    return limit_pages == 0
               ? 0
               : 100 * static_cast<double>(held_pages) / static_cast<double>(limit_pages);
}

std::expected<std::vector<GuardDevice>, std::string> parse_guard_state(std::string_view text) {
    if (const std::string_view version = take_until(text, '\n'); version != state_version)
        return std::unexpected("the module's state begins with \"" + std::string(version) +
                               "\", not \"" + std::string(state_version) +
                               "\": its version does not match this command");
    std::vector<GuardDevice> devices;
    while (!text.empty()) {
        const std::string_view line = take_until(text, '\n');
        auto device = read_device(line);
        if (!device)
            return std::unexpected("the module's state has a malformed line: \"" +
                                   std::string(line) + "\"");
        devices.push_back(*std::move(device));
    }
    return devices;
}

std::vector<GuardedDevice>
guarded_devices(const PciDevices& host, const std::vector<GuardDevice>& known, bool guards_are_on) {
    std::vector<GuardedDevice> all;
    for (const auto& [address, device] : host) {
        if (device.driver.empty())
            continue;
        const auto found = std::ranges::find(known, address, &GuardDevice::address);
        const GuardDevice* const line = found == known.end() ? nullptr : &*found;
        all.push_back({.address = address,
                       .host = device,
                       .domain = line != nullptr ? line->domain : std::nullopt,
                       .reason = reason_without_guard(device, line, guards_are_on)});
    }
    return all;
}

namespace {

/// As sysfs names the function. A virtio-iommu's endpoints are numbered by ACPI's VIOT, which is
/// taken to number them by requester ID, as QEMU's does.
std::string address_of(fault::Source source) {
    if (source.kind() == fault::Source::Kind::endpoint && source.id() <= 0xffff)
        source = fault::Source::requester(static_cast<std::uint16_t>(source.id()));
    return source.segment() ? to_string(source) : "0000:" + to_string(source);
}

} // namespace

void count_faults(std::vector<GuardedDevice>& devices, std::string_view log) {
    std::map<std::string, GuardedDevice*> guarded;
    for (GuardedDevice& each : devices)
        if (each.domain) {
            each.faults = 0;
            guarded[each.address] = &each;
        }
    const auto count = [&](const fault::LogEvent& event) {
        if (event.kind != fault::LogEvent::Kind::fault || !event.record.time_ns)
            return;
        const auto found = guarded.find(address_of(event.record.source));
        if (found != guarded.end() &&
            *event.record.time_ns / 1000 >= found->second->domain->since_us)
            ++*found->second->faults;
    };
    fault::Decoder decoder;
    while (!log.empty())
        decoder.line(take_until(log, '\n'), count);
    decoder.end(count);
}

/// As with_guard() of kernel/moat_guard/hooks.c, in pages of 4 KiB.
std::uint64_t module_guard(const IovaRange& range, std::uint64_t guard_bytes) {
    constexpr std::uint64_t page = 4096;
    const std::uint64_t pages = range.last().value() / page - range.start().value() / page + 1;
    const std::uint64_t guard = guard_bytes / page;
    const std::uint64_t cut = pages + guard - std::bit_floor(pages + guard);
    return (cut <= guard / 4 ? guard - cut : guard) * page;
}

} // namespace moat::watch
