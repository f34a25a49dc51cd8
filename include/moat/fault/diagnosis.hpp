// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Diagnosis: the mapping that a refused access strayed from, by how many bytes, and the mappings
// beside it. diagnose.hpp computes it, report.hpp renders it.
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
    poisoned,            ///< inside a living mapping, where its owner has poisoned the bytes
    wild,                ///< far from every mapping, living or past
    never_mapped,        ///< nothing is or was mapped
    mapped_and_allowed,  ///< inside a living mapping that allows it: the IOMMU disagrees
    not_attached,        ///< the device, or its PASID, has no domain, or is blocked
    no_access, ///< not an access of a device to memory: interrupts, the IOMMU's own errors
};

/// The kind's name in reports, in the style of AddressSanitizer.
[[nodiscard]] constexpr std::string_view name(Kind kind) {
    constexpr std::array<std::string_view, 11> names = {
        "dma-buffer-overflow",     "dma-buffer-underflow", "dma-buffer-crossing",
        "dma-use-after-unmap",     "dma-permission",       "dma-use-after-poison",
        "dma-wild-access",         "dma-never-mapped",     "dma-mapped-refused",
        "dma-device-not-attached", "iommu-event"};
    return names[static_cast<std::size_t>(kind)];
}

/// The side of the mapping on which the access lies.
enum class Side : std::uint8_t { inside, left, right };

/// The nearest byte outside the mapping, counted from its edge: 1 is the byte next to it. `least`
/// equals `most` if the record has exact bytes; if it has only a page, the byte is one of that
/// page's, as in "1 to 4096 bytes past". 0 inside.
struct Distance {
    std::uint64_t least = 0;
    std::uint64_t most = 0;

    friend constexpr bool operator==(const Distance&, const Distance&) = default;
};

struct Diagnosis {
    Kind kind = Kind::never_mapped;
    Record record = {};
    /// The living mapping that the access strayed from, or lies in. None for `wild` and the kinds
    /// after it, except `mapped_and_allowed`.
    std::optional<Mapping> mapping = {};
    /// `use_after_unmap`: the past mapping. Otherwise the latest past mapping there, if one is
    /// known, as a second explanation.
    std::optional<PastMapping> past = {};
    /// Relative to `mapping`, or to `past` for `use_after_unmap`.
    Side side = Side::inside;
    /// If `side` is not inside.
    Distance distance = {};
    /// How many bytes of the access lie outside the mapping, if the record is exact.
    std::uint64_t bytes_outside = 0;
    /// `crossing`: the mapping that the access ran into.
    std::optional<Mapping> next = {};
    /// The living mappings nearest to the access on each side, except `mapping`.
    std::optional<Mapping> left = {};
    std::optional<Mapping> right = {};
    SearchSteps steps = {};
};

} // namespace moat::fault
