// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A VT-d remapping unit in legacy mode and its domains: enabling and disabling, attaching functions
// to second-stage tables, invalidations, faults.
// Source: VT-d, 3.4 "Device to Domain Mapping", 6.5 "Invalidation", 7.3 "Fault Recording".
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/record.hpp"
#include "moat/iommu/detail/device_tlbs.hpp"
#include "moat/iommu/detail/unit_domain.hpp"
#include "moat/iommu/detail/unit_driver.hpp"
#include "moat/iommu/detail/unit_tables.hpp"
#include "moat/iommu/detail/vtd_fault_record.hpp"
#include "moat/iommu/detail/vtd_invalidation_port.hpp"
#include "moat/iommu/detail/vtd_registers.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/invalidation.hpp"
#include "moat/page_table/page_table.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/lock.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

namespace moat::iommu::vtd {

struct UnitOptions {
    /// By default the queue, if the unit has one.
    std::optional<InvalidateBy> invalidate_by = {};
    Coherence coherence = Coherence::reported;
    /// false: device-TLBs keep translations that were unmapped. For tests.
    bool invalidates_device_tlbs = true;
};

/// Owns the unit from `open` on: translation is enabled, and an unattached function reaches
/// nothing. Thread-safe. `Memory` is where the unit finds tables; it outlives the unit. After an io
/// error the unit is unusable: it is unknown what devices can reach.
template <UnitRegisters Registers, TableMemory Memory, SyncPolicy Sync>
class Unit : public UnitDriver<Registers, Memory, Sync, 3> {
    using Base = UnitDriver<Registers, Memory, Sync, 3>;

  public:
    /// Disables translation and enables it again with its own tables, whatever the previous state.
    /// Errors: unsupported (not a unit; not coherent; no such way to invalidate), no_memory, io.
    static Result<std::unique_ptr<Unit>> open(Registers& registers, Memory& memory,
                                              UnitOptions options = {}) {
        const std::uint32_t version = registers.read32(reg::version);
        const Capabilities capabilities(registers.read64(reg::capability),
                                        registers.read64(reg::extended_capability));
        if (version == 0 || version == ~std::uint32_t{0})
            return fail(ErrorCode::unsupported, "no VT-d unit at these registers",
                        {"version", version});
        if (options.coherence == Coherence::reported && !capabilities.walks_coherently())
            return fail(ErrorCode::unsupported, "the unit does not snoop the processors' caches");
        const InvalidateBy by = options.invalidate_by.value_or(
            capabilities.has_queue() ? InvalidateBy::queue : InvalidateBy::registers);
        if (by == InvalidateBy::queue && !capabilities.has_queue())
            return fail(ErrorCode::unsupported, "the unit has no queue of invalidations");
        // The root table, the queue and the completion.
        return Base::template open_with<Unit>(registers, memory, {page_lg2, page_lg2, page_lg2},
                                              capabilities, by, options.invalidates_device_tlbs);
    }

    /// Disables translation: every device then reaches all of memory. No domain exists.
    ~Unit() {
        (void)command_off(global::translation);
        (void)command_off(global::queue);
    }

    [[nodiscard]] const Capabilities& capabilities() const { return capabilities_; }

    /// Whether functions may be attached with a device-TLB.
    [[nodiscard]] bool serves_device_tlbs() const {
        return capabilities_.serves_device_tlbs() && invalidates_by_queue_;
    }

    /// On return the function's accesses go through the tables below `root`; `tlb` is enabled after
    /// that. Errors: unsupported (levels, device-TLBs), unaligned (the table), busy (attached
    /// already), no_memory, io.
    [[nodiscard]] Result<void> attach(std::uint16_t requester, Root root, std::uint16_t domain,
                                      std::optional<DeviceTlb> tlb = {}) {
        if (tlb && !serves_device_tlbs())
            return fail(ErrorCode::unsupported, "the unit does not serve functions' caches",
                        {"requester", requester});
        if (!capabilities_.has_levels(root.levels))
            return fail(ErrorCode::unsupported, "the unit does not support this number of levels",
                        {"levels", root.levels});
        if (!is_aligned(root.table.value(), page_lg2))
            return fail(ErrorCode::unaligned, "a table must be aligned to a page",
                        {"table", root.table.value()});
        const ExclusiveLock lock(mutex_);
        MOAT_LET(const auto entry, context_entry(requester));
        Word* const words = entry;
        if ((words[0] & present) != 0)
            return fail(ErrorCode::busy, "the function is attached already",
                        {"requester", requester});
        store_word<Sync>(words[1], std::uint64_t{domain} << 8 | (root.levels - 2));
        store_word<Sync>(words[0], root.table.value() | (tlb ? serves_device : 0) | present);
        if (tlb)
            tlbs_.add({requester, domain, tlb->queue_depth});
        if (!capabilities_.caches_absent())
            return flush_write_buffer();
        // Such a unit caches absent entries under domain number 0 (6.1).
        const std::array commands = {context_of(requester, 0), iotlb_of(domain)};
        return run(commands);
    }

