// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Decodes an event of an SMMUv3 to a fault::Record. smmuv3.hpp takes it from the queue.
// Source: IHI 0070, 7.3 "Event records".
#pragma once

#include "moat/core/bits.hpp"
#include "moat/fault/record.hpp"

#include <array>
#include <cstdint>

namespace moat::iommu::smmuv3 {

/// The first 24 of its 32 bytes: what concerns the access.
using Event = std::array<std::uint64_t, 3>;

/// Streams of the driver are valid or absent, so it never causes C_BAD_STE otherwise.
[[nodiscard]] constexpr fault::Reason reason_of(unsigned number) {
    using enum fault::Reason;
    switch (number) {
    case 0x02: // C_BAD_STREAMID
    case 0x04: // C_BAD_STE
        return not_attached;
    case 0x06: // F_STREAM_DISABLED
        return blocked;
    case 0x08: // C_BAD_SUBSTREAMID
        return pasid;
    case 0x0a: // C_BAD_CD
        return malformed_table;
    case 0x10: // F_TRANSLATION
        return not_present;
    case 0x11: // F_ADDR_SIZE
        return address_size;
    case 0x12: // F_ACCESS
    case 0x13: // F_PERMISSION
        return permission;
    case 0x03: // F_STE_FETCH
    case 0x09: // F_CD_FETCH
    case 0x0b: // F_WALK_EABT
        return table_access;
    case 0x01: // F_UUT
    case 0x05: // F_BAD_ATS_TREQ
    case 0x07: // F_TRANSL_FORBIDDEN
        return bad_request;
    case 0x20: // F_TLB_CONFLICT
    case 0x21: // F_CFG_CONFLICT
        return hardware;
    default:
        return unknown;
    }
}

/// Whether the event has an input address and the kind of the access.
[[nodiscard]] constexpr bool has_access(unsigned number) {
    switch (number) {
    case 0x01:
    case 0x05:
    case 0x07:
    case 0x0b:
    case 0x20:
        return true;
    default:
        return number >= 0x10 && number <= 0x13;
    }
}

/// A stream's number is its function's requester ID, unless it has more than 16 bits.
[[nodiscard]] constexpr fault::Record decode(const Event& event) {
    const auto number = static_cast<unsigned>(event[0] & 0xff);
    const auto stream = static_cast<std::uint32_t>(event[0] >> 32);
    fault::Record record = {
        .source = stream <= 0xffff ? fault::Source::requester(static_cast<std::uint16_t>(stream))
                                   : fault::Source::stream(stream),
        .reason = reason_of(number),
        .code = number};
    constexpr std::uint64_t has_substream = bit(11);
    if ((event[0] & has_substream) != 0)
        record.pasid = static_cast<std::uint32_t>(event[0] >> 12 & 0xfffff);
    if (!has_access(number))
        return record;
    constexpr std::uint64_t was_read = bit(35);
    constexpr std::uint64_t instruction = bit(34);
    record.access = (event[1] & was_read) == 0      ? fault::Access::write
                    : (event[1] & instruction) != 0 ? fault::Access::execute
                                                    : fault::Access::read;
    record.precision = fault::Precision::start;
    record.where = IovaRange(Iova(event[2]), ByteCount(1));
    return record;
}

} // namespace moat::iommu::smmuv3
