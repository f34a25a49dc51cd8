// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An SMMUv3 and its domains: enabling and disabling, attaching streams to stage 1 tables,
// invalidations, events.
// Source: IHI 0070, 3.9.1 "ATS Interface", 3.11 "Reset, Enable and initialization", 3.21 "Structure
// access rules and update procedures".
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/record.hpp"
#include "moat/iommu/detail/device_tlbs.hpp"
#include "moat/iommu/detail/smmuv3_command_queue.hpp"
#include "moat/iommu/detail/smmuv3_event_queue.hpp"
#include "moat/iommu/detail/smmuv3_registers.hpp"
#include "moat/iommu/detail/smmuv3_streams.hpp"
#include "moat/iommu/detail/unit_domain.hpp"
#include "moat/iommu/detail/unit_driver.hpp"
#include "moat/iommu/detail/unit_tables.hpp"
#include "moat/page_table/invalidation.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/lock.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

namespace moat::iommu::smmuv3 {

struct UnitOptions {
    /// Streams with more bits are out of range: they reach nothing. 16: all of a PCI segment.
    unsigned stream_bits = 16;
    /// log2 of the event queue's entries, of 32 bytes; as far as the unit supports it.
    unsigned events_lg2 = 12;
    Coherence coherence = Coherence::reported;
    /// false: device-TLBs keep translations that were unmapped. For tests.
    bool invalidates_device_tlbs = true;
};

/// Owns the unit from `open` on: translation is enabled, and an unattached stream reaches nothing.
/// A function's stream is its requester ID. Thread-safe. `Memory` is where the unit finds tables;
/// it outlives the unit. After an io error the unit is unusable: it is unknown what devices can
/// reach.
template <UnitRegisters Registers, TableMemory Memory, SyncPolicy Sync>
class Unit : public UnitDriver<Registers, Memory, Sync, 3> {
    using Base = UnitDriver<Registers, Memory, Sync, 3>;

  public:
    /// Disables translation and enables it again with its own tables, whatever the previous state.
    /// Errors: unsupported (not a unit; not coherent; no stage 1 tables of 4K; fixed tables),
    /// no_memory, io.
    static Result<std::unique_ptr<Unit>> open(Registers& registers, Memory& memory,
                                              UnitOptions options = {}) {
        const Capabilities capabilities(registers.read32(reg::idr0), registers.read32(reg::idr1),
                                        registers.read32(reg::idr3), registers.read32(reg::idr5));
        MOAT_TRY(check(registers, capabilities, options));
        const Sizes sizes = {
            .streams_lg2 = std::min({options.stream_bits, capabilities.stream_bits(), 16U}),
            .events_lg2 = std::min(options.events_lg2, capabilities.most_events_lg2()),
            .commands_lg2 = std::min(8U, capabilities.most_commands_lg2())};
        // The tables of streams, events and commands.
        return Base::template open_with<Unit>(
            registers, memory,
            {at_least_page(sizes.streams_lg2 + stream_lg2),
             at_least_page(sizes.events_lg2 + EventQueue::event_lg2), page_lg2},
            capabilities, sizes, options.invalidates_device_tlbs);
    }

    /// Disables translation: every device then reaches all of memory. No domain exists.
    ~Unit() { (void)set_control(0); }

    [[nodiscard]] const Capabilities& capabilities() const { return capabilities_; }

    /// Whether functions may be attached with a device-TLB.
    [[nodiscard]] bool serves_device_tlbs() const { return capabilities_.serves_device_tlbs(); }