    /// On return the function reaches nothing, and its device-TLB is empty: disable it then.
    /// Errors: not_found, io.
    [[nodiscard]] Result<void> detach(std::uint16_t requester) {
        const ExclusiveLock lock(mutex_);
        Word* const words = find_context_entry(requester);
        if (words == nullptr || (words[0] & present) == 0)
            return fail(ErrorCode::not_found, "the function is attached to no domain",
                        {"requester", requester});
        const auto domain = static_cast<std::uint16_t>(words[1] >> 8);
        store_word<Sync>(words[0], 0);
        store_word<Sync>(words[1], 0);
        const std::array commands = {context_of(requester, domain), iotlb_of(domain)};
        MOAT_TRY(run(commands));
        return forget_device_tlb(requester);
    }

    /// Invalidates `requests` in one batch: on return no earlier translation is in use, and
    /// accesses that used one are complete. Errors: io.
    [[nodiscard]] Result<void> invalidate(std::uint16_t domain,
                                          std::span<const InvalidationRequest<Iova>> requests) {
        std::array<Command, most_commands> commands;
        std::size_t count = 0;
        bool fits = capabilities_.invalidates_pages();
        for (const auto& each : requests)
            fits = fits && append_pages(commands, count, domain, each);
        if (!fits) {
            commands[0] = iotlb_of(domain);
            count = 1;
        }
        const ExclusiveLock lock(mutex_);
        return run_in_domain(domain, std::span(commands).first(count));
    }

    /// Invalidates everything cached of a domain. Errors: io.
    [[nodiscard]] Result<void> invalidate_all(std::uint16_t domain) {
        const ExclusiveLock lock(mutex_);
        return run_in_domain(domain, {{iotlb_of(domain)}});
    }

    /// Call after filling an absent entry: invalidates if the unit caches absent entries, and
    /// flushes writes if it buffers them. Errors: io.
    [[nodiscard]] Result<void> added(std::uint16_t domain, InvalidationRequest<Iova> request) {
        if (capabilities_.caches_absent())
            return invalidate(domain, {&request, 1});
        if (!capabilities_.flushes_write_buffer())
            return {};
        const ExclusiveLock lock(mutex_);
        return flush_write_buffer();
    }

    /// Passes on the recorded faults, oldest first, and clears them. Return: how often the records
    /// overflowed since the last call: at least so many faults were lost.
    [[nodiscard]] std::uint64_t take_faults(FunctionRef<void(const fault::Record&)> each) {
        const ExclusiveLock lock(mutex_);
        const std::uint32_t status = registers_.read32(reg::fault_status);
        if ((status & (fault_bits::pending | fault_bits::overflow)) == 0)
            return 0;
        const unsigned count = capabilities_.fault_record_count();
        const unsigned first = (status >> 8 & 0xff) % count;
        for (unsigned i = 0; i != count; ++i) {
            const unsigned at = capabilities_.fault_records() + 16 * ((first + i) % count);
            const std::uint64_t high = registers_.read64(at + 8);
            if ((high & fault_bits::set) == 0)
                break; // the unit fills them in order
            each(decode(registers_.read64(at), high));
            registers_.write64(at + 8, fault_bits::set);
        }
        if ((status & fault_bits::overflow) == 0)
            return 0;
        registers_.write32(reg::fault_status, fault_bits::overflow);
        return 1;
    }

  private:
    friend Base;
    using Base::memory_;
    using Base::mutex_;
    using Base::registers_;
    using Base::tables_;

