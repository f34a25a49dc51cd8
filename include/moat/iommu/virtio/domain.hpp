// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A domain of a virtio-iommu. unit.hpp keeps its mappings and sends the requests.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/iommu/virtio/unit.hpp"

#include <cstdint>
#include <memory>

namespace moat::iommu::virtio {

/// Thread-safe. Its unit outlives it; its functions are detached before.
template <class Unit_>
class Domain {
  public:
    using Unit = Unit_;

    /// Creates an empty domain. Errors: limit.
    static Result<std::unique_ptr<Domain>> create(Unit& unit) {
        const auto number = unit.create_domain();
        if (!number)
            return std::unexpected(number.error());
        return std::unique_ptr<Domain>(new Domain(unit, *number));
    }

    ~Domain() { unit_.destroy_domain(number_); }

    Domain(const Domain&) = delete;
    Domain& operator=(const Domain&) = delete;

    [[nodiscard]] std::uint32_t number() const { return number_; }

    [[nodiscard]] const DomainLimits& limits() const { return unit_.limits(); }

    /// On return the function's accesses go through this domain. Errors: Unit::attach's.
    [[nodiscard]] Result<void> attach(std::uint16_t requester) {
        return unit_.attach(requester, number_);
    }

    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                   Attributes attributes) {
        if (const auto good = check(start, size, memory.value()); !good)
            return good;
        if (!has(limits().known, attributes))
            return fail(ErrorCode::unsupported,
                        "the IOMMU supports no attribute but read and write",
                        {"attributes", static_cast<std::uint64_t>(attributes)});
        return unit_.map(number_, IovaRange(start, size), memory, attributes);
    }

    /// Errors: unsupported also for a part of what one call mapped.
    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) {
        if (const auto good = check(start, size, 0); !good)
            return good;
        return unit_.unmap(number_, IovaRange(start, size));
    }

    /// Strict: the device answers an unmap when it has invalidated.
    [[nodiscard]] Result<void> unmap_deferred(Iova start, ByteCount size) {
        return unmap(start, size);
    }

    [[nodiscard]] Result<void> invalidate_all() { return {}; }

  private:
    Domain(Unit& unit, std::uint32_t number) : unit_(unit), number_(number) {}

    [[nodiscard]] Result<void> check(Iova start, ByteCount size, std::uint64_t memory) const {
        if (!is_aligned(start.value() | size.value() | memory, page_lg2))
            return fail(ErrorCode::unaligned, "mappings are multiples of 4K",
                        {"start", start.value()}, {"size", size.value()}, {"memory", memory});
        return check_limits(limits(), start, size);
    }

    static constexpr unsigned page_lg2 = 12;

    Unit& unit_;
    const std::uint32_t number_;
};

} // namespace moat::iommu::virtio
