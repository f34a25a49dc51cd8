// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A domain of a machine that is chosen at run time: the Domain concept of iommu/, as a class.
// The engines behind it are iommu/'s or the kernel's; a machine makes one (machine.hpp).
#pragma once

#include "moat/iommu/domain.hpp"

namespace moat::machine {

/// Functions that are attached reach what is mapped here and nothing else; memory is named by
/// SharedMemory::physical. The concepts say what each function promises. It is detached from every
/// function before it ends.
class Domain {
  public:
    virtual ~Domain() = default;
    Domain(const Domain&) = delete;
    Domain& operator=(const Domain&) = delete;

    [[nodiscard]] virtual const iommu::DomainLimits& limits() const = 0;

    [[nodiscard]] virtual Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                           Attributes attributes) = 0;

    [[nodiscard]] virtual Result<void> unmap(Iova start, ByteCount size) = 0;

    /// Strict where the machine does not defer (DomainLimits::defers).
    [[nodiscard]] virtual Result<void> unmap_deferred(Iova start, ByteCount size) {
        return unmap(start, size);
    }

    [[nodiscard]] virtual Result<void> invalidate_all() { return {}; }

  protected:
    Domain() = default;
};

static_assert(iommu::DeferringDomain<Domain>);

} // namespace moat::machine
