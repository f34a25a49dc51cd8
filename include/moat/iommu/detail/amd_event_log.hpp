// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Takes events from an AMD IOMMU's log, whatever the unit or another writer of its memory put
// there. amd.hpp owns the log. Source: 48882, 2.5 "Event Logging", 2.5.1 (restart after an
// overflow).
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/iommu/detail/amd_event.hpp"
#include "moat/iommu/detail/amd_registers.hpp"
#include "moat/iommu/detail/unit_tables.hpp"

#include <cstddef>
#include <cstdint>

namespace moat::iommu::amd {

/// Not thread-safe: the caller holds the unit's lock.
template <UnitRegisters Registers, TableMemory Memory, SyncPolicy Sync>
class EventLog {
  public:
    /// `table`: 2^(entries_lg2 + queue_entry_lg2) zeroed bytes.
    EventLog(Registers& registers, Memory& memory, PhysicalAddress table, unsigned entries_lg2)
        : registers_(registers), memory_(memory), table_(table), entries_lg2_(entries_lg2) {}

    /// Call while the unit logs no events.
    void prepare() {
        head_ = 0;
        registers_.write64(reg::event_log, queue_register(table_, entries_lg2_));
        registers_.write64(reg::event_head, 0);
        registers_.write64(reg::event_tail, 0);
        registers_.write64(reg::status, status::event_overflow);
    }

    /// Calls each(record) for every event, oldest first, and removes them. Return: 1 if events were
    /// lost since the last call, else 0.
    [[nodiscard]] std::uint64_t take(FunctionRef<void(const fault::Record&)> each) {
        const std::uint64_t seen = registers_.read64(reg::event_tail);
        if ((seen & ~queue_offset) != 0)
            return 0; // a unit that is gone reads as all ones
        const std::uint64_t tail = seen & offset_mask();
        if (tail == head_)
            return 0;
        const bool is_full = ((tail - head_) & offset_mask()) == offset_mask();
        for (unsigned attempt = 0; head_ != tail; head_ = (head_ + entry_bytes) & offset_mask())
            if (const Event event = take_at(head_, attempt); code_of(event) != 0)
                each(decode(event));
        registers_.write64(reg::event_head, head_);
        return is_full && restart_after_overflow() ? 1 : 0;
    }

  private:
    static constexpr std::uint64_t entry_bytes = bit(queue_entry_lg2);

    /// A unit may advance the tail before the event is in memory: until then its code is 0.
    [[nodiscard]] Event take_at(std::uint64_t offset, unsigned& attempt) {
        Word* const words = memory_.words(table_) + offset / sizeof(Word);
        Event event = {load_word<Sync>(words[0]), 0};
        while (code_of(event) == 0 && registers_.relax(attempt++))
            event[0] = load_word<Sync>(words[0]);
        event[1] = load_word<Sync>(words[1]);
        store_word<Sync>(words[0], 0);
        return event;
    }

    /// The unit logs nothing between the overflow and the restart. Return: whether it overflowed.
    bool restart_after_overflow() {
        if ((registers_.read64(reg::status) & status::event_overflow) == 0)
            return false;
        registers_.write64(reg::control, control::on & ~control::event_log);
        registers_.write64(reg::status, status::event_overflow);
        registers_.write64(reg::control, control::on);
        return true;
    }

    /// Offsets of entries in the log.
    [[nodiscard]] std::uint64_t offset_mask() const {
        return low_bits(entries_lg2_ + queue_entry_lg2) & queue_offset;
    }

    Registers& registers_;
    Memory& memory_;
    const PhysicalAddress table_;
    const unsigned entries_lg2_;
    std::uint64_t head_ = 0; ///< the offset of the oldest event
};

} // namespace moat::iommu::amd
