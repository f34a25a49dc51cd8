// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A request's wishes in pages, checked, as the free space takes them.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/result.hpp"
#include "moat/iova/config.hpp"
#include "moat/iova/detail/pages.hpp"

#include <cstdint>
#include <limits>

namespace moat::iova {

inline constexpr unsigned most_modulus_lg2 = 57;

/// Where a payload may lie, in pages; without `at` the free space chooses.
struct Spot {
    static constexpr std::uint64_t anywhere = std::numeric_limits<std::uint64_t>::max();

    std::uint64_t at = anywhere;
    unsigned modulus_lg2 = 0;
    std::uint64_t remainder = 0;
    std::uint64_t limit = anywhere; ///< the payload's exclusive end, at most
};

/// Where a payload may lie, in bytes, as a cached range is compared with it.
struct Wish {
    /// The bits of an address that the placement sets, and their values.
    std::uint64_t mask = 0;
    std::uint64_t like = 0;
    std::uint64_t last = 0;

    /// For a checked modulus, at most 2^57.
    constexpr Wish(const Congruence& placement, Iova latest, std::uint64_t granule_mask)
        : mask(((std::uint64_t{1} << placement.modulus_lg2) - 1) & ~granule_mask),
          like(placement.like), last(latest.value()) {}

    [[nodiscard]] constexpr bool allows(Iova start, std::uint64_t payload) const {
        const std::uint64_t at = start.value();
        return ((at ^ like) & mask) == 0 && at + (payload << page_lg2) - 1 <= last;
    }
};

/// Errors: `out_of_range` (modulus), `unaligned` (a fixed address off the granule or its
/// placement).
[[nodiscard]] inline Result<Spot> spot_of(const Request& request, unsigned granule_lg2) {
    Spot spot;
    if (request.last.value() != std::numeric_limits<std::uint64_t>::max())
        spot.limit = (request.last.value() + 1) >> page_lg2;
    const auto& [modulus_lg2, like] = request.placement;
    if (modulus_lg2 > granule_lg2) {
        if (modulus_lg2 > most_modulus_lg2)
            return fail(ErrorCode::out_of_range, "an alignment is at most 2^57",
                        {"modulus_lg2", modulus_lg2});
        spot.modulus_lg2 = modulus_lg2 - page_lg2;
        spot.remainder = (like & ~low_bits(granule_lg2)) >> page_lg2;
    }
    if (!request.at)
        return spot;
    const std::uint64_t at = request.at->value();
    if (!is_aligned(at, granule_lg2))
        return fail(ErrorCode::unaligned, "a fixed address is a multiple of the granule",
                    {"at", at});
    spot.at = at >> page_lg2;
    if (((spot.at - spot.remainder) & low_bits(spot.modulus_lg2)) != 0)
        return fail(ErrorCode::unaligned, "a fixed address must satisfy its placement", {"at", at},
                    {"modulus_lg2", modulus_lg2}, {"like", like});
    return spot;
}

} // namespace moat::iova
