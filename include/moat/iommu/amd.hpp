// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An AMD IOMMU and its domains: enabling and disabling, attaching functions to host (v1) tables,
// invalidations, events.
// Source: 48882, 2.2 (tables), 2.4 "Commands", 2.5 "Event Logging".
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/record.hpp"
#include "moat/iommu/detail/amd_command_buffer.hpp"
#include "moat/iommu/detail/amd_device_table.hpp"
#include "moat/iommu/detail/amd_event_log.hpp"
#include "moat/iommu/detail/amd_registers.hpp"
#include "moat/iommu/detail/device_tlbs.hpp"
#include "moat/iommu/detail/unit_domain.hpp"
#include "moat/iommu/detail/unit_driver.hpp"
#include "moat/iommu/detail/unit_tables.hpp"
#include "moat/page_table/formats/amd_v1.hpp"
#include "moat/page_table/invalidation.hpp"
#include "moat/page_table/table_memory.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

namespace moat::iommu::amd {

struct UnitOptions {
    /// Functions with more bits are out of range: they reach nothing. 16: all of a PCI segment, as
    /// QEMU's unit needs, which does not check the table's length.
    unsigned device_bits = 16;
    /// log2 of the event log's entries, of 16 bytes: 8 to 15.
    unsigned events_lg2 = 12;
    /// NpCache of the capability in its configuration space (3.2.1): whether it caches absent
    /// entries, so that new mappings need an invalidation.
    bool caches_absent = true;
    /// IotlbSup of the same capability: whether functions may cache translations (ATS).
    bool serves_device_tlbs = false;
    /// false: device-TLBs keep translations that were unmapped. For tests.
    bool invalidates_device_tlbs = true;
};

/// Owns the unit from `open` on: translation is enabled, and an unattached function reaches
/// nothing. Thread-safe. `Memory` is where the unit finds tables; it outlives the unit. After an io
/// error the unit is unusable: it is unknown what devices can reach.
template <UnitRegisters Registers, TableMemory Memory, SyncPolicy Sync>
class Unit : public UnitDriver<Registers, Memory, Sync, 4> {
    using Base = UnitDriver<Registers, Memory, Sync, 4>;

  public:
    /// Disables translation and enables it again with its own tables, whatever the previous state.
    /// Errors: unsupported (not a unit; it cannot invalidate everything), no_memory, io.
    static Result<std::unique_ptr<Unit>> open(Registers& registers, Memory& memory,
                                              UnitOptions options = {}) {
        const std::uint64_t word = registers.read64(reg::features);
        if (word == 0 || word == ~std::uint64_t{0})
            return fail(ErrorCode::unsupported, "no AMD IOMMU at these registers",
                        {"features", word});
        if (!Features(word).invalidates_all())
            return fail(ErrorCode::unsupported, "the IOMMU has no INVALIDATE_IOMMU_ALL",
                        {"features", word});
        options.device_bits = std::clamp(options.device_bits, page_lg2 - device_entry_lg2, 16U);
        options.events_lg2 =
            std::clamp(options.events_lg2, fewest_queue_entries_lg2, most_queue_entries_lg2);
        // The tables of devices, events, commands and the completion.
        return Base::template open_with<Unit>(registers, memory,
                                              {options.device_bits + device_entry_lg2,
                                               options.events_lg2 + queue_entry_lg2, page_lg2,
                                               page_lg2},
                                              Features(word), options);
    }

    /// Disables translation: every device then reaches all of memory. No domain exists.
    ~Unit() { (void)set_control(0); }

    [[nodiscard]] const Features& features() const { return features_; }

    /// Whether functions may be attached with a device-TLB.
    [[nodiscard]] bool serves_device_tlbs() const { return options_.serves_device_tlbs; }

