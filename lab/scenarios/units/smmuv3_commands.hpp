// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped command queue of SMMUv3, with two entries, and a model of the unit.
// Source: IHI 0070, 3.5.1 "SMMU circular queues", 4.7.3 "CMD_SYNC" and 7.1 "Command queue errors".
#pragma once

#include "moat/iommu/smmuv3.hpp"

#include "lab/scenarios/units/model.hpp"

#include <span>

namespace moat::scenarios::units {

template <class Sync>
using SmmuCommandRegisters =
    Registers<Sync, iommu::smmuv3::reg::command_queue, iommu::smmuv3::reg::command_producer,
              iommu::smmuv3::reg::command_consumer, iommu::smmuv3::reg::errors,
              iommu::smmuv3::reg::errors_acknowledged>;

template <class Sync>
class SmmuCommands : public Unit<Sync, SmmuCommandRegisters<Sync>> {
    using Base = Unit<Sync, SmmuCommandRegisters<Sync>>;

  public:
    static explore::Program program(const Configuration& text) {
        return submitting_program<SmmuCommands>(text);
    }

    explicit SmmuCommands(const Bounds& bounds) : Base(bounds) { commands_.prepare(); }

    Result<void> send(unsigned first, unsigned count) {
        std::array<iommu::smmuv3::Command, Bounds::most> commands;
        for (unsigned i = 0; i != count; ++i)
            commands[i] =
                iommu::smmuv3::forget_address_space(static_cast<std::uint16_t>(first + i));
        return commands_.run(std::span(commands).first(count));
    }

    /// Only the consumption of CMD_SYNC says that the commands before it are complete.
    void run_unit() {
        namespace reg = iommu::smmuv3::reg;
        for (std::uint32_t consumer = 0; this->has_work();) {
            const std::uint32_t producer = registers_.read32(reg::command_producer);
            if (producer == consumer) {
                ExploredSync::pause();
                continue;
            }
            ExploredSync::check(((producer - consumer) & index_mask) <= entries,
                                "the driver sends more commands than the queue holds");
            if (this->fails([this] {
                    registers_.write32(reg::errors, iommu::smmuv3::command_queue_error);
                }))
                return;
            Word* const words = memory_.words(queue_) + std::size_t{2} * (consumer % entries);
            take(UnitLoads(words[0]).load(std::memory_order_relaxed));
            consumer = (consumer + 1) & index_mask;
            registers_.write32(reg::command_consumer, consumer);
        }
    }

  private:
    using Base::memory_;
    using Base::registers_;

    static constexpr unsigned entries_lg2 = 1;
    static constexpr std::uint32_t entries = 1U << entries_lg2;
    static constexpr std::uint32_t index_mask = 2 * entries - 1;

    void take(std::uint64_t command) {
        constexpr std::uint64_t invalidate_address_space = 0x11;
        constexpr std::uint64_t sync = 0x46;
        if ((command & 0xff) == invalidate_address_space) {
            this->consume(command >> 48);
            return;
        }
        ExploredSync::check((command & 0xff) == sync, "the unit reads an entry that is not filled");
        this->execute_consumed();
    }

    PhysicalAddress queue_ = *memory_.allocate(entries_lg2 + 4);
    iommu::smmuv3::CommandQueue<SmmuCommandRegisters<Sync>, ArenaTables, StoresPlain<Sync>>
        commands_{registers_, memory_, queue_, entries_lg2};
};

} // namespace moat::scenarios::units
