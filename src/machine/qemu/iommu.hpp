// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QemuIommu: the part of a QEMU machine that bounds its devices. driven_iommu.hpp implements it by
// the drivers of moat/iommu/; qemu_machine.cpp uses it.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/core/result.hpp"
#include "moat/fault/record.hpp"

#include "machine/domain.hpp"

#include <cstdint>
#include <memory>
#include <optional>

namespace moat::machine::qemu {

/// A domain of QEMU's IOMMU.
class QemuDomain : public Domain {
  public:
    /// On return the function's accesses go through this domain. `tlb`: it will cache translations,
    /// and its queue of invalidations has this depth, as its capability encodes it. Errors:
    /// unsupported (`tlb`: see serves_device_tlbs), busy, no_memory, io.
    [[nodiscard]] virtual Result<void> attach(std::uint16_t requester,
                                              std::optional<std::uint8_t> tlb) = 0;

    /// Maps `page`, of 4K, outside of limits() for a function's interrupt messages. Return: where
    /// the function writes them. Errors: map's.
    [[nodiscard]] virtual Result<Iova> map_interrupts(std::uint16_t requester,
                                                      PhysicalAddress page) = 0;

    /// Errors: io (the function may still write to the page).
    [[nodiscard]] virtual Result<void> unmap_interrupts(std::uint16_t requester) = 0;
};

/// The machine outlives its domains. Used by one thread at a time.
class QemuIommu {
  public:
    QemuIommu() = default;
    virtual ~QemuIommu() = default;
    QemuIommu(const QemuIommu&) = delete;
    QemuIommu& operator=(const QemuIommu&) = delete;

    /// Errors: no_memory, limit, unsupported, io.
    [[nodiscard]] virtual Result<std::unique_ptr<QemuDomain>> create_domain() = 0;

    /// Whether its domains invalidate the translations that functions cache.
    [[nodiscard]] virtual bool serves_device_tlbs() const { return false; }

    /// On return the function reaches nothing. Errors: not_found, io.
    [[nodiscard]] virtual Result<void> detach(std::uint16_t requester) = 0;

    /// Passes on the recorded faults, oldest first, and clears them. Return: how many were lost, as
    /// far as the IOMMU reports it.
    [[nodiscard]] virtual std::uint64_t
    take_faults(FunctionRef<void(const fault::Record&)> each) = 0;
};

} // namespace moat::machine::qemu
