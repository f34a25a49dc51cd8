// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A domain of a VT-d unit: second-stage tables, which functions are attached to, and the unit's
// caches kept in step with them.
// The unit's registers are unit.hpp's; which IOVA is used is the callers'.
#pragma once

#include "moat/iommu/domain.hpp"
#include "moat/iommu/vtd/unit.hpp"
#include "moat/page_table/edit.hpp"
#include "moat/page_table/entry.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/reader.hpp"
#include "moat/page_table/unmap.hpp"

#include <array>
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

    [[nodiscard]] const DomainLimits& limits() const { return limits_; }

    /// From the return on the function's accesses go through this domain.
    /// Errors: busy (attached already), no_memory, io.
    [[nodiscard]] Result<void> attach(std::uint16_t requester) {
        return unit_.attach(requester, table_.root(), number_);
    }

    /// Maps with leaves as large as fit and the unit knows.
    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress physical,
                                   Attributes attributes) {
        if (const auto good = check_limits(limits_, start, size); !good)
            return good;
        if (!has(limits_.known, attributes))
            return fail(ErrorCode::unsupported, "the unit cannot express these attributes",
                        {"attributes", static_cast<std::uint32_t>(attributes)});
        const auto mapped = edit([&](auto& open) {
            return open.map(start, size, physical, attributes,
                            {.largest_leaf_lg2 = floor_lg2(limits_.leaf_sizes)});
        });
        if (!mapped)
            return mapped;
        return unit_.added(number_,
                           {.start = start, .last = Iova(start.value() + size.value() - 1)});
    }

    /// A leaf that sticks out is split.
    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) {
        return unmapped(edit(
            [&](auto& open) { return open.unmap(start, size, {.partial = PartialLeaf::split}); }));
    }

    /// Empty tables stay: they may not be freed before the invalidation.
    [[nodiscard]] Result<void> unmap_deferred(Iova start, ByteCount size) {
        auto later = [](const InvalidationRequest<Iova>&) {};
        auto open = table_.edit(later);
        const auto result =
            open.unmap(start, size, {.partial = PartialLeaf::split, .tables = CoveredTables::keep});
        open.finish();
        return unmapped(result);
    }

    /// Where it fails, the unit is of no use any more, and every later call says so.
    void invalidate_all() { (void)unit_.invalidate_all(number_); }

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
    /// Requests there are interrupt messages, which are not translated (3.14).
    static constexpr std::array<IovaRange, 1> reserved = {
        IovaRange(Iova(0xfee00000), ByteCount(0x100000))};

    Domain(Unit& unit, PageTable<Types> table, std::uint16_t number)
        : unit_(unit), table_(std::move(table)), number_(number),
          limits_(limits_of(unit.capabilities())) {}

    static DomainLimits limits_of(const Capabilities& unit) {
        const unsigned bits =
            unit.address_bits() < input_bits<Format>() ? unit.address_bits() : input_bits<Format>();
        return {.aperture = {Iova(0), ByteCount(bit(bits))},
                .reserved = reserved,
                .leaf_sizes = unit.leaf_sizes(),
                .known = read_write | Attributes::special |
                         (unit.snoop_control() ? Attributes::snoop : Attributes::none)};
    }

    static Result<void> unmapped(const Result<Unmapped>& result) {
        if (!result)
            return std::unexpected(result.error());
        return {};
    }

    Unit& unit_;
    PageTable<Types> table_;
    const std::uint16_t number_;
    const DomainLimits limits_;
};

} // namespace moat::iommu::vtd
