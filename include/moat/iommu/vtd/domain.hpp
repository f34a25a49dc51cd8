// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A domain of a VT-d unit: a TableDomain of second-stage tables whose invalidator is the unit, and
// the functions attached to it. unit.hpp accesses the registers.
#pragma once

#include "moat/iommu/detail/unit_invalidator.hpp"
#include "moat/iommu/table_domain.hpp"
#include "moat/iommu/vtd/unit.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

namespace moat::iommu::vtd {

/// Threads may use it at the same time for ranges that do not overlap (PageTable). Its unit
/// outlives it; its functions are detached before.
template <class Unit_, unsigned Levels>
class Domain
    : public TableDomain<
          Tree<formats::VtdSecondStage<Levels>, typename Unit_::Sync, typename Unit_::Memory>,
          UnitInvalidator<Unit_>> {
  public:
    using Unit = Unit_;
    using Format = formats::VtdSecondStage<Levels>;
    using Types = Tree<Format, typename Unit::Sync, typename Unit::Memory>;
    using Base = TableDomain<Types, UnitInvalidator<Unit>>;
    static_assert(HardwareInvalidator<UnitInvalidator<Unit>>);

    /// Creates an empty domain. Errors: unsupported (the unit has no tables of so many levels),
    /// limit, no_memory.
    static Result<std::unique_ptr<Domain>> create(Unit& unit) {
        if (!unit.capabilities().has_levels(Levels))
            return fail(ErrorCode::unsupported, "the unit does not support this number of levels",
                        {"levels", Levels});
        auto table = PageTable<Types>::create(unit.memory());
        if (!table)
            return std::unexpected(table.error());
        const auto number = unit.take_domain_number();
        if (!number)
            return std::unexpected(number.error());
        return std::unique_ptr<Domain>(new Domain(unit, std::move(*table), *number));
    }

    /// If the last invalidation fails, the number and the tables stay out of use until the unit
    /// ends.
    ~Domain() {
        Unit::Sync::barrier();
        if (unit_.invalidate_all(number_))
            unit_.give_domain_number_back(number_);
        else
            unit_.keep_until_end(std::make_shared<PageTable<Types>>(Base::take_table()));
    }

    Domain(const Domain&) = delete;
    Domain& operator=(const Domain&) = delete;

    [[nodiscard]] std::uint16_t number() const { return number_; }

    /// On return the function's accesses go through this domain; `tlb` is enabled after that.
    /// Errors: unsupported (device-TLBs), busy (attached already), no_memory, io.
    [[nodiscard]] Result<void> attach(std::uint16_t requester, std::optional<DeviceTlb> tlb = {}) {
        return unit_.attach(requester, Base::table().root(), number_, tlb);
    }

  private:
    /// Requests there are interrupt messages, which are not translated (3.14).
    static constexpr std::array<IovaRange, 1> reserved = {
        IovaRange(Iova(0xfee00000), ByteCount(0x100000))};

    Domain(Unit& unit, PageTable<Types> table, std::uint16_t number)
        : Base(std::move(table), limits_of(unit.capabilities()), {unit, number}), unit_(unit),
          number_(number) {}

    static DomainLimits limits_of(const Capabilities& unit) {
        const unsigned bits =
            unit.address_bits() < input_bits<Format>() ? unit.address_bits() : input_bits<Format>();
        return {.aperture = {Iova(0), ByteCount(bit(bits))},
                .reserved = reserved,
                .leaf_sizes = unit.leaf_sizes(),
                .known = read_write | Attributes::special |
                         (unit.snoop_control() ? Attributes::snoop : Attributes::none)};
    }

    Unit& unit_;
    const std::uint16_t number_;
};

} // namespace moat::iommu::vtd
