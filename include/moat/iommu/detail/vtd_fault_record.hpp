// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Decodes a VT-d unit's fault recording register to a fault::Record. vtd.hpp reads and clears
// the registers.
// Source: VT-d, 11.4.8.2 "Fault Recording Registers" and 7.1.3 "Fault Reasons".
#pragma once

#include "moat/core/bits.hpp"
#include "moat/fault/record.hpp"
#include "moat/iommu/detail/vtd_registers.hpp"

#include <cstdint>

namespace moat::iommu::vtd {

[[nodiscard]] constexpr fault::Reason reason_of(unsigned code) {
    using enum fault::Reason;
    switch (code) {
    case 0x1: // root entry
    case 0x2: // context entry
        return not_attached;
    case 0x4:
        return address_size;
    case 0x5: // a write
    case 0x6: // a read; both also report an absent mapping
        return permission;
    case 0x7: // a paging entry is unreadable
    case 0x8: // a root entry
    case 0x9: // a context entry
        return table_access;
    case 0x3: // a context entry of an invalid kind
    case 0xa: // reserved bits in a root entry
    case 0xb: // in a context entry
    case 0xc: // in a paging entry
        return malformed_table;
    case 0xd: // a translation request that the context entry forbids
    case 0xe:
        return bad_request;
    default:
        return code >= 0x20 && code < 0x30 ? interrupt : unknown;
    }
}

/// `low` and `high` are the halves of a record whose fault bit is set.
[[nodiscard]] constexpr fault::Record decode(std::uint64_t low, std::uint64_t high) {
    const auto code = static_cast<unsigned>(high >> 32 & 0xff);
    fault::Record record = {.source = fault::Source::requester(static_cast<std::uint16_t>(high)),
                            .reason = reason_of(code),
                            .code = code};
    if (record.reason == fault::Reason::interrupt)
        return record;
    record.access = (high & fault_bits::was_read) == 0  ? fault::Access::write
                    : (high & fault_bits::execute) != 0 ? fault::Access::execute
                                                        : fault::Access::read;
    record.precision = fault::Precision::page;
    record.where = IovaRange(Iova(align_down(low, 12)), ByteCount(bit(12)));
    if ((high & fault_bits::has_pasid) != 0)
        record.pasid = static_cast<std::uint32_t>(high >> 40 & 0xfffff);
    return record;
}

} // namespace moat::iommu::vtd
