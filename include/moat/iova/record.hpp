// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The word that says, at the payload page of a mapping, what lives there: bits only.
// Where the words live is live_map.hpp; who changes them is allocator.hpp and central.hpp.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/iova/footprint.hpp"

#include <cstdint>

namespace moat::iova {

enum class State : std::uint8_t {
    none,        ///< no mapping starts here
    live,        ///< a caller has it
    cached,      ///< released, padded, waiting in a magazine or the depot for the same size
    queued,      ///< released, waiting for an invalidation
    quarantined, ///< released, held back so that a late access still faults
};

/// Layout: state 2..0, wide 3, direct 4, payload pages 27..5, guard before 45..28, after 63..46.
/// A wide word (a list of segments, or a payload of 2^23 pages and more) holds the payload in 63..5
/// and the rest in the word of the next page, which every such mapping owns. A direct range was
/// placed by a special wish and returns to the free space, never into a cache.
namespace record {

inline constexpr unsigned payload_low = 5;
inline constexpr std::uint64_t state_mask = low_bits(3);
inline constexpr std::uint64_t wide_bit = bit(3);
inline constexpr std::uint64_t direct_bit = bit(4);
inline constexpr std::uint64_t narrow_payload_limit = bit(23);
/// State, wide, direct and payload of a narrow word: what a release must know exactly.
inline constexpr std::uint64_t identity_mask = low_bits(28);

[[nodiscard]] constexpr std::uint64_t identity(State state, std::uint64_t payload) {
    return static_cast<std::uint64_t>(state) | payload << payload_low;
}

[[nodiscard]] constexpr State state_of(std::uint64_t word) {
    return static_cast<State>(word & state_mask);
}

[[nodiscard]] constexpr std::uint64_t with_state(std::uint64_t word, State state) {
    return (word & ~state_mask) | static_cast<std::uint64_t>(state);
}

[[nodiscard]] constexpr bool is_wide(std::uint64_t word) {
    return (word & wide_bit) != 0;
}

[[nodiscard]] constexpr bool needs_wide(const Footprint& footprint) {
    return footprint.segments != 1 || footprint.payload >= narrow_payload_limit;
}

enum class Reuse : std::uint8_t { cacheable, direct };

[[nodiscard]] constexpr std::uint64_t encode(State state, Reuse reuse, const Footprint& footprint) {
    const std::uint64_t base =
        identity(state, footprint.payload) | (reuse == Reuse::direct ? direct_bit : 0);
    if (needs_wide(footprint))
        return base | wide_bit;
    return base | footprint.guard.before << 28 | footprint.guard.after << 46;
}

/// The second word of a wide record: guard before 17..0, guard after 35..18, segments 63..36.
inline constexpr std::uint64_t most_segments = bit(28) - 1;

[[nodiscard]] constexpr std::uint64_t encode_second(const Footprint& footprint) {
    return footprint.guard.before | footprint.guard.after << 18 | footprint.segments << 36;
}

[[nodiscard]] constexpr std::uint64_t payload_of(std::uint64_t word) {
    return is_wide(word) ? word >> payload_low : (word & identity_mask) >> payload_low;
}

[[nodiscard]] constexpr Footprint decode(std::uint64_t word, std::uint64_t second) {
    if (!is_wide(word))
        return {payload_of(word), 1, {word >> 28 & low_bits(18), word >> 46}};
    return {payload_of(word), second >> 36, {second & low_bits(18), second >> 18 & low_bits(18)}};
}

} // namespace record

} // namespace moat::iova
