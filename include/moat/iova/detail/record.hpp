// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The bits of the word at a range's payload page. live_map.hpp stores the words; allocator.hpp,
// recycler.hpp and central.hpp change them.
#pragma once

#include "moat/core/bits.hpp"

#include <cstdint>

namespace moat::iova {

enum class State : std::uint8_t {
    none,        ///< no range starts here
    live,        ///< a caller has it
    cached,      ///< released; padded in a magazine or the depot for a request of the same size
    queued,      ///< released, waiting for an invalidation
    quarantined, ///< released; kept unmapped so that a late access still faults
    claimed,     ///< live; only the thread that claimed it can release it
    held,        ///< never reused: a device may still reach it
};

/// Whether a released range may be cached for the next request of its size. A range with a special
/// placement is direct: it returns to the free space.
enum class Reuse : std::uint8_t { cacheable, direct };

/// The word: payload pages 26..0, wide 27, direct 28, state 31..29, so that the whole word is one
/// addition away from the payload. A payload of 2^27 pages or more is wide: the word of its second
/// page holds the upper bits, in state `none`.
namespace record {

inline constexpr unsigned state_low = 29;
inline constexpr std::uint32_t direct_bit = 1U << 28;
inline constexpr std::uint32_t wide_bit = 1U << 27;
inline constexpr std::uint32_t payload_mask = wide_bit - 1;

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

[[nodiscard]] constexpr std::uint32_t upper_payload(std::uint64_t payload) {
    return static_cast<std::uint32_t>(payload >> 27);
}

[[nodiscard]] constexpr std::uint32_t encode(State state, Reuse reuse, std::uint64_t payload) {
    return cacheable(state, payload & payload_mask) | (reuse == Reuse::direct ? direct_bit : 0) |
           (upper_payload(payload) != 0 ? wide_bit : 0);
}

[[nodiscard]] constexpr std::uint64_t wide_payload(std::uint32_t word, std::uint32_t second) {
    return static_cast<std::uint64_t>(second) << 27 | (word & payload_mask);
}

} // namespace record

} // namespace moat::iova
