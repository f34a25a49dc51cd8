// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An SMMUv3's registers as an array: it executes commands at once, records the invalidations,
// writes events, and misbehaves on request.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/iommu/smmuv3.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/real.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

namespace moat::tests {

class FakeSmmuv3 {
  public:
    using Pool = TablePool<RealSync>;
    using Command = iommu::smmuv3::Command;

    /// Stage 1, VMSAv8-64, coherent, ASIDs of 16 bits, stalls optional.
    static constexpr std::uint32_t usual_idr0 = 1U << 1 | 1U << 3 | 1U << 4 | 1U << 12;
    /// 16 bits of stream, queues of up to 2^8 entries.
    static constexpr std::uint32_t usual_idr1 = 16 | 8U << 16 | 8U << 21;
    static constexpr std::uint32_t usual_idr3 = 1U << 10; ///< ranges
    static constexpr std::uint32_t usual_idr5 = 4 | 1U << 4;

    explicit FakeSmmuv3(Pool& pool, std::uint32_t idr0 = usual_idr0,
                        std::uint32_t idr1 = usual_idr1, std::uint32_t idr3 = usual_idr3,
                        std::uint32_t idr5 = usual_idr5)
        : pool_(pool) {
        namespace reg = iommu::smmuv3::reg;
        values[reg::idr0] = idr0;
        values[reg::idr1] = idr1;
        values[reg::idr3] = idr3;
        values[reg::idr5] = idr5;
    }

    std::uint32_t read32(unsigned offset) { return static_cast<std::uint32_t>(values[offset]); }

    std::uint64_t read64(unsigned offset) { return values[offset]; }

    void write32(unsigned offset, std::uint32_t value) {
        namespace reg = iommu::smmuv3::reg;
        if (stuck)
            return;
        values[offset] = value;
        if (offset == reg::control)
            values[reg::control_acknowledge] = value;
        if (offset == reg::command_producer &&
            (values[reg::control] & iommu::smmuv3::control::command_queue) != 0)
            run_commands();
    }

    void write64(unsigned offset, std::uint64_t value) { values[offset] = value; }

    bool relax(unsigned attempt) { return attempt < 3; }

    /// As the unit does: an event that finds the queue full toggles the flag of an overflow, unless
    /// an earlier one was not acknowledged.
    void record(const iommu::smmuv3::Event& event) {
        namespace reg = iommu::smmuv3::reg;
        const std::uint64_t size = std::uint64_t{1} << (values[reg::event_queue] & 0x1f);
        std::uint64_t& producer = values[reg::event_producer];
        const std::uint64_t consumer = values[reg::event_consumer];
        constexpr std::uint64_t overflow = 1U << 31;
        if (((producer - consumer) & (2 * size - 1)) == size) {
            if (aborts)
                values[reg::errors] = ~values[reg::errors_acknowledged] & 4;
            else if (((producer ^ consumer) & overflow) == 0)
                producer ^= overflow;
            return;
        }
        Word* const words = pool_.words(PhysicalAddress(values[reg::event_queue] & ~low_bits(5))) +
                            4 * (producer & (size - 1));
        for (std::size_t i = 0; i != event.size(); ++i)
            words[i] = event[i];
        producer = (producer & overflow) | ((producer + 1) & (2 * size - 1));
    }

    std::map<unsigned, std::uint64_t> values;
    std::vector<Command> commands; ///< without CMD_SYNC
    unsigned syncs = 0;
    bool stuck = false;                      ///< from now on it ignores writes
    bool aborts = false;                     ///< a full queue is an abort, as in QEMU's unit
    bool rejects = false;                    ///< from now on every command is illegal
    std::function<void()> completed = [] {}; ///< called before it reports a batch's completion

  private:
    void run_commands() {
        namespace reg = iommu::smmuv3::reg;
        const std::uint64_t size = std::uint64_t{1} << (values[reg::command_queue] & 0x1f);
        const Word* const queue =
            pool_.words(PhysicalAddress(values[reg::command_queue] & ~low_bits(5)));
        std::uint64_t& consumer = values[reg::command_consumer];
        while (consumer != values[reg::command_producer]) {
            if (rejects) {
                values[reg::errors] ^= iommu::smmuv3::command_queue_error;
                return;
            }
            const std::uint64_t slot = consumer & (size - 1);
            const Command each = {queue[2 * slot], queue[2 * slot + 1]};
            if ((each[0] & 0xff) == iommu::smmuv3::synchronize()[0]) {
                ++syncs;
                completed();
            } else {
                commands.push_back(each);
            }
            consumer = (consumer + 1) & (2 * size - 1);
        }
    }

    Pool& pool_;
};

static_assert(iommu::UnitRegisters<FakeSmmuv3>);

} // namespace moat::tests
