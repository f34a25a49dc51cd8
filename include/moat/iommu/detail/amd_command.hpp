// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The commands of an AMD IOMMU that its driver sends, as bits. amd_command_buffer.hpp sends them.
// Source: 48882, 2.4 "Commands".
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/types.hpp"

#include <array>
#include <bit>
#include <cstdint>

namespace moat::iommu::amd {

/// 16 bytes of the buffer.
using Command = std::array<std::uint64_t, 2>;

/// 2.4.1 COMPLETION_WAIT: stores `data` at `where` when everything before it is complete.
[[nodiscard]] constexpr Command completion_wait(PhysicalAddress where, std::uint64_t data) {
    constexpr std::uint64_t stores = 1;
    return {std::uint64_t{1} << 60 | where.value() | stores, data};
}

/// 2.4.2 INVALIDATE_DEVTAB_ENTRY.
[[nodiscard]] constexpr Command forget_device(std::uint16_t requester) {
    return {std::uint64_t{2} << 60 | requester, 0};
}

/// The operand of an invalidation: the smallest aligned block that contains [first, last].
[[nodiscard]] constexpr std::uint64_t block_operand(Iova first, Iova last) {
    constexpr std::uint64_t is_block = 1; // S
    const auto block_lg2 = static_cast<unsigned>(std::bit_width(first.value() ^ last.value()));
    if (block_lg2 <= 12)
        return align_down(first.value(), 12);
    // The lowest clear bit of the address, n, says that the block has 2^(n + 1) bytes.
    return align_down(first.value(), block_lg2 - 1) | field_mask(block_lg2 - 2, 12) | is_block;
}

/// 2.4.3 INVALIDATE_IOMMU_PAGES: the block of [first, last]. `leaves_only`: cached upper entries
/// may stay.
[[nodiscard]] constexpr Command forget_pages(std::uint16_t domain, Iova first, Iova last,
                                             bool leaves_only) {
    constexpr std::uint64_t and_tables = 2; // PDE
    return {std::uint64_t{3} << 60 | std::uint64_t{domain} << 32,
            block_operand(first, last) | (leaves_only ? 0 : and_tables)};
}

/// 2.4.4 INVALIDATE_IOTLB_PAGES: what a function caches of the block of [first, last].
/// `queue_depth`: as the function's capability has it.
[[nodiscard]] constexpr Command forget_in_function(std::uint16_t requester, unsigned queue_depth,
                                                   Iova first, Iova last) {
    const std::uint64_t most_pending = queue_depth == 0 ? 32 : queue_depth;
    return {std::uint64_t{4} << 60 | std::uint64_t{requester} << 32 | most_pending << 24 |
                requester,
            block_operand(first, last)};
}

[[nodiscard]] constexpr Command forget_domain(std::uint16_t domain) {
    return forget_pages(domain, Iova(0), Iova(~std::uint64_t{0}), false);
}

/// 2.4.8 INVALIDATE_IOMMU_ALL.
[[nodiscard]] constexpr Command forget_everything() {
    return {std::uint64_t{8} << 60, 0};
}

} // namespace moat::iommu::amd
