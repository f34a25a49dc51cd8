// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Takes events from an SMMUv3's queue, whatever the unit or another writer of its memory put there.
// smmuv3.hpp owns the queue.
// Source: IHI 0070, 3.5.1 "SMMU circular queues" and 7.4 "Event queue overflow".
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/iommu/detail/smmuv3_event.hpp"
#include "moat/iommu/detail/smmuv3_registers.hpp"
#include "moat/iommu/detail/unit_tables.hpp"

#include <cstddef>
#include <cstdint>

namespace moat::iommu::smmuv3 {

/// Not thread-safe: the caller holds the unit's lock.
template <UnitRegisters Registers, TableMemory Memory, SyncPolicy Sync>
class EventQueue {
  public:
    static constexpr unsigned event_lg2 = 5;

    /// `table`: 2^(entries_lg2 + event_lg2) bytes.
    EventQueue(Registers& registers, Memory& memory, PhysicalAddress table, unsigned entries_lg2)
        : registers_(registers), memory_(memory), table_(table), entries_lg2_(entries_lg2) {}

    /// Call while the unit's queue is disabled and no error is active.
    void prepare() {
        consumer_ = 0;
        abort_ = registers_.read32(reg::errors) & event_queue_abort;
        registers_.write64(reg::event_queue, table_.value() | entries_lg2_);
        registers_.write32(reg::event_producer, 0);
        registers_.write32(reg::event_consumer, 0);
    }

    /// Calls each(record) for every event, oldest first, and removes them. Return: 1 if events were
    /// lost since the last call, else 0.
    [[nodiscard]] std::uint64_t take(FunctionRef<void(const fault::Record&)> each) {
        const std::uint32_t producer = registers_.read32(reg::event_producer);
        if ((producer & reserved) != 0)
            return 0; // a unit that is gone reads as all ones
        const bool aborted = acknowledge_abort();
        if (producer == consumer_)
            return aborted ? 1 : 0;
        std::uint32_t waiting = (producer - consumer_) & index_mask();
        // More than the queue holds: the unit's index is nonsense, and so is the oldest event's.
        if (waiting > size())
            waiting = size();
        for (; waiting != 0; --waiting)
            each(decode(event_at(producer - waiting)));
        const bool lost = ((producer ^ consumer_) & overflow) != 0;
        consumer_ = producer & (index_mask() | overflow);
        registers_.write32(reg::event_consumer, consumer_);
        return lost || aborted ? 1 : 0;
    }

  private:
    static constexpr std::uint32_t overflow = 1U << 31; ///< OVFLG; as written back, OVACKFLG
    static constexpr std::uint32_t reserved = 0x7ff00000;

    /// Until it is acknowledged, the unit writes no more events (7.2.1). Return: whether one was
    /// active: events were lost then (7.2.2). QEMU's unit reports a full queue so.
    bool acknowledge_abort() {
        const std::uint32_t now = registers_.read32(reg::errors) & event_queue_abort;
        if (now == abort_)
            return false;
        abort_ = now;
        const std::uint32_t others =
            registers_.read32(reg::errors_acknowledged) & ~event_queue_abort;
        registers_.write32(reg::errors_acknowledged, others | now);
        return true;
    }

    [[nodiscard]] Event event_at(std::uint32_t index) {
        Word* const words =
            memory_.words(table_) + (std::size_t{index & (size() - 1)} << (event_lg2 - 3));
        Event event;
        for (std::size_t i = 0; i != event.size(); ++i)
            event[i] = load_word<Sync>(words[i]);
        return event;
    }

    [[nodiscard]] std::uint32_t size() const { return 1U << entries_lg2_; }

    /// An index, and the wrap bit above it.
    [[nodiscard]] std::uint32_t index_mask() const { return 2 * size() - 1; }

    Registers& registers_;
    Memory& memory_;
    const PhysicalAddress table_;
    const unsigned entries_lg2_;
    std::uint32_t consumer_ = 0; ///< as last written
    std::uint32_t abort_ = 0;    ///< the bit as last acknowledged
};

} // namespace moat::iommu::smmuv3
