// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An SMMUv3 and its domains: enabling and disabling, attaching streams to stage 1 tables,
// invalidations, events.
// Source: IHI 0070, 3.11 "Reset, Enable and initialization", 3.21 "Structure access rules and
// update procedures".
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/record.hpp"
#include "moat/iommu/detail/smmuv3_command_queue.hpp"
#include "moat/iommu/detail/smmuv3_event_queue.hpp"
#include "moat/iommu/detail/smmuv3_registers.hpp"
#include "moat/iommu/detail/smmuv3_streams.hpp"
#include "moat/iommu/detail/unit_domains.hpp"
#include "moat/iommu/detail/unit_invalidator.hpp"
#include "moat/iommu/detail/unit_tables.hpp"
#include "moat/iommu/table_domain.hpp"
#include "moat/page_table/invalidation.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/lock.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

namespace moat::iommu::smmuv3 {

struct UnitOptions {
    /// Streams with more bits are out of range: they reach nothing. 16: all of a PCI segment.
    unsigned stream_bits = 16;
    /// log2 of the event queue's entries, of 32 bytes; as far as the unit supports it.
    unsigned events_lg2 = 12;
    Coherence coherence = Coherence::reported;
};

/// Owns the unit from `open` on: translation is enabled, and an unattached stream reaches nothing.
/// A function's stream is its requester ID. Thread-safe. `Memory` is where the unit finds tables;
/// it outlives the unit. After an io error the unit is unusable: it is unknown what devices can
/// reach.
template <UnitRegisters Registers_, TableMemory Memory_, SyncPolicy Sync_>
class Unit : public UnitDomains<Sync_> {
  public:
    using Registers = Registers_;
    using Memory = Memory_;
    using Sync = Sync_;

    /// Disables translation and enables it again with its own tables, whatever the previous state.
    /// Errors: unsupported (not a unit; not coherent; no stage 1 tables of 4K; fixed tables),
    /// no_memory, io.
    static Result<std::unique_ptr<Unit>> open(Registers& registers, Memory& memory,
                                              UnitOptions options = {}) {
        const Capabilities capabilities(registers.read32(reg::idr0), registers.read32(reg::idr1),
                                        registers.read32(reg::idr3), registers.read32(reg::idr5));
        if (const auto good = check(registers, capabilities, options); !good)
            return std::unexpected(good.error());
        const Sizes sizes = {
            .streams_lg2 = std::min({options.stream_bits, capabilities.stream_bits(), 16U}),
            .events_lg2 = std::min(options.events_lg2, capabilities.most_events_lg2()),
            .commands_lg2 = std::min(8U, capabilities.most_commands_lg2())};
        const std::array<unsigned, own_tables> bytes_lg2 = {
            at_least_page(sizes.streams_lg2 + stream_lg2),
            at_least_page(sizes.events_lg2 + EventQueue::event_lg2), page_lg2};
        const auto tables = allocate_tables(memory, bytes_lg2);
        if (!tables)
            return std::unexpected(tables.error());
        std::unique_ptr<Unit> unit(
            new Unit(registers, memory, capabilities, sizes, *tables, bytes_lg2));
        if (const auto started = unit->start(); !started)
            return std::unexpected(started.error());
        return unit;
    }

    /// Disables translation: every device then reaches all of memory. No domain exists.
    ~Unit() {
        (void)set_control(0);
        for (std::size_t i = 0; i != own_tables; ++i)
            memory_.release(tables_[i], bytes_lg2_[i]);
    }

    Unit(const Unit&) = delete;
    Unit& operator=(const Unit&) = delete;

    [[nodiscard]] const Capabilities& capabilities() const { return capabilities_; }

    [[nodiscard]] Memory& memory() const { return memory_; }

