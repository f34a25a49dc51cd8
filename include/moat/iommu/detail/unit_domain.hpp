// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// UnitDomain: a TableDomain whose tables a unit walks, and whose invalidator is the unit. The
// drivers' domains derive from it.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/iommu/table_domain.hpp"
#include "moat/page_table/invalidation.hpp"

#include <cstdint>
#include <memory>
#include <utility>
#include <variant>

namespace moat::iommu {

/// Invalidates what a unit cached under a domain's number. See table_domain.hpp.
template <class Unit>
class UnitInvalidator {
  public:
    UnitInvalidator(Unit& unit, std::uint16_t domain) : unit_(&unit), domain_(domain) {}

    [[nodiscard]] Result<void> invalidate(const InvalidationRequest<Iova>& request) {
        return unit_->invalidate(domain_, {&request, 1});
    }

    [[nodiscard]] Result<void> invalidate_all() { return unit_->invalidate_all(domain_); }

    [[nodiscard]] Result<void> added(const InvalidationRequest<Iova>& request) {
        return unit_->added(domain_, request);
    }

  private:
    Unit* unit_;
    std::uint16_t domain_;
};

/// Threads may use it at the same time for ranges that do not overlap (PageTable). Its unit
/// outlives it; its functions are detached before. `Rest`: what else the unit reads of a domain.
template <class Unit_, PageTableFormat Format_, class Rest = std::monostate>
class UnitDomain : public TableDomain<Tree<Format_, typename Unit_::Sync, typename Unit_::Memory>,
                                      UnitInvalidator<Unit_>> {
  public:
    using Unit = Unit_;
    using Format = Format_;
    using Types = Tree<Format, typename Unit::Sync, typename Unit::Memory>;
    static_assert(HardwareInvalidator<UnitInvalidator<Unit>>);

    UnitDomain(const UnitDomain&) = delete;
    UnitDomain& operator=(const UnitDomain&) = delete;

    [[nodiscard]] std::uint16_t number() const { return number_; }

  protected:
    struct Parts {
        Unit& unit;
        PageTable<Types> table;
        std::uint16_t number;
        Rest rest;
    };

    /// An empty domain. Errors: limit, no_memory.
    template <class Domain>
    static Result<std::unique_ptr<Domain>> create_with(Unit& unit, Rest rest) {
        MOAT_LET(auto table, PageTable<Types>::create(unit.memory()));
        MOAT_LET(const auto number, unit.take_domain_number());
        return std::unique_ptr<Domain>(
            new Domain({unit, std::move(table), number, std::move(rest)}));
    }

    UnitDomain(const DomainLimits& limits, Parts parts)
        : TableDomain<Types, UnitInvalidator<Unit>>(std::move(parts.table), limits,
                                                    {parts.unit, parts.number}),
          unit_(parts.unit), number_(parts.number), rest_(std::move(parts.rest)) {}

    /// If the last invalidation fails, the number and the tables stay out of use until the unit
    /// ends.
    ~UnitDomain() {
        Unit::Sync::barrier();
        if (unit_.invalidate_all(number_))
            unit_.give_domain_number_back(number_);
        else
            unit_.keep_until_end(std::make_shared<std::pair<PageTable<Types>, Rest>>(
                this->take_table(), std::move(rest_)));
    }

    Unit& unit_;
    const std::uint16_t number_;
    Rest rest_;
};

} // namespace moat::iommu
