// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A machine's domain, chosen at run time: the Domain concept of iommu/ as a class. machine.hpp
// creates it; iommu/'s engines or the kernel implement it.
#pragma once

#include "moat/iommu/domain.hpp"

#include <concepts>

namespace moat::machine {

/// Attached functions reach what is mapped here and nothing else; SharedMemory::physical names
/// memory. The concepts document each function. Detached from every function before it ends.
class Domain {
  public:
    virtual ~Domain() = default;
    Domain(const Domain&) = delete;
    Domain& operator=(const Domain&) = delete;

    [[nodiscard]] virtual const iommu::DomainLimits& limits() const = 0;

    [[nodiscard]] virtual Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                           Attributes attributes) = 0;

    [[nodiscard]] virtual Result<void> unmap(Iova start, ByteCount size) = 0;

    /// Strict unless the machine defers (DomainLimits::defers).
    [[nodiscard]] virtual Result<void> unmap_deferred(Iova start, ByteCount size) {
        return unmap(start, size);
    }

    [[nodiscard]] virtual Result<void> invalidate_all() { return {}; }

  protected:
    Domain() = default;
};

static_assert(iommu::DeferringDomain<Domain>);

/// Forwards to `inner`: a domain of iommu/'s engines, which the derived class keeps, or another.
template <iommu::DeferringDomain Inner, std::derived_from<Domain> Base = Domain>
class ForwardingDomain : public Base {
  public:
    explicit ForwardingDomain(Inner& inner) : inner_(inner) {}

    [[nodiscard]] Inner& inner() const { return inner_; }

    [[nodiscard]] const iommu::DomainLimits& limits() const override { return inner_.limits(); }

    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                   Attributes attributes) override {
        return inner_.map(start, size, memory, attributes);
    }

    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) override {
        return inner_.unmap(start, size);
    }

    [[nodiscard]] Result<void> unmap_deferred(Iova start, ByteCount size) override {
        return inner_.unmap_deferred(start, size);
    }

    [[nodiscard]] Result<void> invalidate_all() override { return inner_.invalidate_all(); }

  private:
    Inner& inner_;
};

} // namespace moat::machine
