// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// pagemap_scan: finds the pages of a range in given categories, as ranges; and residency. Like
// Linux's PAGEMAP_SCAN and mincore(2).
// Source: Linux, Documentation/admin-guide/mm/pagemap.rst.
#pragma once

#include "moat/mm/walker.hpp"

#include <cstdint>
#include <optional>
#include <span>

namespace moat::mm {

/// A set of categories of a page.
enum class Pages : std::uint32_t {
    none = 0,
    present = 1U << 0,
    written = 1U << 1, ///< dirty in its leaf
    accessed = 1U << 2,
    writable = 1U << 3,
    huge = 1U << 4, ///< part of a leaf of 2 MiB or 1 GiB
    special = 1U << 5,
    zero = 1U << 6,      ///< maps the zero page
    anonymous = 1U << 7, ///< RAM of the mapping's own
    file = 1U << 8,      ///< shared RAM, or a device's memory with page structs
};

[[nodiscard]] constexpr Pages operator|(Pages a, Pages b) {
    return static_cast<Pages>(static_cast<std::uint32_t>(a) | static_cast<std::uint32_t>(b));
}

[[nodiscard]] constexpr Pages operator&(Pages a, Pages b) {
    return static_cast<Pages>(static_cast<std::uint32_t>(a) & static_cast<std::uint32_t>(b));
}

[[nodiscard]] constexpr Pages operator^(Pages a, Pages b) {
    return static_cast<Pages>(static_cast<std::uint32_t>(a) ^ static_cast<std::uint32_t>(b));
}

/// Which pages match: with `inverted` flipped, all of `all` and, unless it is empty, one of `any`.
struct PageQuery {
    Pages all = Pages::present;
    Pages any = Pages::none;
    Pages inverted = Pages::none;
    Pages reported = Pages::none; ///< the categories to report of matches; equal ones are a range

    [[nodiscard]] constexpr bool matches(Pages pages) const {
        const Pages seen = pages ^ inverted;
        return (seen & all) == all && (any == Pages::none || (seen & any) != Pages::none);
    }

    /// Whether the query has categories that an entry does not show.
    [[nodiscard]] constexpr bool asks_memory() const {
        constexpr Pages of_memory = Pages::zero | Pages::anonymous | Pages::file;
        return ((all | any | inverted | reported) & of_memory) != Pages::none;
    }
};

namespace detail {

/// The bit of a leaf's entry for `property`; 0 if a format has none, or encodes it otherwise.
template <PageTableFormat F, unsigned L>
[[nodiscard]] consteval Word bit_of(Attributes property) {
    for (unsigned i = 0; i != 64; ++i)
        if (!has(F::template leaf_attributes<L>(0), property) &&
            has(F::template leaf_attributes<L>(bit(i)), property))
            return bit(i);
    return 0;
}

/// A query as masks of a leaf's entry that every match must satisfy, so that the scan skips most
/// entries without decoding them.
template <PageTableFormat F, unsigned L>
struct EntryFilter {
    Word mask = 0;
    Word value = 0;

    explicit constexpr EntryFilter(const PageQuery& query) {
        demand(query, Pages::written, bit_of<F, L>(Attributes::dirty));
        demand(query, Pages::accessed, bit_of<F, L>(Attributes::accessed));
        demand(query, Pages::writable, bit_of<F, L>(Attributes::write));
        demand(query, Pages::special, bit_of<F, L>(Attributes::special));
    }

    [[nodiscard, gnu::always_inline]] constexpr bool passes(Word word) const {
        return (word & mask) == value;
    }

  private:
    constexpr void demand(const PageQuery& query, Pages pages, Word bits) {
        if ((query.all & pages) == Pages::none)
            return;
        mask |= bits;
        value |= (query.inverted & pages) == Pages::none ? bits : 0;
    }
};

template <class Space, class Visit>
class ScanVisitor {
  public:
    using Types = typename Space::Types;
    using FrameType = Frame<typename Space::Sync>;

    ScanVisitor(typename Space::Memory& memory, const PageQuery& query, Visit& visit)
        : memory_(memory), query_(query), filter_(query), asks_memory_(query.asks_memory()),
          visit_(visit) {}

    /// Most tables have no match: this scans their entries quickly.
    [[nodiscard]] bool passes_over(Table<Types, 0> pages) const {
        if (query_.matches(Pages::none))
            return false;
        bool any = false;
        for (unsigned i = 0; i != Table<Types, 0>::entries; i += 4)
            any = any || passes(pages, i) || passes(pages, i + 1) || passes(pages, i + 2) ||
                  passes(pages, i + 3);
        return !any;
    }

