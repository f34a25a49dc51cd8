// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// TableDomain: a domain whose tables are this library's, in any format. How cached translations are
// made to go is its Invalidator's affair; software's is generations.hpp.
#pragma once

#include "moat/iommu/domain.hpp"
#include "moat/page_table/edit.hpp"
#include "moat/page_table/entry.hpp"
#include "moat/page_table/reader.hpp"

#include <concepts>
#include <cstdint>
#include <span>
#include <utility>

namespace moat::iommu {

template <class I>
concept Invalidator = requires(I& invalidator, const InvalidationRequest<Iova>& request) {
    // On return no access uses what was cached of the range, nor a table that was reached from it.
    invalidator.invalidate(request);
    // The same without the wait: such accesses may go on until `wait_for_accesses` has returned.
    invalidator.forget(request);
    // Everything that was forgotten before the call is out of use.
    invalidator.wait_for_accesses();
};

/// Bit n is set where the format has leaves of 2^n bytes.
template <PageTableFormat F>
[[nodiscard]] constexpr std::uint64_t leaf_sizes_of() {
    std::uint64_t sizes = 0;
    for (unsigned level = 0; level != F::most_levels; ++level)
        sizes |= std::uint64_t{F::leaf_groups(level)} << entry_lg2<F>(level);
    return sizes;
}

/// Everything that a leaf which may be read and written can also be.
template <PageTableFormat F>
[[nodiscard]] constexpr Attributes known_attributes() {
    Attributes known = Attributes::none;
    for (std::uint32_t one = 1; one <= static_cast<std::uint32_t>(Attributes::dirty); one <<= 1)
        if (F::representable(read_write | static_cast<Attributes>(one)))
            known |= static_cast<Attributes>(one);
    return known;
}

/// Page table, aperture, reserved regions and invalidation. See the Domain concept for threads and
/// errors; `map` adds: `unsupported` attributes. A leaf is unmapped in part by taking it apart.
template <class Tree_, Invalidator Invalidator_>
class TableDomain {
  public:
    using Tree = Tree_;
    using Format = typename Tree::Format;
    using Invalidator = Invalidator_;

    using Table = PageTable<Tree>;

    /// Takes an empty `table`. `reserved` outlives the domain. The aperture begins at 0 and has as
    /// many address bits as the table translates, but `address_bits` and 57 at most.
    explicit TableDomain(Table table, std::span<const IovaRange> reserved = {},
                         unsigned address_bits = 57)
        : table_(std::move(table)),
          limits_{.aperture = {Iova(0), ByteCount(bit(least(address_bits)))},
                  .reserved = reserved,
                  .leaf_sizes = leaf_sizes_of<Format>(),
                  .known = known_attributes<Format>()} {}

    [[nodiscard]] const DomainLimits& limits() const { return limits_; }

    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                   Attributes attributes) {
        if (const auto good = check_limits(limits_, start, size); !good) [[unlikely]]
            return good;
        auto nothing = [](const InvalidationRequest<Iova>&) {};
        auto edit = table_.edit(nothing);
        const Result<void> mapped = edit.map(start, size, memory, attributes);
        edit.finish();
        return mapped;
    }

