// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One invalidation command for a VT-d unit, in its two encodings: a descriptor of the queue, or
// values for registers (a device-TLB's has the first alone). Bits only; vtd_invalidation_port.hpp
// sends it and waits. Source: VT-d, 6.5.2 "Queued Invalidation Interface" and 11.4.5, 11.4.6.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/types.hpp"
#include "moat/iommu/detail/vtd_registers.hpp"

#include <array>
#include <cstdint>

namespace moat::iommu::vtd {

/// The format of the queue.
using Descriptor = std::array<std::uint64_t, 2>;

struct Command {
    enum class Cache : std::uint8_t { context, iotlb, device_tlb };
    enum class Reach : std::uint8_t { all, domain, narrow }; ///< narrow: one function, or pages

    Cache cache = Cache::iotlb;
    Reach reach = Reach::all;
    std::uint16_t domain = 0;
    std::uint16_t requester = 0; ///< for a device-TLB, or a narrow one of the context cache
    unsigned queue_depth = 0;    ///< for a device-TLB: at most so many at once; 0: 32
    Iova pages = {};             ///< for a narrow one of a TLB: aligned to its length
    unsigned pages_lg2 = 0;
    bool leaves_only = false; ///< cached upper entries may stay

    [[nodiscard]] constexpr std::uint64_t reach_code() const {
        return 1U + static_cast<unsigned>(reach);
    }

    [[nodiscard]] constexpr std::uint64_t page_word() const {
        return reach == Reach::narrow ? pages.value() | (leaves_only ? bit(6) : 0) | pages_lg2 : 0;
    }

    /// 6.5.2.5: the lowest 0 of the page's number, in a range of several pages, gives the size.
    [[nodiscard]] constexpr std::uint64_t device_word() const {
        constexpr std::uint64_t several = bit(0);
        if (reach != Reach::narrow)
            return field_mask(62, 12) | several;
        return pages_lg2 == 0 ? pages.value()
                              : pages.value() | low_bits(pages_lg2 - 1) << 12 | several;
    }

    [[nodiscard]] constexpr Descriptor descriptor(Capabilities capabilities) const {
        if (cache == Cache::device_tlb)
            return {3U | std::uint64_t{queue_depth} << 16 | std::uint64_t{requester} << 32,
                    device_word()};
        const std::uint64_t head = reach_code() << 4 | std::uint64_t{domain} << 16;
        if (cache == Cache::context)
            return {head | 1U | std::uint64_t{requester} << 32, 0};
        return {head | 2U | (capabilities.drains_writes() ? bit(6) : 0) |
                    (capabilities.drains_reads() ? bit(7) : 0),
                page_word()};
    }

    /// For CCMD_REG; bit 63 starts it and is clear on completion.
    [[nodiscard]] constexpr std::uint64_t context_register() const {
        return bit(63) | reach_code() << 61 | std::uint64_t{requester} << 16 | domain;
    }

    /// For IOTLB_REG, after writing `page_word` to IVA_REG; bit 63 likewise.
    [[nodiscard]] constexpr std::uint64_t iotlb_register(Capabilities capabilities) const {
        return bit(63) | reach_code() << 60 | (capabilities.drains_reads() ? bit(49) : 0) |
               (capabilities.drains_writes() ? bit(48) : 0) | std::uint64_t{domain} << 32;
    }
};

/// Writes `data` to the 32-bit word at `status` after completing everything before it in the queue.
[[nodiscard]] constexpr Descriptor wait_descriptor(PhysicalAddress status, std::uint32_t data) {
    constexpr std::uint64_t kind = 5;
    constexpr std::uint64_t writes_status = bit(5);
    return {kind | writes_status | std::uint64_t{data} << 32, status.value()};
}

} // namespace moat::iommu::vtd
