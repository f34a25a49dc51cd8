// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Matches patterns of facts. The rows are in known_causes/.
#include "known_cause.hpp"

#include "fault/known_causes/table.hpp"

#include <algorithm>
#include <string>

namespace moat::fault {

namespace {

constexpr std::string_view storage_drivers = "nvme|ahci|mpt3sas|mpt2sas|megaraid_sas|hpsa|smartpqi|"
                                             "aacraid|mvsas|isci|sata_sil24|ata_piix|ufshcd";

[[nodiscard]] char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

[[nodiscard]] bool contains(std::string_view text, std::string_view part) {
    return !std::ranges::search(text, part, {}, lower, lower).empty();
}

/// Whether `matches` holds for one of the alternatives, which '|' separates.
template <class Matches>
[[nodiscard]] bool any_of(std::string_view alternatives, const Matches& matches) {
    for (;;) {
        const std::size_t bar = alternatives.find('|');
        if (matches(alternatives.substr(0, bar)))
            return true;
        if (bar == std::string_view::npos)
            return false;
        alternatives.remove_prefix(bar + 1);
    }
}

[[nodiscard]] const DeviceFacts* facts_of(const LogGroup& group, const LogContext& context) {
    const std::optional<Source> function = context.function_of(group.first);
    return function ? context.device(*function) : nullptr;
}

[[nodiscard]] bool matches_event(const CausePattern& pattern, const LogEvent& event) {
    const auto is = [](const auto& wanted, const auto& value) {
        return !wanted || *wanted == value;
    };
    const auto has_code = [&](std::uint16_t code) {
        return code != 0 && event.record.code == code;
    };
    const auto has_text = [&](std::string_view text) {
        return contains(event.text, text) || contains(event.raw, text);
    };
    return is(pattern.kind, event.kind) && is(pattern.origin, event.origin) &&
           is(pattern.reason, event.record.reason) && is(pattern.access, event.record.access) &&
           (!pattern.error || event.error == pattern.error) &&
           (pattern.codes[0] == 0 || std::ranges::any_of(pattern.codes, has_code)) &&
           (pattern.texts.empty() || any_of(pattern.texts, has_text));
}

/// A phantom function is in no list: its device's function 0 has the vendor.
[[nodiscard]] std::uint16_t vendor_of(const std::optional<Source>& function,
                                      const LogContext& context) {
    if (!function)
        return 0;
    const DeviceFacts* facts = context.device(*function);
    if (facts == nullptr)
        facts = context.device(
            Source::pci(function->bus(), function->device(), 0, function->segment()));
    return facts == nullptr ? 0 : facts->vendor;
}

[[nodiscard]] bool matches_device(const CausePattern& pattern, const LogGroup& group,
                                  const LogContext& context) {
    const std::optional<Source> function = context.function_of(group.first);
    const DeviceFacts* const facts = facts_of(group, context);
    const std::string driver = driver_of(group, context);
    const auto is_driver = [&](std::string_view name) { return driver == name; };
    if (!pattern.device.empty() &&
        (!function || function->id() != parse_pci_function(pattern.device)->id()))
        return false;
    if (!pattern.drivers.empty() && !any_of(pattern.drivers, is_driver))
        return false;
    if (pattern.vendor != 0 && vendor_of(function, context) != pattern.vendor)
        return false;
    if (pattern.absent && (!function || !context.lists_devices() || facts != nullptr))
        return false;
    return !pattern.storage || any_of(storage_drivers, is_driver) ||
           (facts != nullptr && facts->pci_class >> 8 == 0x01);
}

[[nodiscard]] bool matches_place(const CausePattern& pattern, const LogGroup& group,
                                 const LogContext& context) {
    const std::set<std::uint64_t>& addresses = group.addresses.kept();
    constexpr CausePattern anywhere;
    if (pattern.address != anywhere.address &&
        (addresses.empty() || *addresses.begin() < pattern.address[0] ||
         *addresses.rbegin() > pattern.address[1]))
        return false;
    if (!pattern.lies_in.empty() &&
        (addresses.empty() || !contains(context.at(*addresses.begin()), pattern.lies_in)))
        return false;
    const auto is_long = [](const AddressRun& run) { return run.count >= 3 && run.stride <= 4096; };
    return !pattern.consecutive || std::ranges::any_of(group.addresses.runs(), is_long);
}

[[nodiscard]] bool matches_time(const CausePattern& pattern, const LogGroup& group,
                                const LogContext& context) {
    if (pattern.after && !context.saw(*pattern.after))
        return false;
    constexpr CausePattern ever;
    return pattern.before_s == ever.before_s ||
           (group.begin_ns && *group.begin_ns / 1'000'000'000 < pattern.before_s);
}

} // namespace

std::string_view name(Verdict verdict) {
    constexpr std::array<std::string_view, 4> names = {"harmless", "not-started", "device-unusable",
                                                       "data-at-risk"};
    return names[static_cast<std::size_t>(verdict)];
}

std::span<const std::span<const KnownCause>> known_causes() {
    static const std::array parts = {graphics_causes, interrupt_causes, platform_causes,
                                     unit_causes,     device_causes,    vfio_causes,
                                     dma_api_causes,  general_causes};
    return parts;
}

std::string driver_of(const LogGroup& group, const LogContext& context) {
    if (const DeviceFacts* const facts = facts_of(group, context);
        facts != nullptr && !facts->driver.empty())
        return facts->driver;
    return group.first.driver == "iommu" ? std::string() : group.first.driver;
}

bool matches(const CausePattern& pattern, const LogGroup& group, const LogContext& context) {
    return matches_event(pattern, group.first) && matches_device(pattern, group, context) &&
           matches_place(pattern, group, context) && matches_time(pattern, group, context);
}

const KnownCause& likeliest_cause(const LogGroup& group, const LogContext& context) {
    for (const std::span<const KnownCause> part : known_causes())
        for (const KnownCause& cause : part)
            if (matches(cause.when, group, context))
                return cause;
    return known_causes().back().back(); // it matches everything
}

} // namespace moat::fault
