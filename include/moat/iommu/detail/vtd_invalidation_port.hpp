// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sends invalidations to a VT-d unit and waits for completion: through the queue, with a wait
// descriptor after each batch, or through registers. vtd.hpp chooses the invalidations.
#pragma once

#include "moat/core/result.hpp"
#include "moat/iommu/detail/completion_word.hpp"
#include "moat/iommu/detail/unit_tables.hpp"
#include "moat/iommu/detail/vtd_command.hpp"
#include "moat/iommu/detail/vtd_registers.hpp"

#include <cstdint>
#include <span>

namespace moat::iommu::vtd {

enum class InvalidateBy : std::uint8_t { queue, registers };

/// Not thread-safe: the caller holds the unit's lock.
template <UnitRegisters Registers, TableMemory Memory, SyncPolicy Sync, unsigned Slots = 256>
class InvalidationPort {
  public:
    /// Two pages: the descriptors, and the word that wait descriptors write.
    InvalidationPort(Registers& registers, Memory& memory, Capabilities capabilities,
                     InvalidateBy by, PhysicalAddress page, PhysicalAddress status_page)
        : registers_(registers), memory_(memory), capabilities_(capabilities), by_(by), page_(page),
          completion_(memory, status_page) {}

    /// Returns when each of `commands` is complete. Errors: io, as does every later call then.
    [[nodiscard]] Result<void> run(std::span<const Command> commands) {
        if (failed_)
            return failure("the unit has failed to invalidate before");
        if (by_ == InvalidateBy::registers)
            return run_by_registers(commands);
        for (; commands.size() > most_at_once; commands = commands.subspan(most_at_once))
            MOAT_TRY(run_by_queue(commands.first(most_at_once)));
        return run_by_queue(commands);
    }

    /// Call before enabling the unit's queue, which begins at slot 0.
    void prepare_queue() {
        tail_ = 0;
        registers_.write64(reg::queue_tail, 0);
        registers_.write64(reg::queue_address, page_.value());
    }

    [[nodiscard]] bool uses_queue() const { return by_ == InvalidateBy::queue; }

  private:
    static constexpr unsigned slots = Slots; ///< of 16 bytes; the unit's queue is one page of 256
    /// A wait descriptor follows, and the tail of a full queue is one slot behind its head.
    static constexpr std::size_t most_at_once = slots - 2;

    Result<void> run_by_queue(std::span<const Command> commands) {
        for (const Command& each : commands)
            append(each.descriptor(capabilities_));
        append(wait_descriptor(completion_.where(), completion_.next()));
        registers_.write64(reg::queue_tail, std::uint64_t{tail_} << 4);
        const auto has_stopped = [&] {
            return (registers_.read32(reg::fault_status) & fault_bits::queue_errors) != 0;
        };
        if (!completion_.wait(registers_, has_stopped))
            return failure("the unit does not complete its queue of invalidations");
        return {};
    }

    void append(const Descriptor& descriptor) {
        Word* const slot = memory_.words(page_) + std::size_t{2} * tail_;
        store_word<Sync>(slot[1], descriptor[1]);
        store_word<Sync>(slot[0], descriptor[0]);
        tail_ = (tail_ + 1) % slots;
    }

    Result<void> run_by_registers(std::span<const Command> commands) {
        const unsigned iotlb = capabilities_.iotlb_registers();
        for (const Command& each : commands) {
            const bool context = each.cache == Command::Cache::context;
            if (!context && each.reach == Command::Reach::narrow)
                registers_.write64(iotlb, each.page_word());
            const unsigned at = context ? reg::context_command : iotlb + 8;
            registers_.write64(at, context ? each.context_register()
                                           : each.iotlb_register(capabilities_));
            for (unsigned attempt = 0; (registers_.read64(at) & bit(63)) != 0; ++attempt)
                if (!registers_.relax(attempt))
                    return failure("the unit does not complete an invalidation");
        }
        return {};
    }

    Result<void> failure(const char* sentence) {
        failed_ = true;
        return fail(ErrorCode::io, sentence,
                    {"fault_status", registers_.read32(reg::fault_status)});
    }

    Registers& registers_;
    Memory& memory_;
    const Capabilities capabilities_;
    const InvalidateBy by_;
    const PhysicalAddress page_;
    CompletionWord<Memory, Sync> completion_;
    unsigned tail_ = 0;
    bool failed_ = false;
};

} // namespace moat::iommu::vtd
