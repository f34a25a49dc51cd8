// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The entries of an SMMUv3's stream table and its context descriptors, for stage 1 alone.
// smmuv3.hpp stores both.
// Source: IHI 0070, 5.2 "STE, Stream Table Entry" and 5.4 "CD, Context Descriptor".
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/types.hpp"
#include "moat/page_table/formats/arm_stage1.hpp"

#include <array>
#include <cstdint>

namespace moat::iommu::smmuv3 {

/// What fills the first words of 64 bytes; the others are 0.
using StreamEntry = std::array<std::uint64_t, 2>;
using ContextDescriptor = std::array<std::uint64_t, 4>;

inline constexpr std::uint64_t stream_valid = bit(0);

/// Stage 1 with one context. Faults terminate; the unit merges no events. `caches`: the unit
/// answers the function's translation requests, and passes its translated accesses on.
[[nodiscard]] constexpr StreamEntry stream_entry(PhysicalAddress context, bool stall_is_optional,
                                                 bool caches) {
    constexpr std::uint64_t translate_stage1 = std::uint64_t{5} << 1;
    constexpr std::uint64_t write_back = bit(2) | bit(4); // S1CIR, S1COR
    constexpr std::uint64_t inner_shareable = std::uint64_t{3} << 6;
    constexpr std::uint64_t never_stall = bit(27);
    constexpr std::uint64_t serves_function = std::uint64_t{1} << 28; // EATS
    return {context.value() | translate_stage1 | stream_valid,
            write_back | inner_shareable | (stall_is_optional ? never_stall : 0) |
                (caches ? serves_function : 0)};
}

/// Tables of `input_bits` with the granule of 4K in the lower half of the address space; the upper
/// half is disabled. Faults are recorded, and abort the access (5.5).
[[nodiscard]] constexpr ContextDescriptor context_descriptor(PhysicalAddress table,
                                                             unsigned input_bits,
                                                             unsigned output_size,
                                                             std::uint16_t address_space) {
    constexpr std::uint64_t write_back = bit(8) | bit(10); // IR0, OR0
    constexpr std::uint64_t inner_shareable = std::uint64_t{3} << 12;
    constexpr std::uint64_t upper_half_disabled = bit(30);
    constexpr std::uint64_t valid = bit(31);
    constexpr std::uint64_t vmsa_v8_64 = bit(41);
    constexpr std::uint64_t record_and_abort = bit(45) | bit(46);
    constexpr std::uint64_t own_numbers = bit(47);     // ASET: not a processor's address space
    constexpr std::uint64_t attribute_memory = 0x04ff; // as ArmStage1 has them
    return {(64 - input_bits) | write_back | inner_shareable | upper_half_disabled | valid |
                std::uint64_t{output_size} << 32 | vmsa_v8_64 | record_and_abort | own_numbers |
                std::uint64_t{address_space} << 48,
            table.value(), 0, attribute_memory};
}

/// VMSAv8-64 stage 1 tables for devices, whose requests are unprivileged. Devices may read whatever
/// they may write: stage 1 knows no write-only leaf. There are no contiguous groups, so that each
/// page is unmapped alone.
struct DeviceStage1 : formats::ArmStage1<formats::ArmConfig{}> {
    using Base = formats::ArmStage1<formats::ArmConfig{}>;
    using Input = Iova;

    static constexpr std::uint32_t leaf_groups(unsigned level) {
        return Base::leaf_groups(level) & 1;
    }

    static constexpr bool representable(Attributes a) {
        return (a & read_write) != Attributes::none && Base::representable(a | Attributes::read);
    }

    static constexpr Word attribute_word(Attributes a) {
        return Base::attribute_word(a | Attributes::read | Attributes::user);
    }
};

static_assert(PageTableFormat<DeviceStage1>);

} // namespace moat::iommu::smmuv3
