// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// ByteAccess: answers an IOMMU in software that asks which bytes a device may access: those of one
// living mapping that are not poisoned. space.hpp documents poison.
#pragma once

#include "moat/dma/detail/tracker.hpp"
#include "moat/dma/poison.hpp"
#include "moat/iommu/domain.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>

namespace moat::dma {

template <class Domain>
struct BoundsRegistrationOf {
    using Type = struct None {};
};

template <iommu::BoundedDomain Domain>
struct BoundsRegistrationOf<Domain> {
    using Type = typename Domain::BoundsRegistration;
};

/// Thread-safe.
template <iommu::Domain Domain, SyncPolicy Sync>
class ByteAccess {
  public:
    ByteAccess(Domain& domain, const Tracker<Sync>& tracker) : domain_(domain), tracker_(tracker) {}

    /// Makes the domain ask at each access from now on, if it can. Errors: register_bounds'.
    [[nodiscard]] Result<void> enable() {
        if constexpr (iommu::BoundedDomain<Domain>) {
            if (!domain_.limits().byte_bounds)
                return {};
            auto registered = domain_.register_bounds(
                {[](void* context, Iova start, ByteCount size) {
                     return static_cast<ByteAccess*>(context)->bytes_inside(start, size);
                 },
                 this});
            if (!registered)
                return std::unexpected(registered.error());
            registration_.emplace(std::move(*registered));
        }
        return {};
    }

    /// How many of the bytes from `start` on, up to `size`, a device may access.
    [[nodiscard]] ByteCount bytes_inside(Iova start, ByteCount size) const {
        const auto found = tracker_.at_or_below(start);
        if (!found || !found->range.contains(start))
            return {};
        const ByteCount left(found->range.last().value() - start.value() + 1);
        return poison_.clear_from(start, std::min(left, size));
    }

    /// Errors: Space::poison's.
    Result<void> poison(Iova start, ByteCount size) {
        const Result<IovaRange> range = range_to_poison(start, size);
        if (!range)
            return std::unexpected(range.error());
        if constexpr (iommu::DeferringDomain<Domain>)
            return poison_and_wait(poison_, domain_, *range);
        return {};
    }

    Result<void> unpoison(Iova start, ByteCount size) {
        const Result<IovaRange> range = range_to_poison(start, size);
        if (!range)
            return std::unexpected(range.error());
        poison_.remove(*range);
        return {};
    }

    /// Forgets what is poisoned of a mapping that the tracker has removed.
    void forget(IovaRange mapping) { poison_.remove(mapping); }

  private:
    [[nodiscard]] Result<IovaRange> range_to_poison(Iova start, ByteCount size) const {
        if (!registration_)
            return fail(ErrorCode::unsupported, "poison needs level exact and an IOMMU that checks "
                                                "byte bounds; this one checks pages");
        if (size == ByteCount(0))
            return fail(ErrorCode::empty, "the range is empty", {"iova", start.value()});
        const Result<IovaRange> range = IovaRange::make(start, size);
        const auto found = tracker_.at_or_below(start);
        if (!range || !found || !found->range.contains(*range))
            return fail(ErrorCode::not_found, "no single mapping contains the range",
                        {"iova", start.value()}, {"size", size.value()});
        return range;
    }

    Domain& domain_;
    const Tracker<Sync>& tracker_;
    Poison<Sync> poison_;
    std::optional<typename BoundsRegistrationOf<Domain>::Type> registration_;
};

} // namespace moat::dma