    static constexpr unsigned page_lg2 = 12;
    static constexpr std::size_t most_commands = 16;
    static constexpr Word present = bit(0);
    static constexpr Word serves_device =
        bit(2); ///< translates for the function's cache, too (9.3)

    Unit(typename Base::Parts parts, Capabilities capabilities, InvalidateBy by,
         bool invalidates_device_tlbs)
        : Base(std::move(parts), capabilities.domains()), capabilities_(capabilities),
          invalidates_by_queue_(by == InvalidateBy::queue),
          invalidates_device_tlbs_(invalidates_device_tlbs),
          port_(registers_, memory_, capabilities, by, tables_[1].where(), tables_[2].where()) {}

    Result<void> start() {
        const ExclusiveLock lock(mutex_);
        for (const std::uint32_t each : {global::translation, global::queue})
            MOAT_TRY(command_off(each));
        registers_.write64(reg::root_table, tables_[0].where().value());
        MOAT_TRY(command_on(global::root_pointer));
        if (port_.uses_queue()) {
            port_.prepare_queue();
            MOAT_TRY(command_on(global::queue));
        }
        constexpr std::array everything = {Command{.cache = Command::Cache::context},
                                           Command{.cache = Command::Cache::iotlb}};
        MOAT_TRY(run(everything));
        return command_on(global::translation);
    }

    /// Sets a bit of the global command, and waits until the status has it (11.4.4).
    Result<void> command_on(std::uint32_t wanted) {
        const std::uint32_t status = registers_.read32(reg::global_status);
        registers_.write32(reg::global_command, (status & global::kept) | wanted);
        return wait_for_status(wanted, wanted);
    }

    Result<void> command_off(std::uint32_t unwanted) {
        const std::uint32_t status = registers_.read32(reg::global_status);
        if ((status & unwanted) == 0)
            return {};
        registers_.write32(reg::global_command, status & global::kept & ~unwanted);
        return wait_for_status(unwanted, 0);
    }

    Result<void> wait_for_status(std::uint32_t mask, std::uint32_t wanted) {
        return this->wait_for(mask, wanted,
                              [this] { return registers_.read32(reg::global_status); });
    }

    Result<void> flush_write_buffer() {
        if (!capabilities_.flushes_write_buffer())
            return {};
        const std::uint32_t status = registers_.read32(reg::global_status);
        registers_.write32(reg::global_command, (status & global::kept) | global::write_buffer);
        return wait_for_status(global::write_buffer, 0);
    }

    Result<void> run(std::span<const Command> commands) MOAT_REQUIRES(mutex_) {
        MOAT_TRY(flush_write_buffer());
        return port_.run(commands);
    }

    /// Invalidates the IOTLB first: otherwise a device could fetch the old translation again.
    Result<void> run_in_domain(std::uint16_t domain, std::span<const Command> commands)
        MOAT_REQUIRES(mutex_) {
        MOAT_TRY(run(commands));
        if (invalidates_device_tlbs_)
            for (const DeviceTlbs::Attached& each : tlbs_.of(domain))
                MOAT_TRY(run_in_device(each, commands));
        return {};
    }

    Result<void> run_in_device(const DeviceTlbs::Attached& tlb, std::span<const Command> commands)
        MOAT_REQUIRES(mutex_) {
        std::array<Command, most_commands> own;
        std::size_t count = 0;
        for (Command each : commands) {
            each.cache = Command::Cache::device_tlb;
            each.requester = tlb.requester;
            each.queue_depth = tlb.queue_depth;
            own.at(count++) = each;
        }
        return run(std::span(own).first(count));
    }

    Result<void> forget_device_tlb(std::uint16_t requester) MOAT_REQUIRES(mutex_) {
        const auto tlb = tlbs_.take(requester);
        return tlb ? run_in_device(*tlb, {{iotlb_of(tlb->domain)}}) : Result<void>();
    }

    static Command context_of(std::uint16_t requester, std::uint16_t domain) {
        return {.cache = Command::Cache::context,
                .reach = Command::Reach::narrow,
                .domain = domain,
                .requester = requester};
    }

    static Command iotlb_of(std::uint16_t domain) {
        return {.reach = Command::Reach::domain, .domain = domain};
    }

