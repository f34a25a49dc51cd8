// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How many unmapped pages surround a mapping: none, a fixed number, or a random one in bounds.
// Who adds and removes them is footprint.hpp. The allocator takes one of these as a parameter.
#pragma once

#include "moat/iova/detail/extent.hpp"

#include <concepts>
#include <cstdint>

namespace moat::iova {

/// The guard of one segment, in pages; multiples of the IOMMU's granule.
struct GuardPages {
    std::uint64_t before = 0;
    std::uint64_t after = 0;

    [[nodiscard]] constexpr std::uint64_t both() const { return before + after; }

    friend constexpr bool operator==(const GuardPages&, const GuardPages&) = default;
};

/// The most pages on one side that a record of a mapping can hold: just below 1 GiB.
inline constexpr std::uint64_t most_guard_pages = (std::uint64_t{1} << 18) - 1;

template <class P>
concept GuardPolicy = requires(const P policy, unsigned granule_lg2, std::uint64_t random) {
    // The guard of a new mapping; `random` is uniform over 64 bits. Whoever draws records it.
    { policy.draw(granule_lg2, random) } -> std::same_as<GuardPages>;
    // No drawn guard is wider, on either side: what an edge of the aperture keeps free.
    { policy.widest(granule_lg2) } -> std::same_as<GuardPages>;
};

/// Bytes in pages, rounded up to the granule.
[[nodiscard]] constexpr std::uint64_t guard_pages(ByteCount bytes, unsigned granule_lg2) {
    const std::uint64_t whole = bytes.value() >> granule_lg2;
    const std::uint64_t granules = whole + (whole << granule_lg2 != bytes.value() ? 1 : 0);
    return granules << (granule_lg2 - page_lg2);
}

/// The feature compiled out: a mapping ends where its neighbour begins.
struct NoGuard {
    [[nodiscard]] static constexpr GuardPages draw(unsigned, std::uint64_t) { return {}; }

    [[nodiscard]] static constexpr GuardPages widest(unsigned) { return {}; }
};

static_assert(GuardPolicy<NoGuard>);

/// The same number of bytes for every mapping, rounded up to whole pages; 0 is off.
struct FixedGuard {
    ByteCount before{};
    ByteCount after{};

    [[nodiscard]] constexpr GuardPages draw(unsigned granule_lg2, std::uint64_t) const {
        return widest(granule_lg2);
    }

    [[nodiscard]] constexpr GuardPages widest(unsigned granule_lg2) const {
        return {guard_pages(before, granule_lg2), guard_pages(after, granule_lg2)};
    }
};

static_assert(GuardPolicy<FixedGuard>);

/// A width drawn anew for each mapping, between `least` and `most` on each side, both inclusive:
/// a stray access at a constant distance does not always hit the same thing.
struct RandomGuard {
    FixedGuard least{};
    FixedGuard most{};

    [[nodiscard]] constexpr GuardPages draw(unsigned granule_lg2, std::uint64_t random) const {
        const GuardPages low = least.widest(granule_lg2);
        const GuardPages high = widest(granule_lg2);
        const unsigned unit_lg2 = granule_lg2 - page_lg2;
        return {between(low.before, high.before, unit_lg2, random & 0xffffffff),
                between(low.after, high.after, unit_lg2, random >> 32)};
    }

    [[nodiscard]] constexpr GuardPages widest(unsigned granule_lg2) const {
        const GuardPages low = least.widest(granule_lg2);
        const GuardPages high = most.widest(granule_lg2);
        return {high.before < low.before ? low.before : high.before,
                high.after < low.after ? low.after : high.after};
    }

  private:
    /// Both bounds are multiples of the unit, and so is the result.
    static constexpr std::uint64_t between(std::uint64_t low, std::uint64_t high, unsigned unit_lg2,
                                           std::uint64_t random) {
        return low + (random % (((high - low) >> unit_lg2) + 1) << unit_lg2);
    }
};

static_assert(GuardPolicy<RandomGuard>);

} // namespace moat::iova
