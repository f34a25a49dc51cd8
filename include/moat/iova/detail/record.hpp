// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The words that say, at the payload page of a mapping, what lives there: bits only.
// Where the words live is live_map.hpp; who changes them is allocator.hpp and central.hpp.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/iova/detail/footprint.hpp"

#include <cstdint>

namespace moat::iova {

enum class State : std::uint8_t {
    none,        ///< no mapping starts here
    live,        ///< a caller has it
    cached,      ///< released, padded, waiting in a magazine or the depot for the same size
    queued,      ///< released, waiting for an invalidation
    quarantined, ///< released, held back so that a late access still faults
    claimed,     ///< live; only the thread that claimed it can release it
    held,        ///< out of use for good: a device may still reach it
};

/// Whether a released range may be cached for the next request of its size. One that was placed by
/// a special wish is direct: it returns to the free space.
enum class Reuse : std::uint8_t { cacheable, direct };

/// The word: payload pages 26..0, wide 27, direct 28, state 31..29, so that the whole word is one
/// addition away from the payload; it changes with each allocation and release. The detail beside
/// it is written once, when the range is cut: guard before 17..0, guard after 35..18,
/// segments 63..36. A payload of 2^27 pages and more is wide: the detail of its second page holds
/// the number.
namespace record {

inline constexpr unsigned state_low = 29;
inline constexpr std::uint32_t direct_bit = 1U << 28;
inline constexpr std::uint32_t wide_bit = 1U << 27;
inline constexpr std::uint32_t payload_mask = wide_bit - 1;
inline constexpr std::uint64_t narrow_payload_limit = bit(27);
inline constexpr std::uint64_t most_segments = bit(28) - 1;

/// The whole word of a cacheable range.
[[nodiscard]] constexpr std::uint32_t cacheable(State state, std::uint64_t payload) {
    return static_cast<std::uint32_t>((static_cast<std::uint64_t>(state) << state_low) + payload);
}

/// The same from the pages less one, as the hot paths have them: still one addition.
[[nodiscard]] constexpr std::uint32_t cacheable_at(State state, std::uint64_t index) {
    return static_cast<std::uint32_t>(((static_cast<std::uint64_t>(state) << state_low) + 1) +
                                      index);
}

[[nodiscard]] constexpr State state_of(std::uint32_t word) {
    return static_cast<State>(word >> state_low);
}

[[nodiscard]] constexpr std::uint32_t with_state(std::uint32_t word, State state) {
    return (word & ~(~0U << state_low)) | static_cast<std::uint32_t>(state) << state_low;
}

[[nodiscard]] constexpr bool is_cacheable(std::uint32_t word) {
    return (word & (direct_bit | wide_bit)) == 0;
}

[[nodiscard]] constexpr bool is_wide(const Footprint& footprint) {
    return footprint.payload >= narrow_payload_limit;
}

[[nodiscard]] constexpr std::uint32_t encode(State state, Reuse reuse, const Footprint& footprint) {
    const std::uint32_t direct = reuse == Reuse::direct ? direct_bit : 0;
    if (is_wide(footprint))
        return cacheable(state, 0) | direct | wide_bit;
    return cacheable(state, footprint.payload) | direct;
}

[[nodiscard]] constexpr std::uint64_t encode_detail(const Footprint& footprint) {
    return footprint.guard.before | footprint.guard.after << 18 | footprint.segments << 36;
}

/// `wide_payload` counts where the word is wide.
[[nodiscard]] constexpr Footprint decode(std::uint32_t word, std::uint64_t detail,
                                         std::uint64_t wide_payload) {
    return {(word & wide_bit) != 0 ? wide_payload : word & payload_mask,
            detail >> 36,
            {detail & low_bits(18), detail >> 18 & low_bits(18)}};
}

} // namespace record

} // namespace moat::iova
