// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An AMD IOMMU's registers as an array: it executes commands at once, records the invalidations,
// writes events, and misbehaves on request.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/iommu/amd.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/real.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

namespace moat::tests {

class FakeAmd {
  public:
    using Pool = TablePool<RealSync>;
    using Command = iommu::amd::Command;
    using Event = iommu::amd::Event;

    /// INVALIDATE_IOMMU_ALL, tables of up to 5 levels.
    static constexpr std::uint64_t usual_features = bit(6) | bit(10);

    explicit FakeAmd(Pool& pool, std::uint64_t features = usual_features) : pool_(pool) {
        values[iommu::amd::reg::features] = features;
    }

    std::uint32_t read32(unsigned offset) { return static_cast<std::uint32_t>(read64(offset)); }

    std::uint64_t read64(unsigned offset) {
        ++reads;
        return values[offset];
    }

    void write32(unsigned offset, std::uint32_t value) { write64(offset, value); }

    void write64(unsigned offset, std::uint64_t value) {
        namespace reg = iommu::amd::reg;
        namespace status = iommu::amd::status;
        if (stuck)
            return;
        if (offset == reg::status) {
            values[offset] &= ~(value & status::event_overflow);
            return;
        }
        values[offset] = value;
        if (offset == reg::control) {
            namespace control = iommu::amd::control;
            std::uint64_t& now = values[reg::status];
            now = (now & status::event_overflow) |
                  ((value & control::command_buffer) != 0 ? status::runs_commands : 0) |
                  ((value & control::event_log) != 0 ? status::logs_events : 0);
        }
        if (offset == reg::command_tail)
            run_commands();
    }

    /// The entry of a late event is written by the second call.
    bool relax(unsigned attempt) {
        if (attempt == 1 && late_ != nullptr)
            *std::exchange(late_, nullptr) = late_code_;
        return attempt < 3;
    }

    /// As the unit does: it logs nothing after an event that found the log full.
    void record(const Event& event) {
        namespace reg = iommu::amd::reg;
        namespace status = iommu::amd::status;
        if ((values[reg::status] & status::logs_events) == 0 ||
            (values[reg::status] & status::event_overflow) != 0)
            return;
        const std::uint64_t bytes = 16ULL << (values[reg::event_log] >> 56);
        std::uint64_t& tail = values[reg::event_tail];
        const std::uint64_t next = (tail + 16) % bytes;
        if (next == values[reg::event_head]) {
            values[reg::status] |= status::event_overflow;
            return;
        }
        Word* const words =
            pool_.words(PhysicalAddress(values[reg::event_log] & field_mask(51, 12)));
        words[tail / 8] = event[0];
        words[tail / 8 + 1] = event[1];
        tail = next;
    }

    /// The same, but the entry appears only after the tail.
    void record_late(const Event& event) {
        namespace reg = iommu::amd::reg;
        late_ = pool_.words(PhysicalAddress(values[reg::event_log] & field_mask(51, 12))) +
                values[reg::event_tail] / 8;
        late_code_ = event[0];
        record({0, event[1]});
    }

    std::map<unsigned, std::uint64_t> values;
    std::vector<Command> commands; ///< without COMPLETION_WAIT
    unsigned waits = 0;
    unsigned reads = 0;
    bool stuck = false;                      ///< from now on it ignores writes
    bool rejects = false;                    ///< from now on every command is illegal
    std::function<void()> completed = [] {}; ///< called before it reports a batch's completion

  private:
    void run_commands() {
        namespace reg = iommu::amd::reg;
        if ((values[reg::status] & iommu::amd::status::runs_commands) == 0)
            return;
        const std::uint64_t bytes = 16ULL << (values[reg::command_buffer] >> 56);
        const Word* const queue =
            pool_.words(PhysicalAddress(values[reg::command_buffer] & field_mask(51, 12)));
        std::uint64_t& head = values[reg::command_head];
        for (; head != values[reg::command_tail]; head = (head + 16) % bytes) {
            if (rejects) {
                values[reg::status] &= ~iommu::amd::status::runs_commands;
                return;
            }
            const Command each = {queue[head / 8], queue[head / 8 + 1]};
            if (each[0] >> 60 != 1) {
                commands.push_back(each);
                continue;
            }
            ++waits;
            completed();
            *pool_.words(PhysicalAddress(each[0] & field_mask(51, 3))) = each[1];
        }
    }

    Pool& pool_;
    Word* late_ = nullptr;
    std::uint64_t late_code_ = 0;
};

static_assert(iommu::UnitRegisters<FakeAmd>);

} // namespace moat::tests
