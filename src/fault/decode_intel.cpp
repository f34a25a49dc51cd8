// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The fault lines of Linux's VT-d driver, in its dialects since 2.6.
// Codes: Intel VT-d specification, chapter 7 "Translation Faults", and interrupt remapping's.
#include "dialects.hpp"
#include "text_cursor.hpp"

namespace moat::fault {

namespace {

[[nodiscard]] Reason interrupt_or(Reason reason, std::uint64_t code) {
    return code >= 0x20 && code <= 0x2f ? Reason::interrupt : reason;
}

/// Scalable mode has about fifty codes; the driver prints a text that names the table.
[[nodiscard]] Reason reason_from_words(std::string_view text) {
    const auto has = [&](std::string_view word) { return text.find(word) != text.npos; };
    if (has("attempting to access"))
        return Reason::table_access;
    if (has("reserved"))
        return Reason::malformed_table;
    if (has("PASID"))
        return Reason::pasid;
    if (has("Root") || has("Context"))
        return Reason::not_attached;
    if (has("Present bit"))
        return Reason::not_present;
    if (has("permission") || has("access is not set"))
        return Reason::permission;
    return Reason::unknown;
}

[[nodiscard]] Reason reason_of(std::uint64_t code, std::string_view text) {
    switch (code) {
    case 0x1: // root entry not present
    case 0x2: // context entry not present
    case 0x3: // context entry invalid
        return Reason::not_attached;
    case 0x4:
        return Reason::address_size;
    case 0x5: // no write permission, or an empty entry
    case 0x6: // no read permission
        return Reason::permission;
    case 0x7: // a table of the walk is unreadable
    case 0x8: // the root table is
    case 0x9: // the context table is
        return Reason::table_access;
    case 0xa: // reserved bits in a root entry
    case 0xb: // in a context entry
    case 0xc: // in a paging entry
        return Reason::malformed_table;
    case 0xd: // translated or translation requests are blocked
        return Reason::bad_request;
    default:
        return interrupt_or(reason_from_words(text), code);
    }
}

[[nodiscard]] Access access_of(std::string_view type) {
    if (type.find("Write") != type.npos)
        return Access::write;
    return type.find("Read") != type.npos ? Access::read : Access::unknown;
}

/// "NO_PASID", "PASID 0x1" or, in one dialect, "PASID ffffffff" for none.
[[nodiscard]] std::optional<std::uint32_t> pasid_in(std::string_view text) {
    TextCursor cursor(text);
    const auto pasid = cursor.hex_after<std::uint32_t>("PASID ");
    return pasid == ~std::uint32_t{0} ? std::nullopt : pasid;
}

/// "0000:02:00.0]" as since 7.x, "02:00.0]", or "0x02:0x00.0]".
[[nodiscard]] std::optional<Source> bracketed_source(TextCursor& cursor) {
    TextCursor ahead = cursor;
    if (const auto segment = ahead.number<std::uint16_t>(16); segment && ahead.accept(":"))
        if (const auto source = ahead.pci_function(); source && ahead.accept("]")) {
            cursor = ahead;
            return Source::requester(static_cast<std::uint16_t>(source->id()), segment);
        }
    const auto source = cursor.pci_function("0x");
    return source && cursor.accept("]") ? source : std::nullopt;
}

} // namespace

std::optional<LogEvent> decode_intel(std::string_view line) {
    TextCursor cursor(line);
    if (!cursor.find("DMAR:") && !cursor.find("INTR-REMAP:"))
        return std::nullopt;
    const std::size_t head = line.size() - cursor.rest().size();
    if (!cursor.find("Request device ["))
        return std::nullopt;
    const std::string_view type = line.substr(head, line.size() - head - cursor.rest().size());
    static_cast<void>(cursor.accept("["));
    const auto source = bracketed_source(cursor);
    if (!source)
        return std::nullopt;
    LogEvent decoded{.origin = Origin::intel};
    decoded.record.source = *source;
    decoded.record.access = access_of(type);
    decoded.record.pasid = pasid_in(type);
    if (!decoded.record.pasid)
        decoded.record.pasid = pasid_in(cursor.rest());
    TextCursor index(cursor.rest());
    if (index.find("fault index ")) {
        decoded.record.reason = Reason::interrupt;
    } else {
        const auto address = cursor.hex_after("fault addr ");
        if (!address)
            return std::nullopt;
        decoded.record.where = page_at(*address);
        decoded.record.precision = Precision::page;
    }
    static_cast<void>(add_intel_reason(cursor.rest(), decoded));
    return decoded;
}

bool has_intel_reason(const LogEvent& decoded) {
    return decoded.record.code.has_value();
}

bool add_intel_reason(std::string_view line, LogEvent& decoded) {
    TextCursor cursor(line);
    if (!cursor.find("[fault reason "))
        return false;
    // Decimal in the dialects without "0x".
    const auto code = cursor.accept("0x") ? cursor.number<std::uint64_t>(16) : cursor.decimal();
    if (!code || !cursor.accept("]"))
        return false;
    static_cast<void>(cursor.accept(" "));
    decoded.record.code = code;
    decoded.text = cursor.rest();
    decoded.record.reason = reason_of(*code, decoded.text);
    return true;
}

} // namespace moat::fault
