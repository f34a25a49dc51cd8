// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Decodes an event of an AMD IOMMU to a fault::Record. amd_event_log.hpp takes it from the log.
// Source: 48882, 2.5 "Event Logging".
#pragma once

#include "moat/core/bits.hpp"
#include "moat/fault/record.hpp"

#include <array>
#include <cstdint>

namespace moat::iommu::amd {

/// 16 bytes of the log.
using Event = std::array<std::uint64_t, 2>;

/// 0 is no event.
[[nodiscard]] constexpr unsigned code_of(const Event& event) {
    return static_cast<unsigned>(event[0] >> 60);
}

/// Bits 59 to 48 of an event's first word; `Record::code` has them.
namespace event_flags {

inline constexpr std::uint64_t guest = bit(0); ///< with a PASID in place of a domain
inline constexpr std::uint64_t interrupt = bit(3);
inline constexpr std::uint64_t present = bit(4);
inline constexpr std::uint64_t write = bit(5);
inline constexpr std::uint64_t reserved = bit(7);    ///< bits that are set in a table
inline constexpr std::uint64_t translation = bit(8); ///< a device's request to translate

} // namespace event_flags

/// 2.5.3 IO_PAGE_FAULT. Functions without a domain have number 0.
[[nodiscard]] constexpr fault::Reason page_fault_reason(std::uint64_t flags, bool has_domain) {
    using enum fault::Reason;
    if ((flags & event_flags::interrupt) != 0)
        return interrupt;
    if ((flags & event_flags::reserved) != 0)
        return malformed_table;
    if (!has_domain)
        return not_attached;
    return (flags & event_flags::present) != 0 ? permission : not_present;
}

/// The kind of an access that an IO_PAGE_FAULT reports: only if the page is present.
[[nodiscard]] constexpr fault::Access page_fault_access(std::uint64_t flags) {
    if ((flags & event_flags::present) == 0 || (flags & event_flags::translation) != 0)
        return fault::Access::unknown;
    return (flags & event_flags::write) != 0 ? fault::Access::write : fault::Access::read;
}

/// 2.5.9 INVALID_DEVICE_REQUEST: types 3, 5 and 6 are posted writes.
[[nodiscard]] constexpr fault::Access invalid_request_access(std::uint64_t flags) {
    const auto type = static_cast<unsigned>(flags >> 9 & 7);
    const bool was_write = type == 3 || type == 5 || type == 6;
    return was_write && (flags & event_flags::translation) == 0 ? fault::Access::write
                                                                : fault::Access::unknown;
}

/// An event of an unknown code has neither source nor address.
[[nodiscard]] constexpr fault::Record decode(const Event& event) {
    using enum fault::Reason;
    const auto source = fault::Source::requester(static_cast<std::uint16_t>(event[0]));
    const auto domain = static_cast<std::uint32_t>(event[0] >> 32 & 0xffff);
    const std::uint64_t flags = event[0] >> 48 & 0xfff;
    const auto at_address = [&](fault::Reason reason, fault::Access access) {
        return fault::Record{.source = source,
                             .access = access,
                             .precision = fault::Precision::start,
                             .reason = reason,
                             .where = IovaRange(Iova(event[1]), ByteCount(1)),
                             .code = flags};
    };
    switch (code_of(event)) {
    case 1: // 2.5.2 ILLEGAL_DEV_TABLE_ENTRY
        return at_address(malformed_table, fault::Access::unknown);
    case 2: {
        const bool has_pasid = (flags & event_flags::guest) != 0;
        fault::Record record = at_address(page_fault_reason(flags, has_pasid || domain != 0),
                                          page_fault_access(flags));
        if (has_pasid)
            record.pasid = static_cast<std::uint32_t>(event[0] & 0xf0000) | domain;
        else
            record.domain = domain;
        if (record.reason != interrupt)
            return record;
        record.access = fault::Access::unknown;
        record.precision = fault::Precision::none;
        record.where = {};
        return record;
    }
    case 3: // 2.5.4 DEV_TAB_HARDWARE_ERROR
    case 4: // 2.5.5 PAGE_TAB_HARDWARE_ERROR; both have the table's address
        return {.source = source, .reason = table_access, .code = flags};
    case 5: // 2.5.6 ILLEGAL_COMMAND_ERROR
        return {.reason = malformed_table, .code = flags};
    case 6: // 2.5.7 COMMAND_HARDWARE_ERROR
        return {.reason = hardware, .code = flags};
    case 7: // 2.5.8 IOTLB_INV_TIMEOUT
        return {.source = source, .reason = invalidation, .code = flags};
    case 8:
        return at_address(bad_request, invalid_request_access(flags));
    default:
        return {.reason = unknown, .code = flags};
    }
}

} // namespace moat::iommu::amd
