// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped command buffer of AMD's IOMMU, with four entries, and a model of the unit.
// Source: 48882, 2.4 "Commands".
#pragma once

#include "moat/iommu/amd.hpp"

#include "lab/scenarios/units/model.hpp"

#include <span>

namespace moat::scenarios::units {

template <class Sync>
using AmdRegisters = Registers<Sync, iommu::amd::reg::command_buffer, iommu::amd::reg::command_head,
                               iommu::amd::reg::command_tail, iommu::amd::reg::status>;

template <class Sync>
class AmdCommands : public Unit<Sync, AmdRegisters<Sync>> {
    using Base = Unit<Sync, AmdRegisters<Sync>>;

  public:
    static explore::Program program(const Configuration& text) {
        return submitting_program<AmdCommands>(text);
    }

    explicit AmdCommands(const Bounds& bounds) : Base(bounds) {
        buffer_.prepare();
        registers_.write64(iommu::amd::reg::status, iommu::amd::status::runs_commands);
    }

    Result<void> send(unsigned first, unsigned count) {
        std::array<iommu::amd::Command, Bounds::most> commands;
        for (unsigned i = 0; i != count; ++i)
            commands[i] = iommu::amd::forget_device(static_cast<std::uint16_t>(first + i));
        return buffer_.run(std::span(commands).first(count));
    }

    /// The head of the buffer says what the unit has fetched, not what it has executed.
    void run_unit() {
        for (unsigned head = 0; this->has_work();) {
            const std::uint64_t tail = registers_.read64(iommu::amd::reg::command_tail) >> 4;
            if (head == tail) {
                ExploredSync::pause();
                continue;
            }
            if (this->fails([this] { registers_.write64(iommu::amd::reg::status, 0); }))
                return;
            Word* const slot = memory_.words(commands_) + std::size_t{2} * head;
            take(UnitLoads(slot[0]).load(std::memory_order_relaxed),
                 UnitLoads(slot[1]).load(std::memory_order_relaxed));
            head = (head + 1) % entries;
        }
    }

  private:
    using Base::memory_;
    using Base::registers_;

    static constexpr unsigned entries_lg2 = 2;
    static constexpr unsigned entries = 1U << entries_lg2;

    void take(std::uint64_t command, std::uint64_t data) {
        constexpr unsigned completion_wait = 1;
        constexpr unsigned invalidate_device = 2;
        if (command >> 60 == invalidate_device) {
            this->consume(command & 0xffff);
            return;
        }
        ExploredSync::check(command >> 60 == completion_wait,
                            "the unit reads an entry that is not filled");
        this->execute_consumed();
        ExploredSync::AtomicRef<std::uint64_t>(
            *memory_.words(PhysicalAddress(command & field_mask(51, 3))))
            .store(data, std::memory_order_release);
    }

    PhysicalAddress commands_ = *memory_.allocate(entries_lg2 + iommu::amd::queue_entry_lg2);
    iommu::amd::CommandBuffer<AmdRegisters<Sync>, ArenaTables, StoresPlain<Sync>, entries_lg2>
        buffer_{registers_, memory_, commands_, *memory_.allocate(3)};
};

} // namespace moat::scenarios::units
