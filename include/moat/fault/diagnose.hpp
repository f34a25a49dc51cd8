// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Diagnosis: the mapping that a refused access strayed from, by how many bytes, and the mappings
// beside it, from the mappings, the history and the fault record. report.hpp renders it.
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

[[nodiscard]] constexpr std::string_view name(Side side) {
    constexpr std::array<std::string_view, 3> names = {"inside", "left", "right"};
    return names[static_cast<std::size_t>(side)];
}

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

struct DiagnoseOptions {
    /// How far from a mapping an access may lie and still be attributed to it.
    ByteCount reach = ByteCount(std::uint64_t{1} << 20);
};

namespace detail {

/// The diagnosis of a record without an address; nothing if it has one.
[[nodiscard]] constexpr std::optional<Kind> kind_without_mappings(const Record& record) {
    switch (record.reason) {
    case Reason::not_attached:
    case Reason::blocked:
    case Reason::pasid:
        return Kind::not_attached;
    case Reason::malformed_table:
    case Reason::table_access:
    case Reason::interrupt:
    case Reason::invalidation:
    case Reason::hardware:
    case Reason::events_lost:
        return Kind::no_access;
    default:
        break;
    }
    const bool no_bytes = record.precision == Precision::none || record.where.empty();
    return no_bytes ? std::optional(Kind::no_access) : std::nullopt;
}

[[nodiscard]] constexpr Side side_of(const IovaRange& mapping, const IovaRange& where) {
    if (where.start() > mapping.last())
        return Side::right;
    return where.last() < mapping.start() ? Side::left : Side::inside;
}

/// `where` lies wholly on `side`, which is not inside.
[[nodiscard]] constexpr Distance distance_to(const IovaRange& mapping, const Record& record,
                                             Side side) {
    const std::uint64_t first = record.where.start().value();
    const std::uint64_t last = record.where.last().value();
    const bool right = side == Side::right;
    const std::uint64_t least =
        right ? first - mapping.last().value() : mapping.start().value() - last;
    if (record.precision != Precision::page)
        return {least, least};
    return {least, least + (last - first)};
}

/// The mapping's guard on that side, in bytes.
[[nodiscard]] constexpr std::uint64_t guard_on(const Mapping& mapping, Side side) {
    return (side == Side::right ? mapping.guard_after : mapping.guard_before).value();
}

/// Sets the side, the distance and the bytes outside, relative to `range`.
constexpr void place_beside(Diagnosis& diagnosis, const IovaRange& range) {
    const Record& record = diagnosis.record;
    diagnosis.side = side_of(range, record.where);
    if (diagnosis.side == Side::inside)
        return;
    diagnosis.distance = distance_to(range, record, diagnosis.side);
    if (record.precision == Precision::exact)
        diagnosis.bytes_outside = record.where.size().value();
}

constexpr void blame(Diagnosis& diagnosis, const Mapping& mapping) {
    diagnosis.mapping = mapping;
    place_beside(diagnosis, mapping.range);
    diagnosis.kind =
        diagnosis.side == Side::left ? Kind::out_of_bounds_left : Kind::out_of_bounds_right;
    if (diagnosis.left && diagnosis.left->range == mapping.range)
        diagnosis.left.reset();
    if (diagnosis.right && diagnosis.right->range == mapping.range)
        diagnosis.right.reset();
}

constexpr void blame(Diagnosis& diagnosis, const PastMapping& past) {
    diagnosis.kind = Kind::use_after_unmap;
    diagnosis.past = past;
    place_beside(diagnosis, past.mapping.range);
}

/// The neighbour whose guard contains the access, or nothing.
[[nodiscard]] constexpr std::optional<Mapping> guard_owner(const Diagnosis& diagnosis) {
    std::optional<Mapping> owner;
    std::uint64_t nearest = 0;
    for (const auto& each : {diagnosis.left, diagnosis.right}) {
        if (!each)
            continue;
        const Side side = side_of(each->range, diagnosis.record.where);
        const std::uint64_t distance = distance_to(each->range, diagnosis.record, side).least;
        if (distance <= guard_on(*each, side) && (!owner || distance < nearest)) {
            owner = each;
            nearest = distance;
        }
    }
    return owner;
}

/// The nearer of two, if it is within reach; the left one if both are equally near, because devices
/// count upwards.
template <class T, class RangeOf>
[[nodiscard]] constexpr std::optional<T>
nearest_within(ByteCount reach, const Record& record, const std::optional<T>& left,
               const std::optional<T>& right, const RangeOf& range_of) {
    const auto distance = [&](const T& each) -> std::uint64_t {
        const IovaRange range = range_of(each);
        const Side side = side_of(range, record.where);
        return side == Side::inside ? 0 : distance_to(range, record, side).least;
    };
    std::optional<T> nearest;
    if (left && distance(*left) <= reach.value())
        nearest = left;
    if (right && distance(*right) <= reach.value() &&
        (!nearest || distance(*right) < distance(*left)))
        nearest = right;
    return nearest;
}

/// The access touches a byte of the living mapping `touched`; `after` follows it.
constexpr void blame_touched(Diagnosis& diagnosis, const Mapping& touched,
                             const std::optional<Mapping>& after) {
    const IovaRange& where = diagnosis.record.where;
    diagnosis.mapping = touched;
    const bool exact = diagnosis.record.precision == Precision::exact;
    if (exact && where.last() > touched.range.last()) {
        diagnosis.side = Side::right;
        diagnosis.distance = {1, 1};
        diagnosis.bytes_outside = where.last().value() - touched.range.last().value();
        diagnosis.kind = Kind::out_of_bounds_right;
        if (after && after->range.overlaps(where)) {
            diagnosis.kind = Kind::crossing;
            diagnosis.next = after;
        }
    } else if (exact && where.start() < touched.range.start()) {
        diagnosis.side = Side::left;
        diagnosis.distance = {1, 1};
        diagnosis.bytes_outside = touched.range.start().value() - where.start().value();
        diagnosis.kind = Kind::out_of_bounds_left;
    } else if (!permits(touched.allows, diagnosis.record.access)) {
        diagnosis.kind = Kind::permission;
    } else if (diagnosis.record.reason == Reason::out_of_bounds) {
        diagnosis.kind = Kind::poisoned; // inside the bounds, only poison is out of bounds
    } else {
        diagnosis.kind = Kind::mapped_and_allowed;
    }
}

/// Whether the access begins at the byte after `mapping`: the bytes before were accessible, so the
/// device ran over its end.
[[nodiscard]] constexpr bool runs_over(const Record& record, const Mapping& mapping) {
    return record.precision == Precision::exact && record.where.start() != Iova(0) &&
           record.where.start().value() - 1 == mapping.range.last().value();
}

/// Whether the access ends at the byte before `mapping`.
[[nodiscard]] constexpr bool runs_up_to(const Record& record, const Mapping& mapping) {
    return record.precision == Precision::exact && mapping.range.start() != Iova(0) &&
           mapping.range.start().value() - 1 == record.where.last().value();
}

/// Whether `mapping` reuses a part of `past`, and says more about an access at its edge: `past`
/// forbade such an access, or was so much larger that it was memory rather than a buffer. (QEMU
/// maps all memory, until a guest turns its IOMMU on.)
[[nodiscard]] constexpr bool supersedes(const Mapping& mapping, const PastMapping& past,
                                        Access access) {
    constexpr std::uint64_t much_larger = 8;
    const Mapping& before = past.mapping;
    const bool forbade = access != Access::unknown && !permits(before.allows, access);
    return before.range.contains(mapping.range) &&
           (forbade || before.range.size().value() / much_larger >= mapping.range.size().value());
}

/// The neighbour that the access ran over, where a past mapping covered it too.
[[nodiscard]] constexpr std::optional<Mapping> ran_over(const Diagnosis& diagnosis,
                                                        const PastMapping& past) {
    const Record& record = diagnosis.record;
    const auto& left = diagnosis.left;
    const auto& right = diagnosis.right;
    if (left && runs_over(record, *left) && supersedes(*left, past, record.access))
        return left;
    if (right && runs_up_to(record, *right) && supersedes(*right, past, record.access))
        return right;
    return std::nullopt;
}

/// Return: whether the access touches a living mapping. Blames that one, or the one before, if the
/// device ran over its end.
template <LiveMappings Live>
[[nodiscard]] constexpr bool blame_where_touched(Diagnosis& diagnosis, const Live& live) {
    const IovaRange& where = diagnosis.record.where;
    if (diagnosis.left && diagnosis.left->range.overlaps(where)) {
        const Mapping touched = *diagnosis.left;
        blame_touched(diagnosis, touched, diagnosis.right);
        diagnosis.left.reset();
        if (touched.range.start() != Iova(0))
            diagnosis.left =
                live.around(Iova(touched.range.start().value() - 1), diagnosis.steps).at_or_below;
        return true;
    }
    if (diagnosis.right && diagnosis.right->range.overlaps(where)) {
        const Mapping touched = *diagnosis.right;
        if (diagnosis.left && runs_over(diagnosis.record, *diagnosis.left)) {
            diagnosis.next = touched;
            blame(diagnosis, Mapping(*diagnosis.left));
            diagnosis.kind = Kind::crossing;
            return true;
        }
        diagnosis.right = live.around(touched.range.start(), diagnosis.steps).above;
        blame_touched(diagnosis, touched, diagnosis.right);
        return true;
    }
    return false;
}

/// The access touches no living mapping: it strayed from a neighbour, or lies where a past one was.
constexpr void blame_beside(Diagnosis& diagnosis, const PastNeighbours& past,
                            const DiagnoseOptions& options) {
    const Record& record = diagnosis.record;
    diagnosis.past = past.latest;
    if (const auto owner = guard_owner(diagnosis))
        return blame(diagnosis, *owner);
    if (past.latest) {
        if (const auto neighbour = ran_over(diagnosis, *past.latest))
            return blame(diagnosis, *neighbour);
        return blame(diagnosis, *past.latest);
    }
    if (const auto near = nearest_within(options.reach, record, diagnosis.left, diagnosis.right,
                                         [](const Mapping& each) { return each.range; }))
        return blame(diagnosis, *near);
    if (const auto near =
            nearest_within(options.reach, record, past.below, past.above,
                           [](const PastMapping& each) { return each.mapping.range; }))
        return blame(diagnosis, *near);
    const bool any = diagnosis.left || diagnosis.right || past.below || past.above;
    diagnosis.kind = any ? Kind::wild : Kind::never_mapped;
}

} // namespace detail

/// Diagnoses `record`, given the mappings of its domain. Pure; O(log n): at most 64 comparisons
/// with 100,000 living and a million past mappings (`Diagnosis::steps`).
///
/// The order of decisions: the device has no domain; the access touches a living mapping; it lies
/// in the guard of one, which therefore lived at that time; it is at the edge of a living one that
/// reuses a small part of a past one; a past mapping covered it; a living one is near; a past one
/// is near; none of these.
template <LiveMappings Live, PastMappings Past>
[[nodiscard]] constexpr Diagnosis diagnose(const Live& live, const Past& past, const Record& record,
                                           const DiagnoseOptions& options = {}) {
    Diagnosis diagnosis{.record = record};
    if (const auto kind = detail::kind_without_mappings(record)) {
        diagnosis.kind = *kind;
        return diagnosis;
    }
    const Neighbours living = live.around(record.where.start(), diagnosis.steps);
    diagnosis.left = living.at_or_below;
    diagnosis.right = living.above;
    if (!detail::blame_where_touched(diagnosis, live))
        detail::blame_beside(diagnosis, past.around(record.where, diagnosis.steps), options);
    return diagnosis;
}

} // namespace moat::fault