    /// On return the stream's accesses go through the tables of `context`, a context descriptor.
    /// Errors: busy, out_of_range (beyond the stream table), io.
    [[nodiscard]] Result<void> attach(std::uint16_t requester, PhysicalAddress context) {
        const ExclusiveLock lock(mutex_);
        Word* const words = find_stream(requester);
        if (words == nullptr)
            return fail(ErrorCode::out_of_range, "the stream is beyond the SMMU's stream table",
                        {"requester", requester}, {"streams", std::uint64_t{1} << streams_lg2_});
        if ((words[0] & stream_valid) != 0)
            return fail(ErrorCode::busy, "the function is attached already",
                        {"requester", requester});
        const StreamEntry entry = stream_entry(context, capabilities_.stall_is_optional());
        store_word<Sync>(words[1], entry[1]);
        store_word<Sync>(words[0], entry[0]);
        return commands_.run({{forget_stream(requester)}});
    }

    /// On return the function reaches nothing. Errors: not_found, io.
    [[nodiscard]] Result<void> detach(std::uint16_t requester) {
        const ExclusiveLock lock(mutex_);
        Word* const words = find_stream(requester);
        if (words == nullptr || (words[0] & stream_valid) == 0)
            return fail(ErrorCode::not_found, "the function is attached to no domain",
                        {"requester", requester});
        store_word<Sync>(words[0], 0);
        return commands_.run({{forget_stream(requester)}});
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
        return commands_.run(std::span(commands).first(count));
    }

    /// Invalidates everything cached of a domain. Errors: io.
    [[nodiscard]] Result<void> invalidate_all(std::uint16_t domain) {
        const ExclusiveLock lock(mutex_);
        return commands_.run({{forget_address_space(domain)}});
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
    using UnitDomains<Sync>::mutex_;
    using CommandQueue = smmuv3::CommandQueue<Registers, Memory, Sync>;
    using EventQueue = smmuv3::EventQueue<Registers, Memory, Sync>;

    static constexpr unsigned page_lg2 = 12;
    static constexpr unsigned stream_lg2 = 6;
    static constexpr std::size_t own_tables = 3; ///< streams, events, commands
    static constexpr std::size_t most_commands = 16;

    struct Sizes {
        unsigned streams_lg2;
        unsigned events_lg2;
        unsigned commands_lg2;
    };

    Unit(Registers& registers, Memory& memory, Capabilities capabilities, Sizes sizes,
         const std::array<PhysicalAddress, own_tables>& tables,
         const std::array<unsigned, own_tables>& bytes_lg2)
        : UnitDomains<Sync>(capabilities.address_spaces()), registers_(registers), memory_(memory),
          capabilities_(capabilities), streams_lg2_(sizes.streams_lg2), tables_(tables),
          bytes_lg2_(bytes_lg2), commands_(registers, memory, tables[2], sizes.commands_lg2),
          events_(registers, memory, tables[1], sizes.events_lg2) {}

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
        if (const auto off = set_control(0); !off)
            return off;
        registers_.write32(reg::attributes, attributes_value);
        registers_.write32(reg::recording, recording_value);
        registers_.write64(reg::stream_table, tables_[0].value());
        registers_.write32(reg::stream_table_config, streams_lg2_); // linear
        // Acknowledges a command error of a previous owner.
        registers_.write32(reg::errors_acknowledged, registers_.read32(reg::errors));
        commands_.prepare();
        events_.prepare();
        if (const auto on = set_control(control::command_queue); !on)
            return on;
        constexpr std::array everything = {forget_streams(), forget_translations()};
        if (const auto done = commands_.run(everything); !done)
            return done;
        return set_control(control::command_queue | control::event_queue | control::translation);
    }

    /// Sets CR0, and waits until the unit acknowledges (6.3.9).
    Result<void> set_control(std::uint32_t value) {
        registers_.write32(reg::control, value);
        for (unsigned attempt = 0;; ++attempt) {
            const std::uint32_t seen = registers_.read32(reg::control_acknowledge);
            constexpr std::uint32_t used =
                control::translation | control::event_queue | control::command_queue;
            if ((seen & used) == value)
                return {};
            if (!registers_.relax(attempt))
                return fail(ErrorCode::io, "the SMMU ignored a register write", {"wanted", value},
                            {"seen", seen});
        }
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
        return memory_.words(tables_[0]) + (std::size_t{requester} << (stream_lg2 - 3));
    }

