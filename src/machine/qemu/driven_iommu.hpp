// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// DrivenIommu: a QemuIommu by a driver of moat/iommu/ (VtdIommu, AmdIommu, ...), whose registers
// are reached over QEMU's socket and whose tables lie in QEMU's memory.
#pragma once

#include "moat/iommu/amd.hpp"
#include "moat/iommu/smmuv3.hpp"
#include "moat/iommu/virtio.hpp"
#include "moat/iommu/vtd.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/real.hpp"

#include "machine/qemu/iommu.hpp"
#include "machine/qemu/qtest.hpp"
#include "machine/qemu/word_runs.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

namespace moat::machine::qemu {

using Tables = TablePool<RealSync>;

/// The IOMMU's registers, as its driver accesses them.
class UnitRegisters final : public MemoryRegisters {
  public:
    UnitRegisters(Qtest& qtest, PhysicalRange where)
        : MemoryRegisters(qtest, where.start(), where.size()) {}

    /// QEMU's IOMMUs complete commands before they answer: a second look suffices, unless the
    /// device is not QEMU's.
    bool relax(unsigned attempt) {
        qtest_.drain();
        return qtest_.health() && attempt < 16;
    }
};

static_assert(iommu::UnitRegisters<UnitRegisters>);

/// What QEMU's IOMMU records one by one: accesses, or each word of 4 bytes of an access.
enum class Recorded : std::uint8_t { accesses, words };

using Correction = fault::Record (*)(fault::Record);

[[nodiscard]] constexpr fault::Record as_decoded(fault::Record record) {
    return record;
}

/// QEMU 11.1's AMD IOMMU marks each page fault as one of an interrupt, has the kind of access in
/// other bits than the specification, one reason for absent and forbidden pages, and no address.
[[nodiscard]] constexpr fault::Record corrected_amd(fault::Record record) {
    constexpr std::uint64_t was_write = 1U << 1;
    if (record.reason != fault::Reason::interrupt)
        return record;
    return {.source = record.source,
            .access = (*record.code & was_write) != 0 ? fault::Access::write : fault::Access::read,
            .reason = fault::Reason::permission,
            .code = record.code};
}

/// `UnitDomain_`: a domain of a driver, such as iommu::vtd::Domain. `Correct`: what QEMU's unit
/// does otherwise than its specification.
template <iommu::DeferringDomain UnitDomain_, Recorded RecordedAs = Recorded::accesses,
          Correction Correct = as_decoded>
class DrivenIommu : public QemuIommu {
  public:
    using UnitDomain = UnitDomain_;
    using Unit = typename UnitDomain::Unit;

    /// Errors: those of the driver's `open`, which takes `options`.
    template <class Options>
    [[nodiscard]] static Result<std::unique_ptr<DrivenIommu>>
    open(Qtest& qtest, PhysicalRange registers, Tables& tables, const Options& options) {
        std::unique_ptr<DrivenIommu> iommu(new DrivenIommu(qtest, registers));
        MOAT_LET(iommu->unit_, Unit::open(iommu->registers_, tables, options));
        return iommu;
    }

    [[nodiscard]] Unit& unit() { return *unit_; }

    [[nodiscard]] Result<std::unique_ptr<QemuDomain>> create_domain() override {
        MOAT_LET(auto domain, UnitDomain::create(*unit_));
        return std::make_unique<HalfDomain>(std::move(domain));
    }

    [[nodiscard]] bool serves_device_tlbs() const override {
        if constexpr (requires { unit_->serves_device_tlbs(); })
            return unit_->serves_device_tlbs();
        return false;
    }

    [[nodiscard]] Result<void> detach(std::uint16_t requester) override {
        return unit_->detach(requester);
    }

    [[nodiscard]] std::uint64_t take_faults(FunctionRef<void(const fault::Record&)> each) override {
        const auto pass_on = [&](const fault::Record& record) { each(Correct(record)); };
        if constexpr (RecordedAs == Recorded::accesses)
            return unit_->take_faults(pass_on);
        WordRuns runs(each);
        const auto add = [&](const fault::Record& word) { runs.add(word); };
        const std::uint64_t lost = unit_->take_faults(add);
        runs.finish();
        return lost;
    }

  private:
    /// The upper half of the driver's domain is for interrupt messages.
    class HalfDomain final : public ForwardingDomain<UnitDomain, QemuDomain> {
      public:
        explicit HalfDomain(std::unique_ptr<UnitDomain> domain)
            : ForwardingDomain<UnitDomain, QemuDomain>(*domain), domain_(std::move(domain)),
              limits_(domain_->limits()) {
            limits_.aperture = {Iova(0), ByteCount(limits_.aperture.size().value() / 2)};
        }

        [[nodiscard]] const iommu::DomainLimits& limits() const override { return limits_; }

        [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                       Attributes attributes) override {
            MOAT_TRY(iommu::check_limits(limits_, start, size));
            return domain_->map(start, size, memory, attributes);
        }

        [[nodiscard]] Result<void> attach(std::uint16_t requester,
                                          std::optional<std::uint8_t> tlb) override {
            if (!tlb)
                return domain_->attach(requester);
            if constexpr (requires { domain_->attach(requester, iommu::DeviceTlb{*tlb}); })
                return domain_->attach(requester, iommu::DeviceTlb{*tlb});
            return fail(ErrorCode::unsupported, "the IOMMU's driver leaves functions' caches alone",
                        {"requester", requester});
        }

        [[nodiscard]] Result<Iova> map_interrupts(std::uint16_t requester,
                                                  PhysicalAddress page) override {
            const Iova start = interrupts_of(requester);
            MOAT_TRY(domain_->map(start, page_bytes, page, Attributes::write));
            return start;
        }

        [[nodiscard]] Result<void> unmap_interrupts(std::uint16_t requester) override {
            return domain_->unmap(interrupts_of(requester), page_bytes);
        }

      private:
        static constexpr ByteCount page_bytes{4096};

        [[nodiscard]] Iova interrupts_of(std::uint16_t requester) const {
            return Iova(limits_.aperture.size().value() + requester * page_bytes.value());
        }

        const std::unique_ptr<UnitDomain> domain_;
        iommu::DomainLimits limits_;
    };

    DrivenIommu(Qtest& qtest, PhysicalRange registers) : registers_(qtest, registers) {}

    UnitRegisters registers_;
    std::unique_ptr<Unit> unit_;
};

using VtdIommu =
    DrivenIommu<iommu::vtd::Domain<iommu::vtd::Unit<UnitRegisters, Tables, RealSync>, 4>>;

using AmdUnit = iommu::amd::Unit<UnitRegisters, Tables, RealSync>;

using AmdIommu = DrivenIommu<iommu::amd::Domain<AmdUnit>, Recorded::accesses, corrected_amd>;

using SmmuUnit = iommu::smmuv3::Unit<UnitRegisters, Tables, RealSync>;

using VirtioUnit = iommu::virtio::Unit<UnitRegisters, Tables, RealSync>;

using VirtioIommu = DrivenIommu<iommu::virtio::Domain<VirtioUnit>, Recorded::words>;

using SmmuIommu = DrivenIommu<iommu::smmuv3::Domain<SmmuUnit>, Recorded::words>;

} // namespace moat::machine::qemu
