// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a refused access was: which mapping it strayed from, by how many bytes, and who lies beside.
// The answer only: diagnose.hpp finds it, report.hpp says it in words.
#pragma once

#include "moat/fault/mapping.hpp"
#include "moat/fault/record.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace moat::fault {

enum class Kind : std::uint8_t {
    out_of_bounds_right, ///< past the end of a mapping
    out_of_bounds_left,  ///< before the start of a mapping
    crossing,            ///< from one living mapping into the next
    use_after_unmap,     ///< where a mapping was, or just beside it
    permission,          ///< inside a living mapping that does not allow this access
    poisoned,            ///< inside a living mapping, where its owner has forbidden it for a while
    wild,                ///< far from every mapping, living or past
    never_mapped,        ///< nothing is or was mapped at all
    mapped_and_allowed,  ///< inside a living mapping that allows it: the IOMMU disagrees
    not_attached,        ///< the device, or its PASID, has no domain, or is blocked
    no_access,           ///< no access of a device to memory: interrupts, the IOMMU's own errors
};

/// The report's name of it, as AddressSanitizer would write it.
[[nodiscard]] constexpr std::string_view name(Kind kind) {
    constexpr std::array<std::string_view, 11> names = {
        "dma-buffer-overflow",     "dma-buffer-underflow", "dma-buffer-crossing",
        "dma-use-after-unmap",     "dma-permission",       "dma-use-after-poison",
        "dma-wild-access",         "dma-never-mapped",     "dma-mapped-refused",
        "dma-device-not-attached", "iommu-event"};
    return names[static_cast<std::size_t>(kind)];
}

/// On which side of the mapping the access lies.
enum class Side : std::uint8_t { inside, left, right };

/// Which byte outside of the mapping is the nearest, counted from its edge: 1 for the byte next to
/// it, which is one byte past the end (or before the start). Both are equal where the record tells
/// bytes; where it tells a page, the byte is one of that page's, as "1 to 4096 bytes past". 0 where
/// the access lies inside.
struct Distance {
    std::uint64_t least = 0;
    std::uint64_t most = 0;

    friend constexpr bool operator==(const Distance&, const Distance&) = default;
};

struct Diagnosis {
    Kind kind = Kind::never_mapped;
    Record record = {};
    /// The living mapping that the access strayed from, or lies in. None for `wild` and the kinds
    /// after it, but for `mapped_and_allowed`.
    std::optional<Mapping> mapping = {};
    /// `use_after_unmap`: the mapping that was. Elsewhere: the last mapping that was there before,
    /// if one is remembered, as a second explanation.
    std::optional<PastMapping> past = {};
    /// Relative to `mapping`, or to `past` for `use_after_unmap`.
    Side side = Side::inside;
    /// Where `side` is not inside.
    Distance distance = {};
    /// How many bytes of the access lie outside of the mapping; only where the record is exact.
    std::uint64_t bytes_outside = 0;
    /// `crossing`: the mapping that the access ran into.
    std::optional<Mapping> next = {};
    /// The living mappings nearest to the access on each side, but for `mapping`.
    std::optional<Mapping> left = {};
    std::optional<Mapping> right = {};
    SearchSteps steps = {};
};

} // namespace moat::fault
