// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A domain of an AMD IOMMU: a TableDomain of host (v1) tables whose invalidator is the unit, and
// the functions attached to it. unit.hpp accesses the registers.
#pragma once

#include "moat/iommu/amd/unit.hpp"
#include "moat/iommu/detail/unit_invalidator.hpp"
#include "moat/iommu/table_domain.hpp"
#include "moat/page_table/formats/amd_v1.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <utility>

namespace moat::iommu::amd {

/// Threads may use it at the same time for ranges that do not overlap (PageTable). Its unit
/// outlives it; its functions are detached before.
template <class Unit_, unsigned Levels = 4>
    requires(Levels >= 3 && Levels <= 5)
class Domain : public TableDomain<Tree<formats::AmdV1<FlagUpdate::none, Levels>,
                                       typename Unit_::Sync, typename Unit_::Memory>,
                                  UnitInvalidator<Unit_>> {
  public:
    using Unit = Unit_;
    using Format = formats::AmdV1<FlagUpdate::none, Levels>;
    using Types = Tree<Format, typename Unit::Sync, typename Unit::Memory>;
    using Base = TableDomain<Types, UnitInvalidator<Unit>>;
    static_assert(HardwareInvalidator<UnitInvalidator<Unit>>);

    /// Creates an empty domain. Errors: unsupported (the unit has no tables of so many levels),
    /// limit, no_memory.
    static Result<std::unique_ptr<Domain>> create(Unit& unit) {
        if (Levels > unit.features().most_levels())
            return fail(ErrorCode::unsupported, "the IOMMU does not support this number of levels",
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

    /// On return the function's accesses go through this domain. Errors: busy (attached already),
    /// out_of_range (beyond the device table), io.
    [[nodiscard]] Result<void> attach(std::uint16_t requester) {
        return unit_.attach(requester, Base::table().root(), number_);
    }

  private:
    /// Interrupt messages, and HyperTransport's special addresses (2.1.2, table 3).
    static constexpr std::array<IovaRange, 2> reserved = {
        IovaRange(Iova(0xfee00000), ByteCount(0x100000)),
        IovaRange(Iova(0xfd'0000'0000), ByteCount(0x3'0000'0000))};

    /// Some units misread leaves of 512G (formats/amd_v1.hpp).
    static constexpr std::uint64_t leaf_sizes = leaf_sizes_of<Format>() & low_bits(39);

    Domain(Unit& unit, PageTable<Types> table, std::uint16_t number)
        : Base(std::move(table),
               {.aperture = {Iova(0), ByteCount(bit(input_bits<Format>()))},
                .reserved = reserved,
                .leaf_sizes = leaf_sizes,
                .known = read_write | Attributes::special | Attributes::snoop},
               {unit, number}),
          unit_(unit), number_(number) {}

    Unit& unit_;
    const std::uint16_t number_;
};

} // namespace moat::iommu::amd
