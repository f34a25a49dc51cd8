// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a caller may ask of the allocator, and when a release takes effect. All of it concerns the
// payload; the allocator adds the guard.
#pragma once

#include "moat/core/types.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <optional>

namespace moat::iova {

/// Where the payload may start: at addresses equal to `like` modulo 2^modulus_lg2.
struct Congruence {
    /// 0 to 57; up to the granule it changes nothing.
    unsigned modulus_lg2 = 0;
    std::uint64_t like = 0;

    /// Natural alignment, which coherent buffers need: the size, rounded up to a power of two.
    [[nodiscard]] static constexpr Congruence natural(ByteCount size) {
        const std::uint64_t most = std::uint64_t{1} << 63;
        const std::uint64_t last = std::min(size.value(), most) - (size.value() != 0 ? 1 : 0);
        return {static_cast<unsigned>(std::bit_width(last)), 0};
    }

    [[nodiscard]] static constexpr Congruence aligned(unsigned alignment_lg2) {
        return {alignment_lg2, 0};
    }

    /// The same offset in a large page (2^modulus_lg2: 21 for 2 MiB, 30 for 1 GiB) as the memory
    /// has, so that large leaves can map it.
    [[nodiscard]] static constexpr Congruence with(PhysicalAddress memory, unsigned modulus_lg2) {
        return {modulus_lg2, memory.value()};
    }
};

struct Request {
    /// In bytes; the allocator rounds it up to the granule.
    ByteCount size;
    Congruence placement{};
    /// The last address that the device can send; the payload ends there at the latest.
    Iova last{std::numeric_limits<std::uint64_t>::max()};
    /// The payload's own address, where the caller chooses it: a multiple of the granule that
    /// satisfies `placement` and `last`.
    std::optional<Iova> at{};

    /// Whether any range of this size will do, as the caches hold them.
    [[nodiscard]] constexpr bool is_plain() const {
        return placement.modulus_lg2 == 0 &&
               last.value() == std::numeric_limits<std::uint64_t>::max() && !at;
    }
};

enum class When : std::uint8_t {
    now,                ///< the caller has invalidated: no device can reach the range
    after_invalidation, ///< queued; reusable after an invalidation that begins later
};

} // namespace moat::iova
