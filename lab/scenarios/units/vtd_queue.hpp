// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped invalidation queue of VT-d, with four slots, and a model of the unit.
// Source: VT-d, 6.5.2 "Queued Invalidation Interface".
#pragma once

#include "moat/iommu/vtd.hpp"

#include "lab/scenarios/units/model.hpp"

#include <span>

namespace moat::scenarios::units {

template <class Sync>
using VtdRegisters = Registers<Sync, iommu::vtd::reg::queue_tail, iommu::vtd::reg::queue_address,
                               iommu::vtd::reg::fault_status>;

template <class Sync>
class VtdQueue : public Unit<Sync, VtdRegisters<Sync>> {
    using Base = Unit<Sync, VtdRegisters<Sync>>;

  public:
    static explore::Program program(const Configuration& text) {
        return submitting_program<VtdQueue>(text);
    }

    explicit VtdQueue(const Bounds& bounds) : Base(bounds) { port_.prepare_queue(); }

    Result<void> send(unsigned first, unsigned count) {
        std::array<iommu::vtd::Command, Bounds::most> commands;
        for (unsigned i = 0; i != count; ++i)
            commands[i] = {.reach = iommu::vtd::Command::Reach::domain,
                           .domain = static_cast<std::uint16_t>(first + i)};
        return port_.run(std::span(commands).first(count));
    }

    /// The head of the queue says what the unit has fetched, not what it has executed.
    void run_unit() {
        for (unsigned head = 0; this->has_work();) {
            const std::uint64_t tail = registers_.read64(iommu::vtd::reg::queue_tail) >> 4;
            if (head == tail) {
                ExploredSync::pause();
                continue;
            }
            if (this->fails([this] { registers_.write32(iommu::vtd::reg::fault_status, bit(4)); }))
                return;
            Word* const slot = memory_.words(queue_) + std::size_t{2} * head;
            take(UnitLoads(slot[0]).load(std::memory_order_relaxed),
                 PhysicalAddress(UnitLoads(slot[1]).load(std::memory_order_relaxed)));
            head = (head + 1) % slots;
        }
    }

  private:
    using Base::memory_;
    using Base::registers_;

    static constexpr unsigned slots = 4;
    static constexpr unsigned slot_lg2 = 4;

    void take(std::uint64_t descriptor, PhysicalAddress status) {
        constexpr std::uint64_t invalidate_iotlb = 2;
        constexpr std::uint64_t wait = 5;
        if ((descriptor & 0xf) == invalidate_iotlb) {
            this->consume(descriptor >> 16 & 0xffff);
            return;
        }
        ExploredSync::check((descriptor & 0xf) == wait, "the unit reads a slot that is not filled");
        this->execute_consumed();
        ExploredSync::AtomicRef<std::uint64_t>(*memory_.words(status))
            .store(descriptor >> 32, std::memory_order_release);
    }

    PhysicalAddress queue_ = *memory_.allocate(slot_lg2 + 2);
    iommu::vtd::InvalidationPort<VtdRegisters<Sync>, ArenaTables, StoresPlain<Sync>, slots> port_{
        registers_,
        memory_,
        iommu::vtd::Capabilities(0, 0),
        iommu::vtd::InvalidateBy::queue,
        queue_,
        *memory_.allocate(3)};
};

} // namespace moat::scenarios::units