    /// On return the function's accesses go through the tables below `root`; `tlb` is enabled after
    /// that. Errors: unsupported (device-TLBs), busy, out_of_range (beyond the device table), io.
    [[nodiscard]] Result<void> attach(std::uint16_t requester, Root root, std::uint16_t domain,
                                      std::optional<DeviceTlb> tlb = {}) {
        if (tlb && !serves_device_tlbs())
            return fail(ErrorCode::unsupported, "the IOMMU does not serve functions' caches",
                        {"requester", requester});
        const ExclusiveLock lock(mutex_);
        Word* const words = find_device(requester);
        if (words == nullptr)
            return fail(ErrorCode::out_of_range, "the function is beyond the IOMMU's device table",
                        {"requester", requester}, {"devices", bit(options_.device_bits)});
        if (words[0] != blocked_device[0])
            return fail(ErrorCode::busy, "the function is attached already",
                        {"requester", requester});
        const DeviceEntry entry = translated_device(root, domain, tlb.has_value());
        store_word<Sync>(words[1], entry[1]);
        store_word<Sync>(words[0], entry[0]);
        if (tlb)
            tlbs_.add({requester, domain, tlb->queue_depth});
        return commands_.run({{forget_device(requester)}});
    }

    /// On return the function reaches nothing, and its device-TLB is empty: disable it then.
    /// Errors: not_found, io.
    [[nodiscard]] Result<void> detach(std::uint16_t requester) {
        const ExclusiveLock lock(mutex_);
        Word* const words = find_device(requester);
        if (words == nullptr || words[0] == blocked_device[0])
            return fail(ErrorCode::not_found, "the function is attached to no domain",
                        {"requester", requester});
        const auto domain = static_cast<std::uint16_t>(words[1]);
        store_word<Sync>(words[0], blocked_device[0]);
        store_word<Sync>(words[1], blocked_device[1]);
        const auto tlb = tlbs_.take(requester);
        MOAT_TRY(commands_.run({{forget_device(requester), forget_domain(domain)}}));
        return tlb ? run_in_function(*tlb, every_address) : Result<void>();
    }

    /// Invalidates `requests` in one batch: on return no earlier translation is in use, and
    /// accesses that used one are complete. Errors: io.
    [[nodiscard]] Result<void> invalidate(std::uint16_t domain,
                                          std::span<const InvalidationRequest<Iova>> requests) {
        const ExclusiveLock lock(mutex_);
        return run_in_domain(domain, ranges_or_all(requests, most_commands));
    }

    /// Invalidates everything cached of a domain. Errors: io.
    [[nodiscard]] Result<void> invalidate_all(std::uint16_t domain) {
        const ExclusiveLock lock(mutex_);
        return run_in_domain(domain, every_address);
    }

    /// Call after filling an absent entry: invalidates if the unit caches absent entries. Errors:
    /// io.
    [[nodiscard]] Result<void> added(std::uint16_t domain, InvalidationRequest<Iova> request) {
        if (!options_.caches_absent)
            return {};
        return invalidate(domain, {&request, 1});
    }

    /// Passes on the recorded faults, oldest first, and clears them. Return: how often the log
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
    using CommandBuffer = amd::CommandBuffer<Registers, Memory, Sync>;
    using EventLog = amd::EventLog<Registers, Memory, Sync>;

    static constexpr unsigned page_lg2 = 12;
    static constexpr std::size_t most_commands = 16;
    static constexpr unsigned domain_numbers = 1U << 16;

    Unit(typename Base::Parts parts, Features features, UnitOptions options)
        : Base(std::move(parts), domain_numbers), features_(features), options_(options),
          commands_(registers_, memory_, tables_[2].where(), tables_[3].where()),
          events_(registers_, memory_, tables_[1].where(), options.events_lg2) {}

    Result<void> start() {
        const ExclusiveLock lock(mutex_);
        MOAT_TRY(set_control(0));
        for (std::uint64_t device = 0; device != bit(options_.device_bits); ++device)
            store_word<Sync>(*find_device(static_cast<std::uint16_t>(device)), blocked_device[0]);
        const std::uint64_t pages = bit(options_.device_bits + device_entry_lg2 - page_lg2);
        registers_.write64(reg::device_table, tables_[0].where().value() | (pages - 1));
        registers_.write64(reg::exclusion, 0);
        commands_.prepare();
        events_.prepare();
        MOAT_TRY(set_control(control::on));
        return commands_.run({{forget_everything()}});
    }

