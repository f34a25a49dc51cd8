// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sends commands to an AMD IOMMU and waits for completion: each batch ends with COMPLETION_WAIT.
// amd.hpp chooses the commands.
// Source: 48882, 2.4 "Commands".
#pragma once

#include "moat/core/result.hpp"
#include "moat/iommu/detail/amd_command.hpp"
#include "moat/iommu/detail/amd_registers.hpp"
#include "moat/iommu/detail/completion_word.hpp"
#include "moat/iommu/detail/unit_tables.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace moat::iommu::amd {

/// Not thread-safe: the caller holds the unit's lock.
template <UnitRegisters Registers, TableMemory Memory, SyncPolicy Sync,
          unsigned EntriesLg2 = fewest_queue_entries_lg2>
class CommandBuffer {
  public:
    /// Two pages: the commands, and the word that COMPLETION_WAIT writes.
    CommandBuffer(Registers& registers, Memory& memory, PhysicalAddress page,
                  PhysicalAddress completion_page)
        : registers_(registers), memory_(memory), page_(page),
          completion_(memory, completion_page) {}

    /// Call while the unit runs no commands.
    void prepare() {
        tail_ = 0;
        registers_.write64(reg::command_buffer, queue_register(page_, entries_lg2));
        registers_.write64(reg::command_head, 0);
        registers_.write64(reg::command_tail, 0);
    }

    /// Returns when each of `commands` is complete. Errors: io, as does every later call then.
    [[nodiscard]] Result<void> run(std::span<const Command> commands) {
        if (failed_)
            return failure("the IOMMU has failed to run commands before");
        for (; commands.size() > most_at_once; commands = commands.subspan(most_at_once))
            MOAT_TRY(run_some(commands.first(most_at_once)));
        return run_some(commands);
    }

  private:
    static constexpr unsigned entries_lg2 = EntriesLg2; ///< of 16 bytes; a unit's are one page
    /// COMPLETION_WAIT follows, and the tail of a full buffer is one entry behind its head.
    static constexpr std::size_t most_at_once = (std::size_t{1} << entries_lg2) - 2;

    Result<void> run_some(std::span<const Command> commands) {
        for (const Command& each : commands)
            append(each);
        append(completion_wait(completion_.where(), completion_.next()));
        registers_.write64(reg::command_tail, tail_ << queue_entry_lg2);
        const auto has_stopped = [&] {
            return (registers_.read64(reg::status) & status::runs_commands) == 0;
        };
        if (!completion_.wait(registers_, has_stopped))
            return failure(has_stopped() ? "the IOMMU stopped at a command"
                                         : "the IOMMU does not complete its commands");
        return {};
    }

    /// The buffer is empty whenever `run_some` begins.
    void append(const Command& command) {
        Word* const words = memory_.words(page_) + 2 * tail_;
        store_word<Sync>(words[1], command[1]);
        store_word<Sync>(words[0], command[0]);
        tail_ = (tail_ + 1) & low_bits(entries_lg2);
    }

    Result<void> failure(const char* sentence) {
        failed_ = true;
        return fail(ErrorCode::io, sentence, {"head", registers_.read64(reg::command_head)},
                    {"status", registers_.read64(reg::status)});
    }

    Registers& registers_;
    Memory& memory_;
    const PhysicalAddress page_;
    CompletionWord<Memory, Sync> completion_;
    std::size_t tail_ = 0;
    bool failed_ = false;
};

} // namespace moat::iommu::amd
