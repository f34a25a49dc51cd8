// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A domain of a VT-d unit: second-stage tables, which functions are attached to, and the unit's
// caches kept in step with them.
// The unit's registers are unit.hpp's; which IOVA is used is the callers'.
#pragma once

#include "moat/iommu/vtd/unit.hpp"
#include "moat/page_table/edit.hpp"
#include "moat/page_table/entry.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/reader.hpp"

#include <cstdint>
#include <memory>
#include <utility>

namespace moat::iommu::vtd {

/// Threads may use it at the same time for ranges that do not overlap (PageTable). Ends before its
/// unit, after its functions are detached.
template <class Unit_, unsigned Levels>
class Domain {
  public:
    using Unit = Unit_;
    using Format = formats::VtdSecondStage<Levels>;
    using Types = Tree<Format, typename Unit::Sync, typename Unit::Memory>;

    /// An empty one. Errors: unsupported (the unit has no tables of so many levels), limit,
    /// no_memory.
    static Result<std::unique_ptr<Domain>> create(Unit& unit) {
        if (!unit.capabilities().has_levels(Levels))
            return fail(ErrorCode::unsupported, "the unit walks no tables of so many levels",
                        {"levels", Levels});
        auto table = PageTable<Types>::create(unit.memory());
        if (!table)
            return std::unexpected(table.error());
        const auto number = unit.take_domain_number();
        if (!number)
            return std::unexpected(number.error());
        return std::unique_ptr<Domain>(new Domain(unit, std::move(*table), *number));
    }

    ~Domain() {
        Unit::Sync::barrier();
        (void)unit_.invalidate_all(number_);
        unit_.give_domain_number_back(number_);
    }

    Domain(const Domain&) = delete;
    Domain& operator=(const Domain&) = delete;

    [[nodiscard]] std::uint16_t number() const { return number_; }

    [[nodiscard]] IovaRange aperture() const {
        const unsigned unit_bits = unit_.capabilities().address_bits();
        const unsigned bits = unit_bits < input_bits<Format>() ? unit_bits : input_bits<Format>();
        return {Iova(0), ByteCount(bit(bits))};
    }

    /// Bit n is set where a leaf may have 2^n bytes.
    [[nodiscard]] std::uint64_t leaf_sizes() const { return unit_.capabilities().leaf_sizes(); }

    /// From the return on the function's accesses go through this domain.
    /// Errors: busy (attached already), no_memory, io.
    [[nodiscard]] Result<void> attach(std::uint16_t requester) {
        return unit_.attach(requester, table_.root(), number_);
    }

    /// Maps with leaves as large as fit and the unit knows. Errors: Edit::map's; io.
    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress physical,
                                   Attributes attributes) {
        if (const auto inside = IovaRange::make(start, size);
            !inside || !aperture().contains(*inside))
            return fail(ErrorCode::out_of_range, "the unit cannot translate the whole range",
                        {"start", start.value()}, {"size", size.value()});
        if (has(attributes, Attributes::snoop) && !unit_.capabilities().snoop_control())
            return fail(ErrorCode::unsupported, "the unit has no snoop control");
        const auto mapped = edit([&](auto& open) {
            return open.map(start, size, physical, attributes,
                            {.largest_leaf_lg2 = floor_lg2(leaf_sizes())});
        });
        if (!mapped)
            return mapped;
        return unit_.added(number_,
                           {.start = start, .last = Iova(start.value() + size.value() - 1)});
    }

    /// Strict: on return no access reaches what was mapped. A leaf that sticks out is split; holes
    /// are no error. Errors: Edit::unmap's; io.
    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) {
        const auto unmapped = edit(
            [&](auto& open) { return open.unmap(start, size, {.partial = PartialLeaf::split}); });
        if (!unmapped)
            return std::unexpected(unmapped.error());
        return {};
    }

    /// Runs `change(Edit&)` and finishes the edit, invalidations included. Return: what `change`
    /// returned, a Result; or io where an invalidation failed.
    template <class Change>
    auto edit(Change&& change) -> decltype(change(std::declval<Edit<Types>&>())) {
        Result<void> invalidated;
        auto invalidate = [&](const InvalidationRequest<Iova>& request) {
            if (auto done = unit_.invalidate(number_, {&request, 1}); !done)
                invalidated = done;
        };
        auto open = table_.edit(invalidate);
        auto result = change(open);
        open.finish();
        if (!invalidated)
            return std::unexpected(invalidated.error());
        return result;
    }

    [[nodiscard]] Reader<Types> reader() const { return table_.reader(); }

  private:
    Domain(Unit& unit, PageTable<Types> table, std::uint16_t number)
        : unit_(unit), table_(std::move(table)), number_(number) {}

    Unit& unit_;
    PageTable<Types> table_;
    const std::uint16_t number_;
};

} // namespace moat::iommu::vtd