    /// Waits until the unit runs commands and logs events, or neither (2.4: while it runs commands,
    /// its registers may not change).
    Result<void> set_control(std::uint64_t value) {
        registers_.write64(reg::control, value);
        constexpr std::uint64_t runs = status::runs_commands | status::logs_events;
        const std::uint64_t wanted = value == 0 ? 0 : runs;
        return this->wait_for(runs, wanted, [this] { return registers_.read64(reg::status); });
    }

    /// Invalidates the IOTLB first: otherwise a function could fetch the old translation again.
    Result<void> run_in_domain(std::uint16_t domain,
                               std::span<const InvalidationRequest<Iova>> ranges)
        MOAT_REQUIRES(mutex_) {
        std::array<Command, most_commands> commands;
        std::ranges::transform(ranges, commands.begin(), [&](const auto& each) {
            return forget_pages(domain, each.start, each.last,
                                each.cached == CachedEntries::leaves);
        });
        MOAT_TRY(commands_.run(std::span(commands).first(ranges.size())));
        if (options_.invalidates_device_tlbs)
            for (const DeviceTlbs::Attached& each : tlbs_.of(domain))
                MOAT_TRY(run_in_function(each, ranges));
        return {};
    }

    Result<void> run_in_function(const DeviceTlbs::Attached& tlb,
                                 std::span<const InvalidationRequest<Iova>> ranges)
        MOAT_REQUIRES(mutex_) {
        std::array<Command, most_commands> commands;
        std::ranges::transform(ranges, commands.begin(), [&](const auto& each) {
            return forget_in_function(tlb.requester, tlb.queue_depth, each.start, each.last);
        });
        return commands_.run(std::span(commands).first(ranges.size()));
    }

    [[nodiscard]] Word* find_device(std::uint16_t requester) const {
        if (requester >> options_.device_bits != 0)
            return nullptr;
        return tables_[0].words() + (std::size_t{requester} << (device_entry_lg2 - 3));
    }

    const Features features_;
    const UnitOptions options_;
    CommandBuffer commands_ MOAT_GUARDED_BY(mutex_);
    EventLog events_ MOAT_GUARDED_BY(mutex_);
    DeviceTlbs tlbs_ MOAT_GUARDED_BY(mutex_);
};

template <class Unit, unsigned Levels = 4>
    requires(Levels >= 3 && Levels <= 5)
class Domain : public UnitDomain<Unit, formats::AmdV1<FlagUpdate::none, Levels>> {
    using Base = UnitDomain<Unit, formats::AmdV1<FlagUpdate::none, Levels>>;

  public:
    using typename Base::Format;

    /// Creates an empty domain. Errors: unsupported (the unit has no tables of so many levels),
    /// limit, no_memory.
    static Result<std::unique_ptr<Domain>> create(Unit& unit) {
        if (Levels > unit.features().most_levels())
            return fail(ErrorCode::unsupported, "the IOMMU does not support this number of levels",
                        {"levels", Levels});
        return Base::template create_with<Domain>(unit, {});
    }

    /// On return the function's accesses go through this domain; `tlb` is enabled after that.
    /// Errors: unsupported (device-TLBs), busy (attached already), out_of_range (beyond the device
    /// table), io.
    [[nodiscard]] Result<void> attach(std::uint16_t requester, std::optional<DeviceTlb> tlb = {}) {
        return this->unit_.attach(requester, this->table().root(), this->number_, tlb);
    }

  private:
    friend Base;

    /// Interrupt messages, and HyperTransport's special addresses (2.1.2, table 3).
    static constexpr std::array<IovaRange, 2> reserved = {
        IovaRange(Iova(0xfee00000), ByteCount(0x100000)),
        IovaRange(Iova(0xfd'0000'0000), ByteCount(0x3'0000'0000))};

    /// Some units misread leaves of 512G (formats/amd_v1.hpp).
    static constexpr std::uint64_t leaf_sizes = leaf_sizes_of<Format>() & low_bits(39);

    explicit Domain(typename Base::Parts parts)
        : Base({.aperture = {Iova(0), ByteCount(bit(input_bits<Format>()))},
                .reserved = reserved,
                .leaf_sizes = leaf_sizes,
                .known = read_write | Attributes::special | Attributes::snoop},
               std::move(parts)) {}
};

} // namespace moat::iommu::amd