    Registers& registers_;
    Memory& memory_;
    const Capabilities capabilities_;
    const unsigned streams_lg2_;
    const std::array<PhysicalAddress, own_tables> tables_;
    const std::array<unsigned, own_tables> bytes_lg2_;
    CommandQueue commands_ MOAT_GUARDED_BY(mutex_);
    EventQueue events_ MOAT_GUARDED_BY(mutex_);
};

/// Threads may use it at the same time for ranges that do not overlap (PageTable). Its unit
/// outlives it; its functions are detached before. Unmapping part of a leaf of 2M or 1G is
/// refused: without FEAT_BBM level 2, splitting a live leaf lets accesses beside the range
/// fault. A write-only mapping can also be read.
template <class Unit_>
class Domain : public TableDomain<Tree<DeviceStage1, typename Unit_::Sync, typename Unit_::Memory>,
                                  UnitInvalidator<Unit_>> {
  public:
    using Unit = Unit_;
    using Format = DeviceStage1;
    using Types = Tree<Format, typename Unit::Sync, typename Unit::Memory>;
    using Base = TableDomain<Types, UnitInvalidator<Unit>>;
    static_assert(HardwareInvalidator<UnitInvalidator<Unit>>);

    /// Creates an empty domain. Errors: limit, no_memory.
    static Result<std::unique_ptr<Domain>> create(Unit& unit) {
        auto table = PageTable<Types>::create(unit.memory());
        if (!table)
            return std::unexpected(table.error());
        const auto context = unit.memory().allocate(Format::granule_lg2);
        if (!context)
            return std::unexpected(context.error());
        const auto number = unit.take_domain_number();
        if (!number) {
            unit.memory().release(*context, Format::granule_lg2);
            return std::unexpected(number.error());
        }
        return std::unique_ptr<Domain>(new Domain(unit, std::move(*table), *context, *number));
    }

    /// If the last invalidation fails, the number and the tables stay out of use until the unit
    /// ends.
    ~Domain() {
        Unit::Sync::barrier();
        if (unit_.invalidate_all(number_)) {
            unit_.give_domain_number_back(number_);
            unit_.memory().release(context_, Format::granule_lg2);
        } else {
            unit_.keep_until_end(
                std::make_shared<Kept>(unit_.memory(), context_, Base::take_table()));
        }
    }

    Domain(const Domain&) = delete;
    Domain& operator=(const Domain&) = delete;

    [[nodiscard]] std::uint16_t number() const { return number_; }

    /// On return the function's accesses go through this domain. Errors: busy (attached already),
    /// out_of_range (beyond the stream table), io.
    [[nodiscard]] Result<void> attach(std::uint16_t requester) {
        return unit_.attach(requester, context_);
    }

  private:
    /// What the unit may still read.
    struct Kept {
        Kept(typename Unit::Memory& from, PhysicalAddress descriptor, PageTable<Types> tables)
            : memory(from), context(descriptor), table(std::move(tables)) {}

        ~Kept() { memory.release(context, Format::granule_lg2); }

        Kept(const Kept&) = delete;
        Kept& operator=(const Kept&) = delete;

        typename Unit::Memory& memory;
        PhysicalAddress context;
        PageTable<Types> table;
    };

    Domain(Unit& unit, PageTable<Types> table, PhysicalAddress context, std::uint16_t number)
        : Base(std::move(table),
               {.aperture = {Iova(0), ByteCount(bit(input_bits<Format>()))},
                .leaf_sizes = leaf_sizes_of<Format>(),
                .known = read_write | Attributes::special | Attributes::uncached},
               {unit, number}),
          unit_(unit), context_(context), number_(number) {
        const ContextDescriptor descriptor =
            context_descriptor(Base::table().root().table, input_bits<Format>(),
                               unit.capabilities().output_size(), number);
        Word* const words = unit.memory().words(context);
        for (std::size_t i = 0; i != descriptor.size(); ++i)
            store_word<typename Unit::Sync>(words[i], descriptor[i]);
    }

    Unit& unit_;
    const PhysicalAddress context_;
    const std::uint16_t number_;
};

} // namespace moat::iommu::smmuv3