    /// One command per aligned block of the range. Return: false if they do not fit.
    bool append_pages(std::array<Command, most_commands>& commands, std::size_t& count,
                      std::uint16_t domain, const InvalidationRequest<Iova>& request) const {
        std::uint64_t page = request.start.value() >> page_lg2;
        const std::uint64_t last = request.last.value() >> page_lg2;
        if (last < page)
            return false; // not a range: the caller invalidates everything
        for (;;) {
            if (count == most_commands)
                return false;
            const std::uint64_t left = last - page + 1;
            const unsigned aligned = alignment_lg2(page | bit(capabilities_.most_pages_lg2()));
            const unsigned pages_lg2 = aligned < floor_lg2(left) ? aligned : floor_lg2(left);
            commands[count++] = {.reach = Command::Reach::narrow,
                                 .domain = domain,
                                 .pages = Iova(page << page_lg2),
                                 .pages_lg2 = pages_lg2,
                                 .leaves_only = request.cached == CachedEntries::leaves};
            if (left == bit(pages_lg2))
                return true;
            page += bit(pages_lg2);
        }
    }

    /// Creates its context table if there is none.
    Result<Word*> context_entry(std::uint16_t requester) MOAT_REQUIRES(mutex_) {
        Word& root = tables_[0].words()[2 * (requester >> 8)];
        if ((root & present) == 0) {
            MOAT_LET(auto table, UnitTable<Memory>::allocate(memory_, page_lg2));
            store_word<Sync>(root, table.where().value() | present);
            context_tables_.push_back(std::move(table));
        }
        return find_context_entry(requester);
    }

    [[nodiscard]] Word* find_context_entry(std::uint16_t requester) const {
        const Word root = tables_[0].words()[2 * (requester >> 8)];
        if ((root & present) == 0)
            return nullptr;
        return memory_.words(PhysicalAddress(align_down(root, page_lg2))) + 2 * (requester & 0xff);
    }

    const Capabilities capabilities_;
    const bool invalidates_by_queue_;
    const bool invalidates_device_tlbs_;
    InvalidationPort<Registers, Memory, Sync> port_ MOAT_GUARDED_BY(mutex_);
    std::vector<UnitTable<Memory>> context_tables_ MOAT_GUARDED_BY(mutex_);
    DeviceTlbs tlbs_ MOAT_GUARDED_BY(mutex_);
};

template <class Unit, unsigned Levels>
class Domain : public UnitDomain<Unit, formats::VtdSecondStage<Levels>> {
    using Base = UnitDomain<Unit, formats::VtdSecondStage<Levels>>;

  public:
    using typename Base::Format;

    /// Creates an empty domain. Errors: unsupported (the unit has no tables of so many levels),
    /// limit, no_memory.
    static Result<std::unique_ptr<Domain>> create(Unit& unit) {
        if (!unit.capabilities().has_levels(Levels))
            return fail(ErrorCode::unsupported, "the unit does not support this number of levels",
                        {"levels", Levels});
        return Base::template create_with<Domain>(unit, {});
    }

    /// On return the function's accesses go through this domain; `tlb` is enabled after that.
    /// Errors: unsupported (device-TLBs), busy (attached already), no_memory, io.
    [[nodiscard]] Result<void> attach(std::uint16_t requester, std::optional<DeviceTlb> tlb = {}) {
        return this->unit_.attach(requester, this->table().root(), this->number_, tlb);
    }

  private:
    friend Base;

    /// Requests there are interrupt messages, which are not translated (3.14).
    static constexpr std::array<IovaRange, 1> reserved = {
        IovaRange(Iova(0xfee00000), ByteCount(0x100000))};

    explicit Domain(typename Base::Parts parts)
        : Base{limits_of(parts.unit.capabilities()), std::move(parts)} {}

    static DomainLimits limits_of(const Capabilities& unit) {
        const unsigned bits =
            unit.address_bits() < input_bits<Format>() ? unit.address_bits() : input_bits<Format>();
        return {.aperture = {Iova(0), ByteCount(bit(bits))},
                .reserved = reserved,
                .leaf_sizes = unit.leaf_sizes(),
                .known = read_write | Attributes::special |
                         (unit.snoop_control() ? Attributes::snoop : Attributes::none)};
    }
};

} // namespace moat::iommu::vtd
