// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// TableDomain: a domain with tables of this library, in any format. Its Invalidator drops cached
// translations; generations.hpp is software's.
#pragma once

#include "moat/iommu/domain.hpp"
#include "moat/page_table/edit.hpp"
#include "moat/page_table/entry.hpp"
#include "moat/page_table/reader.hpp"

#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

namespace moat::iommu {

/// The result of an invalidator's function: void if it cannot fail.
template <class R>
concept InvalidationOutcome = std::same_as<R, void> || std::same_as<R, Result<void>>;

template <class R>
inline constexpr bool is_grace_period = false;
template <SyncPolicy Sync>
inline constexpr bool is_grace_period<GracePeriod<Sync>> = true;

/// The result of a strict invalidation, which may wait for the tables' readers as well.
template <class R>
concept StrictOutcome = InvalidationOutcome<R> || is_grace_period<R>;

/// Errors: io: accesses may still use everything that the call was for.
template <class I>
concept Invalidator = requires(I& invalidator, const InvalidationRequest<Iova>& request) {
    // On return no access uses cached translations of the range, or a table reached from it.
    { invalidator.invalidate(request) } -> StrictOutcome;
    // The same for every range.
    { invalidator.invalidate_all() } -> InvalidationOutcome;
};

/// The invalidator of hardware, which caches tables and perhaps absent entries, and may support
/// less than its format.
template <class I>
concept HardwareInvalidator =
    Invalidator<I> && requires(I& invalidator, const InvalidationRequest<Iova>& request) {
        // Called after absent entries of the range were filled: on return accesses use the new
        // ones.
        { invalidator.added(request) } -> std::same_as<Result<void>>;
    };

namespace detail {

/// Converts what cannot fail to success.
template <class Call>
[[nodiscard, gnu::always_inline]] inline Result<void> outcome_of(Call&& call) {
    if constexpr (std::same_as<decltype(call()), Result<void>>) {
        return call();
    } else {
        call();
        return {};
    }
}

/// The callback of an edit; keeps the error of a failed call. The size of a reference if no call
/// can fail.
template <Invalidator I>
class EditInvalidation {
    using Request = InvalidationRequest<Iova>;
    using Outcome = decltype(std::declval<I&>().invalidate(std::declval<const Request&>()));

    static constexpr bool can_fail = std::same_as<Outcome, Result<void>>;

    struct Nothing {};

  public:
    explicit EditInvalidation(I& invalidator) : invalidator_(invalidator) {}

    auto operator()(const InvalidationRequest<Iova>& request) {
        if constexpr (can_fail) {
            const Result<void> done = invalidator_.invalidate(request);
            if (!done)
                outcome_ = done;
            return done.has_value();
        } else {
            return invalidator_.invalidate(request);
        }
    }

    /// After the edit has finished: the error of an invalidation, or nullptr.
    [[nodiscard, gnu::always_inline]] const Error* failure() const {
        if constexpr (can_fail)
            return outcome_ ? nullptr : &outcome_.error();
        else
            return nullptr;
    }

  private:
    I& invalidator_;
    [[no_unique_address]] std::conditional_t<can_fail, Result<void>, Nothing> outcome_;
};

} // namespace detail

/// Bit n is set if the format has leaves of 2^n bytes.
template <PageTableFormat F>
[[nodiscard]] constexpr std::uint64_t leaf_sizes_of() {
    std::uint64_t sizes = 0;
    for (unsigned level = 0; level != F::most_levels; ++level)
        sizes |= std::uint64_t{F::leaf_groups(level)} << entry_lg2<F>(level);
    return sizes;
}

/// Every attribute that a readable and writable leaf can have.
template <PageTableFormat F>
[[nodiscard]] constexpr Attributes known_attributes() {
    Attributes known = Attributes::none;
    for (std::uint32_t one = 1; one <= static_cast<std::uint32_t>(Attributes::dirty); one <<= 1)
        if (F::representable(read_write | static_cast<Attributes>(one)))
            known |= static_cast<Attributes>(one);
    return known;
}

/// A page table, an aperture, reserved regions and invalidation. The Domain concept documents
/// threads and errors; `map` adds `unsupported` for attributes. Every function returns io if an
/// invalidation failed; the domain then frees removed tables at its end. Unmapping part of a leaf
/// splits it.
template <class Tree_, Invalidator Invalidator_>
class TableDomain {
  public:
    using Tree = Tree_;
    using Format = typename Tree::Format;
    using Invalidator = Invalidator_;

