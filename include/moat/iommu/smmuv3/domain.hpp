// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A domain of an SMMUv3: a TableDomain of VMSAv8-64 stage 1 tables whose invalidator is the unit, a
// context descriptor, and the functions attached to it. unit.hpp accesses the registers.
#pragma once

#include "moat/iommu/detail/smmuv3_streams.hpp"
#include "moat/iommu/detail/unit_invalidator.hpp"
#include "moat/iommu/detail/unit_tables.hpp"
#include "moat/iommu/smmuv3/unit.hpp"
#include "moat/iommu/table_domain.hpp"

#include <cstdint>
#include <memory>
#include <utility>

namespace moat::iommu::smmuv3 {

/// Threads may use it at the same time for ranges that do not overlap (PageTable). Its unit
/// outlives it; its functions are detached before. Unmapping part of a leaf of 2M or 1G is
/// refused: without FEAT_BBM level 2, splitting a live leaf lets accesses beside the range
/// fault. A write-only mapping can also be read.
template <class Unit_>
class Domain : public TableDomain<Tree<DeviceStage1, typename Unit_::Sync, typename Unit_::Memory>,
                                  UnitInvalidator<Unit_>> {
  public:
    using Unit = Unit_;
    using Format = DeviceStage1;
    using Types = Tree<Format, typename Unit::Sync, typename Unit::Memory>;
    using Base = TableDomain<Types, UnitInvalidator<Unit>>;
    static_assert(HardwareInvalidator<UnitInvalidator<Unit>>);

    /// Creates an empty domain. Errors: limit, no_memory.
    static Result<std::unique_ptr<Domain>> create(Unit& unit) {
        auto table = PageTable<Types>::create(unit.memory());
        if (!table)
            return std::unexpected(table.error());
        const auto context = unit.memory().allocate(Format::granule_lg2);
        if (!context)
            return std::unexpected(context.error());
        const auto number = unit.take_domain_number();
        if (!number) {
            unit.memory().release(*context, Format::granule_lg2);
            return std::unexpected(number.error());
        }
        return std::unique_ptr<Domain>(new Domain(unit, std::move(*table), *context, *number));
    }

    /// If the last invalidation fails, the number and the tables stay out of use until the unit
    /// ends.
    ~Domain() {
        Unit::Sync::barrier();
        if (unit_.invalidate_all(number_)) {
            unit_.give_domain_number_back(number_);
            unit_.memory().release(context_, Format::granule_lg2);
        } else {
            unit_.keep_until_end(
                std::make_shared<Kept>(unit_.memory(), context_, Base::take_table()));
        }
    }

    Domain(const Domain&) = delete;
    Domain& operator=(const Domain&) = delete;

    [[nodiscard]] std::uint16_t number() const { return number_; }

    /// On return the function's accesses go through this domain. Errors: busy (attached already),
    /// out_of_range (beyond the stream table), io.
    [[nodiscard]] Result<void> attach(std::uint16_t requester) {
        return unit_.attach(requester, context_);
    }

  private:
    /// What the unit may still read.
    struct Kept {
        Kept(typename Unit::Memory& from, PhysicalAddress descriptor, PageTable<Types> tables)
            : memory(from), context(descriptor), table(std::move(tables)) {}

        ~Kept() { memory.release(context, Format::granule_lg2); }

        Kept(const Kept&) = delete;
        Kept& operator=(const Kept&) = delete;

        typename Unit::Memory& memory;
        PhysicalAddress context;
        PageTable<Types> table;
    };

    Domain(Unit& unit, PageTable<Types> table, PhysicalAddress context, std::uint16_t number)
        : Base(std::move(table),
               {.aperture = {Iova(0), ByteCount(bit(input_bits<Format>()))},
                .leaf_sizes = leaf_sizes_of<Format>(),
                .known = read_write | Attributes::special | Attributes::uncached},
               {unit, number}),
          unit_(unit), context_(context), number_(number) {
        const ContextDescriptor descriptor =
            context_descriptor(Base::table().root().table, input_bits<Format>(),
                               unit.capabilities().output_size(), number);
        Word* const words = unit.memory().words(context);
        for (std::size_t i = 0; i != descriptor.size(); ++i)
            store_word<typename Unit::Sync>(words[i], descriptor[i]);
    }

    Unit& unit_;
    const PhysicalAddress context_;
    const std::uint16_t number_;
};

} // namespace moat::iommu::smmuv3