    /// On return the stream's accesses go through the tables of `context`, a context descriptor of
    /// `domain`; `tlb` is enabled after that. Errors: unsupported (device-TLBs), busy, out_of_range
    /// (beyond the stream table), io.
    [[nodiscard]] Result<void> attach(std::uint16_t requester, PhysicalAddress context,
                                      std::uint16_t domain, std::optional<DeviceTlb> tlb = {}) {
        if (tlb && !serves_device_tlbs())
            return fail(ErrorCode::unsupported, "the SMMU does not serve functions' caches",
                        {"requester", requester});
        const ExclusiveLock lock(mutex_);
        Word* const words = find_stream(requester);
        if (words == nullptr)
            return fail(ErrorCode::out_of_range, "the stream is beyond the SMMU's stream table",
                        {"requester", requester}, {"streams", std::uint64_t{1} << streams_lg2_});
        if ((words[0] & stream_valid) != 0)
            return fail(ErrorCode::busy, "the function is attached already",
                        {"requester", requester});
        const StreamEntry entry =
            stream_entry(context, capabilities_.stall_is_optional(), tlb.has_value());
        store_word<Sync>(words[1], entry[1]);
        store_word<Sync>(words[0], entry[0]);
        if (tlb)
            tlbs_.add({requester, domain, tlb->queue_depth});
        return commands_.run({{forget_stream(requester)}});
    }

    /// On return the function reaches nothing, and its device-TLB is empty: disable it then.
    /// Errors: not_found, io.
    [[nodiscard]] Result<void> detach(std::uint16_t requester) {
        const ExclusiveLock lock(mutex_);
        Word* const words = find_stream(requester);
        if (words == nullptr || (words[0] & stream_valid) == 0)
            return fail(ErrorCode::not_found, "the function is attached to no domain",
                        {"requester", requester});
        store_word<Sync>(words[0], 0);
        const auto tlb = tlbs_.take(requester);
        MOAT_TRY(commands_.run({{forget_stream(requester)}}));
        return tlb ? run_in_function(*tlb, every_address) : Result<void>();
    }

    /// Invalidates `requests` in one batch: on return no earlier translation is in use, and
    /// accesses that used one are complete. Errors: io.
    [[nodiscard]] Result<void> invalidate(std::uint16_t domain,
                                          std::span<const InvalidationRequest<Iova>> requests) {
        std::array<Command, most_commands> commands;
        std::size_t count = 0;
        bool fits = true;
        for (const auto& each : requests)
            fits = fits && append_pages(commands, count, domain, each);
        if (!fits) {
            commands[0] = forget_address_space(domain);
            count = 1;
        }
        const ExclusiveLock lock(mutex_);
        return run_in_domain(domain, std::span(commands).first(count),
                             ranges_or_all(requests, most_commands));
    }

    /// Invalidates everything cached of a domain. Errors: io.
    [[nodiscard]] Result<void> invalidate_all(std::uint16_t domain) {
        const ExclusiveLock lock(mutex_);
        return run_in_domain(domain, {{forget_address_space(domain)}}, every_address);
    }

    /// Does nothing: like a processor's, an SMMU's TLB holds no invalid entries.
    [[nodiscard]] static Result<void> added(std::uint16_t /*domain*/,
                                            const InvalidationRequest<Iova>& /*request*/) {
        return {};
    }

    /// Passes on the recorded faults, oldest first, and clears them. Return: how often the queue
    /// overflowed since the last call: at least so many faults were lost.
    [[nodiscard]] std::uint64_t take_faults(FunctionRef<void(const fault::Record&)> each) {
        const ExclusiveLock lock(mutex_);
        return events_.take(each);
    }

  private:
    friend Base;
    using Base::memory_;
    using Base::mutex_;
    using Base::registers_;
    using Base::tables_;
    using CommandQueue = smmuv3::CommandQueue<Registers, Memory, Sync>;
    using EventQueue = smmuv3::EventQueue<Registers, Memory, Sync>;

    static constexpr unsigned page_lg2 = 12;
    static constexpr unsigned stream_lg2 = 6;
    static constexpr std::size_t most_commands = 16;

    struct Sizes {
        unsigned streams_lg2;
        unsigned events_lg2;
        unsigned commands_lg2;
    };