    using Table = PageTable<Tree>;

    /// Takes an empty `table`. `reserved` outlives the domain. The aperture begins at 0 and has as
    /// many address bits as the table translates, at most `address_bits` and 57.
    explicit TableDomain(Table table, std::span<const IovaRange> reserved = {},
                         unsigned address_bits = 57)
        : table_(std::move(table)),
          limits_{.aperture = {Iova(0), ByteCount(bit(least(address_bits)))},
                  .reserved = reserved,
                  .leaf_sizes = leaf_sizes_of<Format>(),
                  .known = known_attributes<Format>(),
                  .defers = true} {}

    /// For hardware that walks an empty `table`. `limits` are the hardware's, within the format's;
    /// the aperture begins at 0.
    TableDomain(Table table, const DomainLimits& limits, Invalidator invalidator)
        requires HardwareInvalidator<Invalidator>
        : table_(std::move(table)), limits_(limits), invalidator_(std::move(invalidator)) {
        limits_.defers = true;
    }

    [[nodiscard]] const DomainLimits& limits() const { return limits_; }

    [[nodiscard, gnu::always_inline]] Result<void>
    map(Iova start, ByteCount size, PhysicalAddress memory, Attributes attributes) {
        if constexpr (HardwareInvalidator<Invalidator>) {
            const Piece piece = {start, size, memory};
            return map_all({&piece, 1}, attributes);
        } else {
            if (within_limits(limits_, start, size) &&
                Edit<Tree>::try_map(table_, start, size, memory, attributes)) [[likely]]
                return {};
            return map_slowly(start, size, memory, attributes);
        }
    }

    /// One edit for all pieces. If one fails, the earlier ones are unmapped strictly, since a
    /// device may have used them.
    [[nodiscard]] Result<void> map_all(std::span<const Piece> pieces, Attributes attributes) {
        Result<void> mapped =
            edit([&](Edit<Tree>& open) { return map_each(open, pieces, attributes); });
        if constexpr (HardwareInvalidator<Invalidator>) {
            if (mapped)
                mapped = announce(pieces);
            if (!mapped && mapped.error().code() == ErrorCode::io)
                for (const Piece& each : pieces)
                    (void)unmap(each.start, each.size);
        }
        return mapped;
    }

    /// Runs `change(Edit&)` and finishes the edit, strict invalidations included. Return: the
    /// result of `change`; or io if an invalidation failed.
    template <class Change>
    auto edit(Change&& change) -> decltype(change(std::declval<Edit<Tree>&>())) {
        detail::EditInvalidation<Invalidator> invalidation(invalidator_);
        auto open = table_.edit(invalidation);
        auto changed = change(open);
        open.finish();
        if (const Error* const failure = invalidation.failure())
            return std::unexpected(*failure);
        return changed;
    }

    [[nodiscard, gnu::always_inline]] Result<void> unmap(Iova start, ByteCount size) {
        if (Edit<Tree>::try_unmap(table_, start, size).leaves != 0) [[likely]]
            return detail::outcome_of([&]() __attribute__((always_inline)) {
                return invalidator_.invalidate({start, Iova(start.value() + (size.value() - 1))});
            });
        return unmap_slowly(start, size);
    }

    /// Invalidates nothing. Keeps empty tables, which may not be freed before the invalidation.
    [[nodiscard, gnu::always_inline]] Result<void> unmap_deferred(Iova start, ByteCount size) {
        if (Edit<Tree>::try_unmap(table_, start, size).leaves != 0) [[likely]]
            return {};
        return unmap_deferred_slowly(start, size);
    }

    /// See DirtyTrackingDomain.
    template <class Visit>
        requires(Format::capabilities.dirty == FlagUpdate::hardware)
    [[nodiscard]] Result<void> clear_dirty(Iova start, ByteCount size, Visit&& visit) {
        return edit([&](Edit<Tree>& open) {
            return open.clear_accessed_dirty(
                start, size, Attributes::dirty,
                [&](Iova leaf, ByteCount bytes, Attributes) { visit(leaf, bytes); });
        });
    }

    /// Errors: io.
    [[nodiscard]] Result<void> invalidate_all() {
        return detail::outcome_of([this] { return invalidator_.invalidate_all(); });
    }

    [[nodiscard]] Reader<Tree> reader() const { return table_.reader(); }

    /// Inside a section that the caller opened.
    [[nodiscard, gnu::always_inline]] auto
    reader(const typename Tree::Sync::ReadSection& open) const {
        return table_.reader(open);
    }

