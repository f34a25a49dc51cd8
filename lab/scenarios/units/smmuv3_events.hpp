// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped event queue of SMMUv3, with two entries, and a model of the unit that fills it.
// Source: IHI 0070, 3.5.1 "SMMU circular queues" and 7.4 "Event queue overflow".
#pragma once

#include "moat/iommu/smmuv3.hpp"

#include "lab/scenarios/units/model.hpp"

namespace moat::scenarios::units {

/// Two threads that each take the events `takes` times, and a unit that records `events`.
template <class Sync>
class SmmuEvents {
    using UnitRegisters =
        Registers<Sync, iommu::smmuv3::reg::event_queue, iommu::smmuv3::reg::event_producer,
                  iommu::smmuv3::reg::event_consumer, iommu::smmuv3::reg::errors,
                  iommu::smmuv3::reg::errors_acknowledged>;

  public:
    static explore::Program program(const Configuration& text) {
        const unsigned takes = number(text, "takes");
        const unsigned events = number(text, "events");
        return [takes, events](explore::Setup& setup) {
            auto& queue = setup.make<SmmuEvents>();
            for (unsigned i = 0; i != takers; ++i)
                setup.thread("taker", [&queue, takes] {
                    for (unsigned take = 0; take != takes; ++take)
                        queue.take();
                });
            setup.thread("unit", [&queue, events] { queue.run_unit(events); });
            setup.at_end([&queue] { queue.expect_complete(); });
        };
    }

    SmmuEvents() { events_.prepare(); }

    void take() {
        const auto each = [this](const fault::Record& record) {
            ExploredSync::check(record.where.start() == Iova(taken_++ << 12),
                                "an event is lost, or taken out of turn");
        };
        const ExclusiveLock lock(mutex_);
        reported_ += events_.take(each);
    }

    /// An event that finds the queue full is lost. The first since the driver's acknowledgement
    /// changes OVFLG.
    void run_unit(unsigned events) {
        namespace reg = iommu::smmuv3::reg;
        std::uint32_t producer = 0;
        for (; events != 0; --events) {
            const std::uint32_t consumer = registers_.read32(reg::event_consumer);
            if (((producer - consumer) & index_mask) != entries) {
                record(producer);
                producer = (producer & overflow) | ((producer + 1) & index_mask);
            } else if (((producer ^ consumer) & overflow) == 0) {
                producer ^= overflow;
                ++overflows_;
            } else {
                continue;
            }
            registers_.write32(reg::event_producer, producer);
        }
    }

    /// After all threads.
    void expect_complete() {
        take();
        ExploredSync::check(taken_ == recorded_, "an event is lost");
        ExploredSync::check(reported_ == overflows_, "an overflow is not reported, or twice");
    }

  private:
    static constexpr unsigned takers = 2;
    static constexpr unsigned entries_lg2 = 1;
    static constexpr std::uint32_t entries = 1U << entries_lg2;
    static constexpr std::uint32_t index_mask = 2 * entries - 1;
    static constexpr std::uint32_t overflow = 1U << 31;

    void record(std::uint32_t producer) {
        constexpr std::uint64_t translation = 0x10;
        Word* const words = memory_.words(queue_) + std::size_t{4} * (producer % entries);
        UnitStores(words[0]).store(translation, std::memory_order_relaxed);
        UnitStores(words[2]).store(recorded_++ << 12, std::memory_order_relaxed);
    }

    UnitRegisters registers_;
    ArenaTables memory_;
    typename Sync::Mutex mutex_; ///< as the unit's driver holds it during each call
    PhysicalAddress queue_ = *memory_.allocate(entries_lg2 + 5);
    iommu::smmuv3::EventQueue<UnitRegisters, ArenaTables, LoadsPlain<Sync>> events_{
        registers_, memory_, queue_, entries_lg2};
    std::uint64_t taken_ = 0;    ///< under the lock
    std::uint64_t reported_ = 0; ///< likewise
    std::uint64_t recorded_ = 0; ///< the unit's
    std::uint64_t overflows_ = 0;
};

} // namespace moat::scenarios::units
