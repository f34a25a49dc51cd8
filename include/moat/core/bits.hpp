// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Powers of two: masks, alignment, and fields of a 64-bit word. Pure functions that also define a
// shift by 64.
#pragma once

#include <bit>
#include <cstdint>

namespace moat {

/// The low `count` bits set; `count` is 0..64.
[[nodiscard]] constexpr std::uint64_t low_bits(unsigned count) {
    return count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
}

/// Bits `high` down to `low` set, both inclusive, as specifications write them: `field_mask(51,
/// 12)`.
[[nodiscard]] constexpr std::uint64_t field_mask(unsigned high, unsigned low) {
    return low_bits(high + 1) & ~low_bits(low);
}

[[nodiscard]] constexpr std::uint64_t bit(unsigned index) {
    return std::uint64_t{1} << index;
}

/// Whether `value` is a multiple of 2^alignment_lg2.
[[nodiscard]] constexpr bool is_aligned(std::uint64_t value, unsigned alignment_lg2) {
    return (value & low_bits(alignment_lg2)) == 0;
}

[[nodiscard]] constexpr std::uint64_t align_down(std::uint64_t value, unsigned alignment_lg2) {
    return value & ~low_bits(alignment_lg2);
}

/// Rounds up; wraps to 0 where the result would be 2^64.
[[nodiscard]] constexpr std::uint64_t align_up(std::uint64_t value, unsigned alignment_lg2) {
    return align_down(value + low_bits(alignment_lg2), alignment_lg2);
}

/// The largest n for which `value` is a multiple of 2^n; 64 for 0.
[[nodiscard]] constexpr unsigned alignment_lg2(std::uint64_t value) {
    return static_cast<unsigned>(std::countr_zero(value));
}

/// The largest n with 2^n <= value; `value` is not 0.
[[nodiscard]] constexpr unsigned floor_lg2(std::uint64_t value) {
    return 63U - static_cast<unsigned>(std::countl_zero(value));
}

} // namespace moat