    [[nodiscard]] Invalidator& invalidator() { return invalidator_; }

    [[nodiscard]] const Table& table() const { return table_; }

  protected:
    /// Passes the tables to the caller, for a destructor while devices may still walk them.
    [[nodiscard]] Table take_table() { return std::move(table_); }

  private:
    [[nodiscard, gnu::noinline]] Result<void>
    map_slowly(Iova start, ByteCount size, PhysicalAddress memory, Attributes attributes) {
        MOAT_TRY(check_limits(limits_, start, size));
        auto nothing = [](const InvalidationRequest<Iova>&) {};
        auto edit = table_.edit(nothing);
        const Result<void> mapped = edit.map(start, size, memory, attributes);
        edit.finish();
        return mapped;
    }

    template <class Open>
    [[nodiscard]] Result<void> map_each(Open& open, std::span<const Piece> pieces,
                                        Attributes attributes) const {
        for (std::size_t done = 0; done != pieces.size();) {
            const auto rest = pieces.subspan(done);
            const std::size_t pages = pages_in_front(rest);
            if (pages > 1 && knows(attributes) &&
                within_limits(limits_, rest.front().start,
                              ByteCount(pages << Format::granule_lg2))) {
                const auto memory_of = [&](std::uint64_t page) { return rest[page].memory; };
                const std::uint64_t mapped =
                    open.map_pages(rest.front().start, pages, memory_of, attributes);
                done += mapped;
                if (mapped == pages)
                    continue;
            }
            if (const auto mapped = map_in(open, pieces[done], attributes); !mapped) [[unlikely]] {
                for (const Piece& undone : pieces.first(done))
                    (void)open.unmap(undone.start, undone.size, {.partial = PartialLeaf::split});
                return mapped;
            }
            ++done;
        }
        return {};
    }

    template <class Open>
    [[nodiscard]] Result<void> map_in(Open& open, const Piece& piece, Attributes attributes) const {
        MOAT_TRY(check_limits(limits_, piece.start, piece.size));
        if (!knows(attributes)) [[unlikely]]
            return fail(ErrorCode::unsupported, "the unit cannot express these attributes",
                        {"attributes", static_cast<std::uint32_t>(attributes)});
        MapOptions options;
        if constexpr (HardwareInvalidator<Invalidator>)
            options.largest_leaf_lg2 = floor_lg2(limits_.leaf_sizes);
        return open.map(piece.start, piece.size, piece.memory, attributes, options);
    }

    /// Whether the hardware supports these attributes; for software the format checks them.
    [[nodiscard]] bool knows(Attributes attributes) const {
        return !HardwareInvalidator<Invalidator> || has(limits_.known, attributes);
    }

    /// Invalidates new entries that the hardware may have cached as absent.
    [[nodiscard]] Result<void> announce(std::span<const Piece> pieces)
        requires HardwareInvalidator<Invalidator>
    {
        for (const Piece& each : pieces)
            MOAT_TRY(invalidator_.added(
                {each.start, Iova(each.start.value() + (each.size.value() - 1))}));
        return {};
    }

    /// How many pieces, from the first on, are consecutive single pages.
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

    [[nodiscard, gnu::noinline]] Result<void> unmap_slowly(Iova start, ByteCount size) {
        detail::EditInvalidation<Invalidator> invalidation(invalidator_);
        const Result<void> unmapped = unmap_by(invalidation, start, size, CoveredTables::remove);
        if (const Error* const failure = invalidation.failure()) [[unlikely]]
            return std::unexpected(*failure);
        return unmapped;
    }

    [[nodiscard, gnu::noinline]] Result<void> unmap_deferred_slowly(Iova start, ByteCount size) {
        auto nothing = [](const InvalidationRequest<Iova>&) {};
        return unmap_by(nothing, start, size, CoveredTables::keep);
    }

    template <class Invalidate>
    [[nodiscard]] Result<void> unmap_by(Invalidate& invalidate, Iova start, ByteCount size,
                                        CoveredTables tables) {
        auto open = table_.edit(invalidate);
        const Result<Unmapped> unmapped =
            open.unmap(start, size, {.partial = PartialLeaf::split, .tables = tables});
        open.finish();
        if (!unmapped) [[unlikely]]
            return std::unexpected(unmapped.error());
        return {};
    }

    static constexpr unsigned most_address_bits = 57;

    Table table_;

  protected:
    DomainLimits limits_; ///< constant after construction

  private:
    Invalidator invalidator_;
};

} // namespace moat::iommu
