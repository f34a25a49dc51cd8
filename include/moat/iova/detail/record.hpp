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

/// Where a released range waits for its next use.
enum class Reuse : std::uint8_t {
    magazine, ///< any request of its size takes it
    special,  ///< in the special cache: large sizes, and placements
    direct,   ///< in the free space: its caller chose the address
};

/// The word: payload pages 25..0, wide 26, reuse 28..27, state 31..29, so that the whole word is
/// one addition away from the payload. A payload of 2^26 pages or more is wide, and direct: the
/// word of its second page holds the upper bits, in state `none`.
namespace record {

inline constexpr unsigned state_low = 29;
inline constexpr unsigned reuse_low = 27;
inline constexpr std::uint32_t reuse_mask = 3U << reuse_low;
inline constexpr unsigned payload_bits = 26;
inline constexpr std::uint32_t wide_bit = 1U << payload_bits;
inline constexpr std::uint32_t payload_mask = wide_bit - 1;

/// The whole word of a range for a magazine.
[[nodiscard]] constexpr std::uint32_t cacheable(State state, std::uint64_t payload) {
    return static_cast<std::uint32_t>((static_cast<std::uint64_t>(state) << state_low) + payload);
}

/// The same from the pages less one, as the hot paths have them: still one addition.
[[nodiscard]] constexpr std::uint32_t cacheable_at(State state, std::uint64_t index) {
    return static_cast<std::uint32_t>(((static_cast<std::uint64_t>(state) << state_low) + 1) +
                                      index);
}

/// The whole word of a range for the special cache.
[[nodiscard]] constexpr std::uint32_t special(State state, std::uint64_t payload) {
    return cacheable(state, payload) | static_cast<std::uint32_t>(Reuse::special) << reuse_low;
}

[[nodiscard]] constexpr State state_of(std::uint32_t word) {
    return static_cast<State>(word >> state_low);
}

[[nodiscard]] constexpr std::uint32_t with_state(std::uint32_t word, State state) {
    return (word & ~(~0U << state_low)) | static_cast<std::uint32_t>(state) << state_low;
}

[[nodiscard]] constexpr Reuse reuse_of(std::uint32_t word) {
    return static_cast<Reuse>((word & reuse_mask) >> reuse_low);
}

[[nodiscard]] constexpr std::uint32_t upper_payload(std::uint64_t payload) {
    return static_cast<std::uint32_t>(payload >> payload_bits);
}

[[nodiscard]] constexpr std::uint32_t encode(State state, Reuse reuse, std::uint64_t payload) {
    return cacheable(state, payload & payload_mask) |
           static_cast<std::uint32_t>(reuse) << reuse_low |
           (upper_payload(payload) != 0 ? wide_bit : 0);
}

[[nodiscard]] constexpr std::uint64_t wide_payload(std::uint32_t word, std::uint32_t second) {
    return static_cast<std::uint64_t>(second) << payload_bits | (word & payload_mask);
}

} // namespace record

} // namespace moat::iova