    Unit(typename Base::Parts parts, Capabilities capabilities, Sizes sizes,
         bool invalidates_device_tlbs)
        : Base(std::move(parts), capabilities.address_spaces()), capabilities_(capabilities),
          streams_lg2_(sizes.streams_lg2), invalidates_device_tlbs_(invalidates_device_tlbs),
          commands_(registers_, memory_, tables_[2].where(), sizes.commands_lg2),
          events_(registers_, memory_, tables_[1].where(), sizes.events_lg2) {}

    static constexpr unsigned at_least_page(unsigned bytes_lg2) {
        return bytes_lg2 < page_lg2 ? page_lg2 : bytes_lg2;
    }

    static Result<void> check(Registers& registers, Capabilities capabilities,
                              const UnitOptions& options) {
        const std::uint32_t idr0 = registers.read32(reg::idr0);
        if (idr0 == 0 || idr0 == ~std::uint32_t{0})
            return fail(ErrorCode::unsupported, "no SMMUv3 at these registers", {"idr0", idr0});
        if (!capabilities.has_stage1() || !capabilities.has_4k_tables())
            return fail(ErrorCode::unsupported, "the SMMU has no stage 1 tables of 4K",
                        {"idr0", idr0});
        if (options.coherence == Coherence::reported && !capabilities.is_coherent())
            return fail(ErrorCode::unsupported, "the SMMU does not snoop the processors' caches");
        if (capabilities.places_are_fixed())
            return fail(ErrorCode::unsupported, "the SMMU's tables or queues have fixed addresses");
        if (capabilities.most_commands_lg2() == 0)
            return fail(ErrorCode::unsupported, "the SMMU's command queue has one entry");
        return {};
    }

    Result<void> start() {
        const ExclusiveLock lock(mutex_);
        MOAT_TRY(set_control(0));
        registers_.write32(reg::attributes, attributes_value);
        registers_.write32(reg::recording, recording_value);
        registers_.write64(reg::stream_table, tables_[0].where().value());
        registers_.write32(reg::stream_table_config, streams_lg2_); // linear
        // Acknowledges a command error of a previous owner.
        registers_.write32(reg::errors_acknowledged, registers_.read32(reg::errors));
        commands_.prepare();
        events_.prepare();
        MOAT_TRY(set_control(control::command_queue));
        constexpr std::array everything = {forget_streams(), forget_translations()};
        MOAT_TRY(commands_.run(everything));
        return set_control(control::command_queue | control::event_queue | control::translation |
                           (serves_device_tlbs() ? control::checks_translated : 0));
    }

    /// Sets CR0, and waits until the unit acknowledges (6.3.9).
    Result<void> set_control(std::uint32_t value) {
        registers_.write32(reg::control, value);
        constexpr std::uint32_t used = control::translation | control::event_queue |
                                       control::command_queue | control::checks_translated;
        return this->wait_for(used, value,
                              [this] { return registers_.read32(reg::control_acknowledge); });
    }

    /// Invalidates the TLB first: otherwise a function could fetch the old translation again.
    Result<void> run_in_domain(std::uint16_t domain, std::span<const Command> commands,
                               std::span<const InvalidationRequest<Iova>> ranges)
        MOAT_REQUIRES(mutex_) {
        MOAT_TRY(commands_.run(commands));
        if (invalidates_device_tlbs_)
            for (const DeviceTlbs::Attached& each : tlbs_.of(domain))
                MOAT_TRY(run_in_function(each, ranges));
        return {};
    }

    Result<void> run_in_function(const DeviceTlbs::Attached& tlb,
                                 std::span<const InvalidationRequest<Iova>> ranges)
        MOAT_REQUIRES(mutex_) {
        std::array<Command, most_commands> commands;
        std::ranges::transform(ranges, commands.begin(), [&](const auto& each) {
            return forget_in_function(tlb.requester, each.start, each.last);
        });
        return commands_.run(std::span(commands).first(ranges.size()));
    }

