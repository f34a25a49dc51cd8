// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sends commands to an SMMUv3 and waits for completion: each batch ends with CMD_SYNC.
// smmuv3.hpp chooses the commands.
// Source: IHI 0070, 3.5 "Command and Event queues" and 6.3.28 "SMMU_CMDQ_CONS".
#pragma once

#include "moat/core/result.hpp"
#include "moat/iommu/detail/smmuv3_command.hpp"
#include "moat/iommu/detail/smmuv3_registers.hpp"
#include "moat/iommu/detail/unit_tables.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace moat::iommu::smmuv3 {

/// Not thread-safe: the caller holds the unit's lock.
template <UnitRegisters Registers, TableMemory Memory, SyncPolicy Sync>
class CommandQueue {
  public:
    /// `page`: for 2^entries_lg2 commands, which fit into it.
    CommandQueue(Registers& registers, Memory& memory, PhysicalAddress page, unsigned entries_lg2)
        : registers_(registers), memory_(memory), page_(page), entries_lg2_(entries_lg2) {}

    /// Call while the unit's queue is disabled.
    void prepare() {
        producer_ = 0;
        registers_.write64(reg::command_queue, page_.value() | entries_lg2_);
        registers_.write32(reg::command_producer, 0);
        registers_.write32(reg::command_consumer, 0);
    }

    /// Returns when each of `commands` is complete. Errors: io, as does every later call then.
    [[nodiscard]] Result<void> run(std::span<const Command> commands) {
        if (failed_)
            return failure("the SMMU has failed to run commands before");
        const std::size_t most = (std::size_t{1} << entries_lg2_) - 1; // and CMD_SYNC
        while (!commands.empty()) {
            const auto some = commands.first(commands.size() < most ? commands.size() : most);
            for (const Command& each : some)
                append(each);
            append(synchronize());
            MOAT_TRY(wait());
            commands = commands.subspan(some.size());
        }
        return {};
    }

  private:
    /// The queue is empty whenever none of these functions runs.
    Result<void> wait() {
        registers_.write32(reg::command_producer, producer_);
        for (unsigned attempt = 0;; ++attempt) {
            const std::uint32_t consumer = registers_.read32(reg::command_consumer);
            if ((consumer & index_mask()) == producer_)
                return {};
            if (!registers_.relax(attempt))
                return failure("the SMMU does not complete its commands");
            const std::uint32_t active =
                registers_.read32(reg::errors) ^ registers_.read32(reg::errors_acknowledged);
            if ((active & command_queue_error) != 0)
                return failure("the SMMU rejected a command");
        }
    }

    void append(const Command& command) {
        const std::uint32_t slot = producer_ & (index_mask() >> 1);
        Word* const words = memory_.words(page_) + std::size_t{2} * slot;
        store_word<Sync>(words[1], command[1]);
        store_word<Sync>(words[0], command[0]);
        producer_ = (producer_ + 1) & index_mask();
    }

    /// An index, and the wrap bit above it.
    [[nodiscard]] std::uint32_t index_mask() const { return (2U << entries_lg2_) - 1; }

    Result<void> failure(const char* sentence) {
        failed_ = true;
        return fail(ErrorCode::io, sentence,
                    {"consumer", registers_.read32(reg::command_consumer)});
    }

    Registers& registers_;
    Memory& memory_;
    const PhysicalAddress page_;
    const unsigned entries_lg2_;
    std::uint32_t producer_ = 0;
    bool failed_ = false;
};

} // namespace moat::iommu::smmuv3
