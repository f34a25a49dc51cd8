// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// UnitInvalidator: the invalidator of a TableDomain whose tables a unit walks. The domains of the
// drivers use it.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/page_table/invalidation.hpp"

#include <cstdint>

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

} // namespace moat::iommu
