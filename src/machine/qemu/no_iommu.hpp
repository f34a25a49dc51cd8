// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// NoIommu: a QEMU machine without an IOMMU. Devices use physical addresses and reach all of memory;
// nothing is blocked or recorded.
#pragma once

#include "machine/qemu/iommu.hpp"

#include <cstdint>
#include <memory>

namespace moat::machine::qemu {

/// Maps memory at its own physical address only, and has no effect on devices.
class UnboundedDomain final : public QemuDomain {
  public:
    explicit UnboundedDomain(PhysicalRange ram) {
        limits_.aperture = IovaRange(Iova(ram.start().value()), ram.size());
        limits_.leaf_sizes = bit(12);
    }

    [[nodiscard]] const iommu::DomainLimits& limits() const override { return limits_; }

    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                   Attributes /*attributes*/) override {
        MOAT_TRY(iommu::check_limits(limits_, start, size));
        if (start.value() != memory.value())
            return fail(ErrorCode::unsupported,
                        "without an IOMMU, devices use the physical addresses of memory",
                        {"start", start.value()}, {"memory", memory.value()});
        return {};
    }

    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) override {
        return iommu::check_limits(limits_, start, size);
    }

    [[nodiscard]] Result<void> attach(std::uint16_t /*requester*/,
                                      std::optional<std::uint8_t> /*tlb*/) override {
        return {};
    }

    [[nodiscard]] Result<Iova> map_interrupts(std::uint16_t /*requester*/,
                                              PhysicalAddress page) override {
        return Iova(page.value());
    }

    [[nodiscard]] Result<void> unmap_interrupts(std::uint16_t /*requester*/) override { return {}; }

  private:
    iommu::DomainLimits limits_;
};

class NoIommu final : public QemuIommu {
  public:
    explicit NoIommu(PhysicalRange ram) : ram_(ram) {}

    [[nodiscard]] Result<std::unique_ptr<QemuDomain>> create_domain() override {
        return std::make_unique<UnboundedDomain>(ram_);
    }

    /// The function still reaches everything, until its bus mastering is off.
    [[nodiscard]] Result<void> detach(std::uint16_t /*requester*/) override { return {}; }

    [[nodiscard]] std::uint64_t
    take_faults(FunctionRef<void(const fault::Record&)> /*each*/) override {
        return 0;
    }

  private:
    const PhysicalRange ram_;
};

} // namespace moat::machine::qemu
