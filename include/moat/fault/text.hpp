// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Records and sources as short text, for the command, tests and reports. Hosted systems only. Whole
// reports: report.hpp.
#pragma once

#include "moat/core/text.hpp"
#include "moat/fault/record.hpp"

#include <ostream>
#include <string>

namespace moat::fault {

namespace detail {

/// `value` in hexadecimal, at least `width` digits, without "0x".
[[nodiscard]] inline std::string padded_hex(std::uint64_t value, std::size_t width) {
    std::string digits = hexadecimal(value).substr(2);
    return digits.size() < width ? std::string(width - digits.size(), '0') + digits : digits;
}

} // namespace detail

/// "0000:02:00.0", "02:00.0" without a segment, "StreamID 0x10", "endpoint 16".
[[nodiscard]] inline std::string to_string(const Source& source) {
    switch (source.kind()) {
    case Source::Kind::pci: {
        std::string text = source.segment() ? detail::padded_hex(*source.segment(), 4) + ":" : "";
        text += detail::padded_hex(source.bus(), 2) + ":" + detail::padded_hex(source.device(), 2);
        return text + "." + std::to_string(source.function());
    }
    case Source::Kind::stream:
        return "StreamID " + hexadecimal(source.id());
    case Source::Kind::endpoint:
        return "endpoint " + std::to_string(source.id());
    case Source::Kind::device_id:
        return "device_id " + hexadecimal(source.id());
    case Source::Kind::unknown:
        break;
    }
    return "unknown device";
}

/// "00:01.0: write of page 0x1001000: permission (code 0x5)"
[[nodiscard]] inline std::string to_string(const Record& record) {
    std::string text = to_string(record.source) + ": ";
    text += record.access == Access::unknown ? "access" : std::string(name(record.access));
    const std::string start = record.where.empty() ? "" : hexadecimal(record.where.start().value());
    if (record.precision == Precision::exact)
        text += " of " + to_string(record.where.size()) + " at " + start;
    else if (record.precision == Precision::start)
        text += " at " + start;
    else if (record.precision == Precision::page)
        text += " of page " + start;
    text += ": " + std::string(name(record.reason));
    if (record.code)
        text += " (code " + hexadecimal(*record.code) + ")";
    if (record.domain)
        text += ", domain " + hexadecimal(*record.domain);
    if (record.pasid)
        text += ", PASID " + hexadecimal(*record.pasid);
    if (record.suppressed != 0)
        text += ", " + std::to_string(record.suppressed) + " suppressed before";
    return text;
}

inline std::ostream& operator<<(std::ostream& out, const Source& source) {
    return out << to_string(source);
}

inline std::ostream& operator<<(std::ostream& out, const Record& record) {
    return out << to_string(record);
}

} // namespace moat::fault
