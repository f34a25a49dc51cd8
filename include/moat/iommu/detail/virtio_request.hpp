// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a virtio-iommu and its driver send each other: requests as words, and fault reports.
// Source: virtio 1.2, 5.13.6 "Device operations".
#pragma once

#include "moat/core/bits.hpp"
#include "moat/fault/record.hpp"
#include "moat/page_table/attributes.hpp"

#include <array>
#include <cstdint>
#include <span>

namespace moat::iommu::virtio {

/// The part that the device reads; it writes a status of 4 bytes after it.
struct Request {
    std::array<std::uint64_t, 5> words = {};
    std::uint32_t bytes = 0;
};

enum class Status : std::uint8_t {
    ok = 0,
    io = 1,
    unsupported = 2,
    device = 3,
    invalid = 4,
    range = 5,
    no_entry = 6,
    fault = 7,
    no_memory = 8,
    none = 0xff, ///< the device wrote nothing
};

[[nodiscard]] constexpr Request attach_request(std::uint32_t domain, std::uint32_t endpoint) {
    return {{1 | std::uint64_t{domain} << 32, endpoint}, 20};
}

[[nodiscard]] constexpr Request detach_request(std::uint32_t domain, std::uint32_t endpoint) {
    return {{2 | std::uint64_t{domain} << 32, endpoint}, 20};
}

[[nodiscard]] constexpr Request map_request(std::uint32_t domain, IovaRange range,
                                            PhysicalAddress memory, Attributes attributes) {
    constexpr std::uint64_t may_read = 1;
    constexpr std::uint64_t may_write = 2;
    const std::uint64_t flags = (has(attributes, Attributes::read) ? may_read : 0) |
                                (has(attributes, Attributes::write) ? may_write : 0);
    return {{3 | std::uint64_t{domain} << 32, range.start().value(), range.last().value(),
             memory.value(), flags},
            36};
}

/// Unmaps every mapping that lies in the range. None may lie across its bounds.
[[nodiscard]] constexpr Request unmap_request(std::uint32_t domain, IovaRange range) {
    return {{4 | std::uint64_t{domain} << 32, range.start().value(), range.last().value()}, 28};
}

inline constexpr std::uint32_t report_bytes = 24;

/// A fault report of 24 bytes.
[[nodiscard]] constexpr fault::Record decode_report(std::span<const std::uint64_t, 3> words) {
    constexpr unsigned outside_domain = 1;
    constexpr unsigned no_mapping = 2;
    constexpr std::uint64_t reads = bit(0);
    constexpr std::uint64_t writes = bit(1);
    constexpr std::uint64_t has_address = bit(8);
    const auto reason = static_cast<unsigned>(words[0] & 0xff);
    const std::uint64_t flags = words[0] >> 32;
    const auto endpoint = static_cast<std::uint32_t>(words[1]);
    fault::Record record = {
        .source = endpoint <= 0xffff
                      ? fault::Source::requester(static_cast<std::uint16_t>(endpoint))
                      : fault::Source::endpoint(endpoint),
        .access = (flags & writes) != 0  ? fault::Access::write
                  : (flags & reads) != 0 ? fault::Access::read
                                         : fault::Access::unknown,
        .reason = reason == outside_domain ? fault::Reason::not_attached
                  : reason == no_mapping   ? fault::Reason::permission // or no mapping at all
                                           : fault::Reason::unknown,
        .code = reason};
    if ((flags & has_address) != 0) {
        record.precision = fault::Precision::start;
        record.where = IovaRange(Iova(words[2]), ByteCount(1));
    }
    return record;
}

} // namespace moat::iommu::virtio
