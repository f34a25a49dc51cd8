// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Bridges: PCI Express to PCI/PCI-X Bridge Specification 1.0, 2.3 "Assignment of Requester ID".
// VMD: Linux drivers/pci/controller/vmd.c. I/O APICs: VT-d specification, 8.3.1 "Device Scope".
#include "requester.hpp"

#include "moat/fault/record.hpp"

#include "log_group.hpp"

#include <algorithm>

namespace moat::fault {

namespace {

/// So many functions behind a bridge are named.
constexpr std::size_t most_named = 4;

/// Intel's chipsets give their I/O APIC and HPET these IDs, which no configuration space has.
[[nodiscard]] std::string_view unlisted_part(const Source& function) {
    if (function.bus() != 0xf0)
        return {};
    if (function.device() == 0x1f)
        return "an I/O APIC, as Intel's chipsets number it";
    return function.device() == 0x0f ? "an HPET, as Intel's chipsets number it" : "";
}

[[nodiscard]] std::string with_driver(const Source& function, const LogContext& context) {
    const DeviceFacts* const facts = context.device(function);
    const std::string driver = facts == nullptr ? "" : facts->driver;
    return to_string(function) + (driver.empty() ? "" : " (" + driver + ')');
}

/// A bridge to conventional PCI sends with function 0 of the bus behind it.
[[nodiscard]] std::string bridge_note(const Source& function, const LogContext& context) {
    const std::vector<Source> behind = context.neighbours(function);
    if (!context.lists_devices() || context.device(function) != nullptr || behind.empty() ||
        (function.id() & 0xff) != 0)
        return {};
    std::string text = "a bridge, for the devices behind it:";
    for (std::size_t at = 0; at != std::min(behind.size(), most_named); ++at)
        text += (at == 0 ? " " : ", ") + with_driver(behind[at], context);
    return text + (behind.size() > most_named ? ", ..." : "");
}

} // namespace

std::string requester_note(const LogEvent& event, const LogContext& context) {
    const std::optional<Source> function = context.function_of(event);
    if (!function)
        return {};
    if (!pci_function(event))
        return with_driver(*function, context) +
               ", assuming that the number contains its requester ID";
    const DeviceFacts* const facts = context.device(*function);
    if (facts != nullptr && !facts->domain.empty())
        return "a VMD, for the devices of PCI domain " + facts->domain;
    if (facts != nullptr && facts->driver == "vmd")
        return "a VMD, for the devices of a PCI domain of its own";
    if (const std::string_view part = unlisted_part(*function); facts == nullptr && !part.empty())
        return std::string(part);
    return bridge_note(*function, context);
}

} // namespace moat::fault