    /// One command per page, or per run of pages where the unit has them. Return: false if they do
    /// not fit.
    bool append_pages(std::array<Command, most_commands>& commands, std::size_t& count,
                      std::uint16_t domain, const InvalidationRequest<Iova>& request) const {
        std::uint64_t page = request.start.value() >> page_lg2;
        const std::uint64_t last = request.last.value() >> page_lg2;
        if (last < page)
            return false; // not a range: the caller invalidates everything
        const bool leaves_only = request.cached == CachedEntries::leaves;
        for (std::uint64_t left = last - page + 1; left != 0;) {
            if (count == most_commands)
                return false;
            const Iova start(page << page_lg2);
            std::uint64_t covered = 1;
            if (capabilities_.invalidates_ranges()) {
                const auto scale = static_cast<unsigned>(std::min(std::countr_zero(left), 31));
                const auto pages = static_cast<unsigned>((left >> scale) % 32);
                covered = std::uint64_t{pages} << scale;
                if (pages == 0)
                    return false; // 2^36 pages or more
                commands[count++] = forget_pages(domain, start, pages, scale, leaves_only);
            } else {
                commands[count++] = forget_page(domain, start, leaves_only);
            }
            page += covered;
            left -= covered;
        }
        return true;
    }

    [[nodiscard]] Word* find_stream(std::uint16_t requester) const {
        if (requester >> streams_lg2_ != 0)
            return nullptr;
        return tables_[0].words() + (std::size_t{requester} << (stream_lg2 - 3));
    }

    const Capabilities capabilities_;
    const unsigned streams_lg2_;
    const bool invalidates_device_tlbs_;
    CommandQueue commands_ MOAT_GUARDED_BY(mutex_);
    EventQueue events_ MOAT_GUARDED_BY(mutex_);
    DeviceTlbs tlbs_ MOAT_GUARDED_BY(mutex_);
};

/// Unmapping part of a leaf of 2M or 1G is refused: without FEAT_BBM level 2, splitting a live leaf
/// lets accesses beside the range fault. A write-only mapping can also be read.
template <class Unit>
class Domain : public UnitDomain<Unit, DeviceStage1, UnitTable<typename Unit::Memory>> {
    using Base = UnitDomain<Unit, DeviceStage1, UnitTable<typename Unit::Memory>>;

  public:
    using typename Base::Format;

    /// Creates an empty domain. Errors: limit, no_memory.
    static Result<std::unique_ptr<Domain>> create(Unit& unit) {
        MOAT_LET(auto context,
                 UnitTable<typename Unit::Memory>::allocate(unit.memory(), Format::granule_lg2));
        return Base::template create_with<Domain>(unit, std::move(context));
    }

    /// On return the function's accesses go through this domain; `tlb` is enabled after that.
    /// Errors: unsupported (device-TLBs), busy (attached already), out_of_range (beyond the stream
    /// table), io.
    [[nodiscard]] Result<void> attach(std::uint16_t requester, std::optional<DeviceTlb> tlb = {}) {
        return this->unit_.attach(requester, this->rest_.where(), this->number_, tlb);
    }

  private:
    friend Base;

    explicit Domain(typename Base::Parts parts)
        : Base({.aperture = {Iova(0), ByteCount(bit(input_bits<Format>()))},
                .leaf_sizes = leaf_sizes_of<Format>(),
                .known = read_write | Attributes::special | Attributes::uncached},
               std::move(parts)) {
        const ContextDescriptor descriptor =
            context_descriptor(this->table().root().table, input_bits<Format>(),
                               this->unit_.capabilities().output_size(), this->number_);
        Word* const words = this->rest_.words();
        for (std::size_t i = 0; i != descriptor.size(); ++i)
            store_word<typename Unit::Sync>(words[i], descriptor[i]);
    }
};

} // namespace moat::iommu::smmuv3
