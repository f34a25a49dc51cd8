// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The commands of an SMMUv3 that its driver sends, as bits. smmuv3_command_queue.hpp sends them.
// Source: IHI 0070, 4.3 "Configuration structure invalidation", 4.4 "TLB invalidation", 4.5.1
// "CMD_ATC_INV", 4.7.3 "CMD_SYNC".
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/types.hpp"

#include <array>
#include <bit>
#include <cstdint>

namespace moat::iommu::smmuv3 {

/// 16 bytes of the queue.
using Command = std::array<std::uint64_t, 2>;

/// CMD_CFGI_STE: the stream's entry, and its context descriptor with it.
[[nodiscard]] constexpr Command forget_stream(std::uint32_t stream) {
    constexpr std::uint64_t leaf = 1;
    return {0x03 | std::uint64_t{stream} << 32, leaf};
}

/// CMD_CFGI_ALL.
[[nodiscard]] constexpr Command forget_streams() {
    constexpr std::uint64_t every_stream = 31;
    return {0x04, every_stream};
}

/// CMD_TLBI_NSNH_ALL.
[[nodiscard]] constexpr Command forget_translations() {
    return {0x30, 0};
}

/// CMD_TLBI_NH_ASID.
[[nodiscard]] constexpr Command forget_address_space(std::uint16_t number) {
    return {0x11 | std::uint64_t{number} << 48, 0};
}

/// CMD_TLBI_NH_VA: one page. `leaves_only`: cached upper entries may stay.
[[nodiscard]] constexpr Command forget_page(std::uint16_t number, Iova page, bool leaves_only) {
    return {0x12 | std::uint64_t{number} << 48,
            align_down(page.value(), 12) | (leaves_only ? 1 : 0)};
}

/// The same for (count << scale) pages (4.4.1.1), with `count` from 1 to 32 and `scale` up to 31.
[[nodiscard]] constexpr Command forget_pages(std::uint16_t number, Iova first, unsigned count,
                                             unsigned scale, bool leaves_only) {
    constexpr std::uint64_t granule_4k = 1U << 10;
    Command command = forget_page(number, first, leaves_only);
    command[0] |= std::uint64_t{count - 1} << 12 | std::uint64_t{scale} << 20;
    command[1] |= granule_4k;
    return command;
}

/// CMD_ATC_INV: what the stream's function caches of the smallest aligned block that contains
/// [first, last].
[[nodiscard]] constexpr Command forget_in_function(std::uint32_t stream, Iova first, Iova last) {
    const auto block_lg2 = static_cast<unsigned>(std::bit_width(first.value() ^ last.value()));
    const unsigned pages_lg2 = block_lg2 > 12 ? block_lg2 - 12 : 0; // 52: everything
    const std::uint64_t start = block_lg2 < 64 ? align_down(first.value(), pages_lg2 + 12) : 0;
    return {0x40 | std::uint64_t{stream} << 32, start | pages_lg2};
}

/// CMD_SYNC without a signal: consumed when everything before it is complete.
[[nodiscard]] constexpr Command synchronize() {
    return {0x46, 0};
}

} // namespace moat::iommu::smmuv3
