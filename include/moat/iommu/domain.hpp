// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The Domain concept: the tables that bound a device, whether this library, QEMU's IOMMU or a
// kernel keeps them. The IOVA allocator chooses addresses; dma/ combines both.
#pragma once

#include "moat/core/range.hpp"
#include "moat/core/result.hpp"
#include "moat/page_table/attributes.hpp"

#include <concepts>
#include <cstdint>
#include <span>

namespace moat::iommu {

/// The differences between domains. Constant for a domain's life.
struct DomainLimits {
    IovaRange aperture = {};                  ///< every mapping lies inside
    std::span<const IovaRange> reserved = {}; ///< and outside these: interrupt messages, ...
    std::uint64_t leaf_sizes =
        0; ///< bit n is set if a leaf may have 2^n bytes; the lowest is a page
    Attributes known = read_write; ///< attributes that a mapping may have
    /// Whether the domain can check bytes, not only pages: see BoundedDomain.
    bool byte_bounds = false;
    /// Whether devices are code of this process, and reach memory like its CPU.
    bool in_process = false;
    /// Whether `unmap_deferred` leaves the invalidation to `invalidate_all`. If not, a
    /// DeferringDomain unmaps strictly.
    bool defers = false;
};

namespace detail {

/// check_limits, with the values of its errors.
[[nodiscard, gnu::noinline]] inline Result<void> check_limits_slowly(const DomainLimits& limits,
                                                                     Iova start, ByteCount size) {
    if (size == ByteCount(0))
        return fail(ErrorCode::empty, "the range has no length", {"start", start.value()});
    const Result<IovaRange> range = IovaRange::make(start, size);
    if (!range)
        return std::unexpected(range.error());
    if (!limits.aperture.contains(*range))
        return fail(ErrorCode::out_of_range, "part of the range is outside the domain",
                    {"start", start.value()}, {"size", size.value()},
                    {"aperture", limits.aperture.start().value()},
                    {"aperture_size", limits.aperture.size().value()});
    for (const IovaRange& each : limits.reserved)
        if (each.overlaps(*range))
            return fail(ErrorCode::overlap, "the range is reserved", {"start", start.value()},
                        {"size", size.value()}, {"reserved", each.start().value()},
                        {"reserved_size", each.size().value()});
    return {};
}

} // namespace detail

/// Whether every byte of [start, start + size) may be mapped.
[[nodiscard, gnu::always_inline]] inline bool within_limits(const DomainLimits& limits, Iova start,
                                                            ByteCount size) {
    const std::uint64_t first = start.value() - limits.aperture.start().value();
    const std::uint64_t room = limits.aperture.size().value();
    bool good = size.value() - 1 < room && first <= room - size.value();
    for (const IovaRange& each : limits.reserved) {
        const std::uint64_t reserved = each.start().value() - start.value();
        good = good && reserved >= size.value() && -reserved >= each.size().value();
    }
    return good;
}

/// The same, with the reason. Errors: empty, overflow, out_of_range, overlap (with a reserved
/// range).
[[nodiscard]] inline Result<void> check_limits(const DomainLimits& limits, Iova start,
                                               ByteCount size) {
    if (within_limits(limits, start, size)) [[likely]]
        return {};
    return detail::check_limits_slowly(limits, start, size);
}

/// Threads may use a domain at the same time for ranges that do not overlap: the owner of a range
/// (the IOVA allocator's caller) is its only writer.
template <class D>
concept Domain = requires(D& domain, const D& constant, Iova start, ByteCount size,
                          PhysicalAddress memory, Attributes attributes) {
    { constant.limits() } -> std::convertible_to<DomainLimits>;
    // Maps [start, start + size) to memory from `memory` on: a physical address if hardware or a
    // model of it walks the tables, the process's own address if a kernel translates. All three are
    // multiples of a page. Errors: empty, unaligned, overflow, out_of_range, overlap, unsupported,
    // no_memory, limit; nothing changes then. io: devices may reach the range.
    { domain.map(start, size, memory, attributes) } -> std::same_as<Result<void>>;
    // Strict: on return no access reaches what was mapped, including accesses that began before.
    // Skips holes. Errors: empty, unaligned, overflow, out_of_range, unsupported (part of a leaf);
    // io: devices may still reach the range.
    { domain.unmap(start, size) } -> std::same_as<Result<void>>;
};

/// A domain that can unmap now and invalidate later, many ranges at once, for the flush queue.
/// DomainLimits::defers says whether it does.
template <class D>
concept DeferringDomain = Domain<D> && requires(D& domain, Iova start, ByteCount size) {
    // Like unmap, but accesses may succeed until a later `invalidate_all` returns; until then the
    // caller reuses neither addresses nor memory.
    { domain.unmap_deferred(start, size) } -> std::same_as<Result<void>>;
    // On return no access uses a translation that was unmapped before the call. Errors: io:
    // accesses may still use any of them.
    { domain.invalidate_all() } -> std::same_as<Result<void>>;
};

/// Bounds finer than pages: how many of the bytes from `start` on, up to `size`, lie in the buffer
/// that contains `start`. Any thread calls it inside accesses: it takes no lock that is held during
/// an unmap.
struct ByteBounds {
    ByteCount (*inside)(void* context, Iova start, ByteCount size) = nullptr;
    void* context = nullptr;
};

/// A domain that can check bounds at each access.
template <class D>
concept BoundedDomain = Domain<D> && std::movable<typename D::BoundsRegistration> &&
                        requires(D& domain, const ByteBounds& bounds) {
                            // Accesses that begin after the return call `bounds`, until the
                            // registration is destroyed, before the domain and outside accesses.
                            // Errors: unsupported (DomainLimits::byte_bounds is clear), busy (other
                            // bounds are registered).
                            {
                                domain.register_bounds(bounds)
                            } -> std::same_as<Result<typename D::BoundsRegistration>>;
                        };

/// A domain whose tables record what devices wrote to.
template <class D>
concept DirtyTrackingDomain =
    Domain<D> && requires(D& domain, Iova start, ByteCount size, void (*visit)(Iova, ByteCount)) {
        // Calls visit(start, size) for each leaf that overlaps the range and was written to since
        // it was mapped or visited, and makes it clean. Visits whole leaves. Strict: a later write
        // makes a leaf dirty again. Errors: empty, unaligned, overflow, out_of_range.
        { domain.clear_dirty(start, size, visit) } -> std::same_as<Result<void>>;
    };

/// One of several runs that one call maps.
struct Piece {
    Iova start = {};
    ByteCount size = {};
    PhysicalAddress memory = {};
};

/// A domain that maps many runs faster together than one by one.
template <class D>
concept ListingDomain =
    Domain<D> && requires(D& domain, std::span<const Piece> pieces, Attributes attributes) {
        // Equals one `map` per piece; all or none. Errors: map's.
        { domain.map_all(pieces, attributes) } -> std::same_as<Result<void>>;
    };

/// Maps all pieces or none, for any domain. Errors: map's; unmap's if pieces could not be unmapped
/// again.
template <Domain D>
[[nodiscard]] Result<void> map_pieces(D& domain, std::span<const Piece> pieces,
                                      Attributes attributes) {
    if constexpr (ListingDomain<D>) {
        return domain.map_all(pieces, attributes);
    } else {
        for (std::size_t done = 0; done != pieces.size(); ++done) {
            const Piece& each = pieces[done];
            const Result<void> mapped = domain.map(each.start, each.size, each.memory, attributes);
            if (mapped)
                continue;
            Result<void> outcome = mapped;
            while (done-- != 0)
                if (const auto undone = domain.unmap(pieces[done].start, pieces[done].size);
                    !undone)
                    outcome = undone;
            return outcome;
        }
        return {};
    }
}

} // namespace moat::iommu
