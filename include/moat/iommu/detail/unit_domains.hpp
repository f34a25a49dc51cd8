// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// UnitDomains: the base of a unit's driver. It has the driver's lock, the numbers of its domains,
// and tables whose last invalidation failed.
#pragma once

#include "moat/core/result.hpp"
#include "moat/iommu/detail/domain_numbers.hpp"
#include "moat/sync/lock.hpp"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace moat::iommu {

template <SyncPolicy Sync>
class UnitDomains {
  public:
    UnitDomains(const UnitDomains&) = delete;
    UnitDomains& operator=(const UnitDomains&) = delete;

    /// Allocates a number for a domain, from 1 on. Errors: limit.
    [[nodiscard]] Result<std::uint16_t> take_domain_number() {
        const ExclusiveLock lock(mutex_);
        return numbers_.take();
    }

    /// Call after its functions are detached: invalidates what is cached under the number first.
    void give_domain_number_back(std::uint16_t number) {
        const ExclusiveLock lock(mutex_);
        numbers_.give_back(number);
    }

    /// Keeps tables that the unit may still use after a failed invalidation, until translation is
    /// disabled.
    void keep_until_end(std::shared_ptr<void> tables) {
        const ExclusiveLock lock(mutex_);
        kept_.push_back(std::move(tables));
    }

  protected:
    /// `numbers` includes 0, which no domain gets.
    explicit UnitDomains(unsigned numbers) : numbers_(numbers) {}

    ~UnitDomains() = default;

    typename Sync::Mutex mutex_;

  private:
    DomainNumbers numbers_ MOAT_GUARDED_BY(mutex_);
    std::vector<std::shared_ptr<void>> kept_ MOAT_GUARDED_BY(mutex_);
};

} // namespace moat::iommu