    /// One edit for all of them. What was mapped before one failed is unmapped strictly: a device
    /// may have looked.
    [[nodiscard]] Result<void> map_all(std::span<const Piece> pieces, Attributes attributes) {
        auto invalidate = [this](const InvalidationRequest<Iova>& request) {
            invalidator_.invalidate(request);
        };
        auto edit = table_.edit(invalidate);
        for (std::size_t done = 0; done != pieces.size();) {
            const auto rest = pieces.subspan(done);
            const std::size_t pages = pages_in_front(rest);
            if (pages > 1 && within_limits(rest.front().start, pages << Format::granule_lg2)) {
                const auto memory_of = [&](std::uint64_t page) { return rest[page].memory; };
                const std::uint64_t mapped =
                    edit.map_pages(rest.front().start, pages, memory_of, attributes);
                done += mapped;
                if (mapped == pages)
                    continue;
            }
            if (const auto mapped = map_in(edit, pieces[done], attributes); !mapped) [[unlikely]] {
                for (const Piece& undone : pieces.first(done))
                    (void)edit.unmap(undone.start, undone.size, {.partial = PartialLeaf::split});
                edit.finish();
                return mapped;
            }
            ++done;
        }
        edit.finish();
        return {};
    }

    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) {
        return unmap_and(
            start, size, CoveredTables::remove,
            [this](const InvalidationRequest<Iova>& request) { invalidator_.invalidate(request); });
    }

    /// Empty tables stay: they may not be freed before the invalidation.
    [[nodiscard]] Result<void> unmap_deferred(Iova start, ByteCount size) {
        return unmap_and(
            start, size, CoveredTables::keep,
            [this](const InvalidationRequest<Iova>& request) { invalidator_.forget(request); });
    }

    /// See DirtyTrackingDomain.
    template <class Visit>
        requires(Format::capabilities.dirty == FlagUpdate::hardware)
    [[nodiscard]] Result<void> clear_dirty(Iova start, ByteCount size, Visit&& visit) {
        auto invalidate = [this](const InvalidationRequest<Iova>& request) {
            invalidator_.invalidate(request);
        };
        auto edit = table_.edit(invalidate);
        const Result<void> cleared = edit.clear_accessed_dirty(
            start, size, Attributes::dirty,
            [&](Iova leaf, ByteCount bytes, Attributes) { visit(leaf, bytes); });
        edit.finish();
        return cleared;
    }

    void invalidate_all() { invalidator_.wait_for_accesses(); }

    [[nodiscard]] Reader<Tree> reader() const { return table_.reader(); }

    /// Within a section that the caller has open.
    [[nodiscard, gnu::always_inline]] auto
    reader(const typename Tree::Sync::ReadSection& open) const {
        return table_.reader(open);
    }

    [[nodiscard]] Invalidator& invalidator() { return invalidator_; }

    [[nodiscard]] const Table& table() const { return table_; }

  private:
    /// As check_limits, without the reason.
    template <class Edit>
    [[nodiscard]] Result<void> map_in(Edit& edit, const Piece& piece, Attributes attributes) const {
        if (const auto good = check_limits(limits_, piece.start, piece.size); !good) [[unlikely]]
            return good;
        return edit.map(piece.start, piece.size, piece.memory, attributes);
    }

    [[nodiscard]] bool within_limits(Iova start, std::uint64_t size) const {
        const std::uint64_t most = limits_.aperture.size().value(); // it begins at 0
        if (size > most || start.value() > most - size)
            return false;
        const IovaRange range(start, ByteCount(size));
        for (const IovaRange& each : limits_.reserved)
            if (each.overlaps(range))
                return false;
        return true;
    }

    /// How many pieces, from the first on, are single pages that follow one another.
    [[nodiscard]] static std::size_t pages_in_front(std::span<const Piece> pieces) {
        constexpr std::uint64_t page = bit(Format::granule_lg2);
        const std::uint64_t start = pieces.front().start.value();
        std::size_t count = 0;
        while (count != pieces.size() && pieces[count].size.value() == page &&
               pieces[count].start.value() == start + count * page)
            ++count;
        return count;
    }

    [[nodiscard]] unsigned least(unsigned address_bits) const {
        const unsigned translated = input_bits<Format>(table_.root().levels);
        const unsigned most = translated < most_address_bits ? translated : most_address_bits;
        return address_bits < most ? address_bits : most;
    }

    template <class Invalidate>
    [[nodiscard]] Result<void> unmap_and(Iova start, ByteCount size, CoveredTables tables,
                                         Invalidate invalidate) {
        auto edit = table_.edit(invalidate);
        const Result<Unmapped> unmapped =
            edit.unmap(start, size, {.partial = PartialLeaf::split, .tables = tables});
        edit.finish();
        if (!unmapped) [[unlikely]]
            return std::unexpected(unmapped.error());
        return {};
    }

    static constexpr unsigned most_address_bits = 57;

    Table table_;
    DomainLimits limits_;
    Invalidator invalidator_;
};

} // namespace moat::iommu
