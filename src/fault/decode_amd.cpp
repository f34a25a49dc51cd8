// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The event lines of Linux's AMD-Vi driver.
// Flags: AMD I/O Virtualization Technology specification, "IO_PAGE_FAULT Event".
#include "moat/core/bits.hpp"

#include "dialects.hpp"
#include "text_cursor.hpp"

#include <utility>

namespace moat::fault {

namespace {

constexpr std::uint64_t flag_interrupt = bit(3);
constexpr std::uint64_t flag_present = bit(4);
constexpr std::uint64_t flag_write = bit(5);
constexpr std::uint64_t flag_reserved = bit(7);

constexpr std::array<std::pair<std::string_view, Reason>, 10> events = {{
    {"IO_PAGE_FAULT", Reason::not_present},
    {"ILLEGAL_DEV_TABLE_ENTRY", Reason::not_attached},
    {"DEV_TAB_HARDWARE_ERROR", Reason::table_access},
    {"PAGE_TAB_HARDWARE_ERROR", Reason::table_access},
    {"IOTLB_INV_TIMEOUT", Reason::invalidation},
    {"INVALID_DEVICE_REQUEST", Reason::bad_request},
    {"INVALID_PPR_REQUEST", Reason::bad_request},
    {"RMP_PAGE_FAULT", Reason::permission},
    {"RMP_HW_ERROR", Reason::hardware},
    {"COMMAND_HARDWARE_ERROR", Reason::hardware},
}};

[[nodiscard]] Reason page_fault_reason(std::uint64_t flags) {
    if ((flags & flag_interrupt) != 0)
        return Reason::interrupt;
    if ((flags & flag_present) == 0)
        return Reason::not_present;
    return (flags & flag_reserved) != 0 ? Reason::malformed_table : Reason::permission;
}

/// "0000:02:00.0: AMD-Vi: ": the word before the driver's name.
[[nodiscard]] std::string_view device_before(std::string_view line) {
    const std::size_t end = line.find(": AMD-Vi:");
    if (end == line.npos)
        return {};
    const std::size_t space = line.rfind(' ', end);
    return line.substr(space == line.npos ? 0 : space + 1,
                       end - (space == line.npos ? 0 : space + 1));
}

} // namespace

std::optional<LogEvent> decode_amd(std::string_view line) {
    TextCursor cursor(line);
    if (!cursor.find("AMD-Vi:") || !cursor.find("Event logged ["))
        return std::nullopt;
    const std::string_view event = cursor.rest().substr(0, cursor.rest().find_first_of(" ]"));
    LogEvent decoded{.origin = Origin::amd};
    decoded.text = event;
    Record& record = decoded.record;
    for (const auto& [name, reason] : events)
        if (event == name)
            record.reason = reason;
    if (record.reason == Reason::unknown)
        return std::nullopt;
    const std::string_view fields = cursor.until("]");
    if (TextCursor device(fields); device.find("device=")) {
        decoded.device = device.until(" ");
        record.source = parse_pci_address(decoded.device).value_or(Source());
    } else if (const auto source = parse_pci_address(device_before(line))) {
        decoded.device = device_before(line);
        record.source = *source;
    }
    record.domain = TextCursor(fields).hex_after<std::uint32_t>("domain=");
    record.pasid = TextCursor(fields).hex_after<std::uint32_t>("pasid=");
    record.code = TextCursor(fields).hex_after("flags=");
    auto address = TextCursor(fields).hex_after("address=");
    if (!address)
        address = TextCursor(fields).hex_after("gpa=");
    if (address && record.reason != Reason::invalidation) {
        record.where = byte_at(*address);
        record.precision = Precision::start;
    }
    if (record.code && address)
        record.access = (*record.code & flag_write) != 0 ? Access::write : Access::read;
    if (record.code && event == "IO_PAGE_FAULT")
        record.reason = page_fault_reason(*record.code);
    return decoded;
}

} // namespace moat::fault