    template <unsigned L>
    [[gnu::always_inline]] void leaf(VirtualRange part, Leaf<Types, L> found) {
        if (L == 0 && !filter_.passes(found.word()))
            return;
        Pages pages = of_leaf(found.attributes(), L);
        if (asks_memory_) [[unlikely]]
            pages = pages | of_memory(found.physical());
        if (query_.matches(pages)) [[unlikely]]
            add(part, pages & query_.reported);
    }

    void hole(VirtualRange range, unsigned depth) {
        if (depth != no_vma && query_.matches(Pages::none))
            add(range, Pages::none);
    }

    void end() {
        if (pending_)
            visit_(*pending_, pending_pages_);
    }

  private:
    [[nodiscard, gnu::always_inline]] bool passes(Table<Types, 0> pages, unsigned index) const {
        return filter_.passes(pages.load(index).word());
    }

    [[nodiscard, gnu::always_inline]] static Pages of_leaf(Attributes attributes, unsigned level) {
        const auto when = [&](Attributes property, Pages pages) {
            return has(attributes, property) ? pages : Pages::none;
        };
        return Pages::present | when(Attributes::dirty, Pages::written) |
               when(Attributes::accessed, Pages::accessed) |
               when(Attributes::write, Pages::writable) |
               when(Attributes::special, Pages::special) | (level != 0 ? Pages::huge : Pages::none);
    }

    [[nodiscard]] Pages of_memory(PhysicalAddress physical) const {
        const FrameType* const frame = memory_.frame(physical);
        if (frame == nullptr)
            return Pages::none;
        if (memory_.is_zero(physical))
            return Pages::zero;
        return (frame->flags.load(std::memory_order_relaxed) & FrameType::anonymous) != 0
                   ? Pages::anonymous
                   : Pages::file;
    }

    void add(VirtualRange part, Pages pages) {
        if (pending_ && pending_pages_ == pages &&
            pending_->last().value() + 1 == part.start().value()) {
            pending_ = pending_->hull(part);
            return;
        }
        end();
        pending_ = part;
        pending_pages_ = pages;
    }

    typename Space::Memory& memory_;
    const PageQuery query_;
    const EntryFilter<typename Space::Format, 0> filter_;
    const bool asks_memory_;
    Visit& visit_;
    std::optional<VirtualRange> pending_;
    Pages pending_pages_ = Pages::none;
};

/// Marks the resident pages of a range.
template <class Space>
struct ResidencyVisitor {
    std::uint64_t start;
    std::span<std::uint8_t> pages;
    std::uint64_t resident = 0;

    template <unsigned L>
    [[gnu::always_inline]] void leaf(VirtualRange part, Leaf<typename Space::Types, L>) {
        const std::uint64_t first = (part.start().value() - start) >> frame_lg2;
        const std::uint64_t count = part.size().value() >> frame_lg2;
        for (std::uint64_t i = first; i != first + count; ++i)
            pages[i] = 1;
        resident += count;
    }
};

} // namespace detail

/// Calls `visit(VirtualRange, Pages reported)` for each run of pages of VMAs that match the query
/// alike, in order. No lock and no effect. Errors: empty, out_of_range, overflow.
template <class Space, class Visit>
Result<void> pagemap_scan(const Space& space, VirtualRange range, const PageQuery& query,
                          Visit&& visit) {
    detail::ScanVisitor<Space, std::remove_reference_t<Visit>> visitor(space.memory(), query,
                                                                       visit);
    MOAT_TRY(walk(space, range, visitor));
    visitor.end();
    return {};
}

/// Sets `pages[i]` to 1 where page i of the range has a leaf, else to 0. Both ends of the range are
/// multiples of a page, and `pages` has a byte for each page of it. Return: their number.
/// Errors: unaligned, mismatch (of `pages`), empty, out_of_range, overflow.
template <class Space>
[[nodiscard]] Result<std::uint64_t> residency(const Space& space, VirtualRange range,
                                              std::span<std::uint8_t> pages) {
    if (!is_aligned(range.start().value() | range.size().value(), frame_lg2))
        return fail(ErrorCode::unaligned, "residency is asked of pages",
                    {"start", range.start().value()}, {"size", range.size().value()});
    if (pages.size() != range.size().value() >> frame_lg2)
        return fail(ErrorCode::mismatch, "there is a byte for each page", {"bytes", pages.size()},
                    {"size", range.size().value()});
    for (std::uint8_t& page : pages)
        page = 0;
    detail::ResidencyVisitor<Space> visitor{range.start().value(), pages};
    MOAT_TRY(walk(space, range, visitor));
    return visitor.resident;
}

} // namespace moat::mm
