// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A virtio-iommu and its domains: it keeps the mappings itself, and its driver asks for each of
// them by a request. A device forgets a domain without functions; the unit does not. Source:
// virtio 1.2, 3.1.1 "Driver Requirements: Device Initialization" and 5.13 "IOMMU Device".
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/function_ref.hpp"
#include "moat/core/result.hpp"
#include "moat/fault/record.hpp"
#include "moat/iommu/detail/unit_tables.hpp"
#include "moat/iommu/detail/virtio_queue.hpp"
#include "moat/iommu/detail/virtio_registers.hpp"
#include "moat/iommu/detail/virtio_request.hpp"
#include "moat/iommu/detail/virtio_request_queue.hpp"
#include "moat/iommu/domain.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/lock.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <span>
#include <utility>

namespace moat::iommu::virtio {

struct UnitOptions {
    Layout layout = {};
    /// Not translated: interrupt messages. They outlive the unit.
    std::span<const IovaRange> reserved = {};
};

/// Owns the device from `open` on: an unattached function reaches nothing. Thread-safe. `Memory` is
/// where the device finds the queues; it outlives the unit. After an io error the unit is unusable:
/// it is unknown what functions can reach.
template <UnitRegisters Registers_, TableMemory Memory_, SyncPolicy Sync_>
class Unit {
  public:
    using Registers = Registers_;
    using Memory = Memory_;
    using Sync = Sync_;

    /// Resets the device. Errors: unsupported (not such a device, or it lacks a feature),
    /// no_memory, io.
    static Result<std::unique_ptr<Unit>> open(Registers& registers, Memory& memory,
                                              const UnitOptions& options) {
        MOAT_LET(auto pages, allocate_tables(memory, std::array<unsigned, own_pages>{
                                                         page_lg2, page_lg2, page_lg2, page_lg2}));
        std::unique_ptr<Unit> unit(new Unit(registers, memory, options, std::move(pages)));
        MOAT_TRY(unit->start());
        return unit;
    }

    /// Resets the device: every function then reaches all of memory, or nothing, as the device
    /// chooses. No domain exists.
    ~Unit() { (void)reset(); }

    Unit(const Unit&) = delete;
    Unit& operator=(const Unit&) = delete;

    [[nodiscard]] const DomainLimits& limits() const { return limits_; }

    /// Return: the number of an empty domain. Errors: limit.
    [[nodiscard]] Result<std::uint32_t> create_domain() {
        const ExclusiveLock lock(mutex_);
        std::uint64_t number = first_domain_;
        for (const auto& [taken, _] : domains_) {
            if (taken != number)
                break;
            ++number;
        }
        if (number > last_domain_)
            return fail(ErrorCode::limit, "the IOMMU has no more domains",
                        {"domains", domains_.size()});
        domains_.try_emplace(static_cast<std::uint32_t>(number));
        return static_cast<std::uint32_t>(number);
    }

    /// Call after its functions are detached.
    void destroy_domain(std::uint32_t number) {
        const ExclusiveLock lock(mutex_);
        domains_.erase(number);
    }

    /// On return the function's accesses go through the domain. Errors: busy (attached already),
    /// not_found (the IOMMU does not bound this function), no_memory, io.
    [[nodiscard]] Result<void> attach(std::uint16_t requester, std::uint32_t number) {
        const ExclusiveLock lock(mutex_);
        if (attached_.contains(requester))
            return fail(ErrorCode::busy, "the function is attached already",
                        {"requester", requester});
        State& domain = domains_.at(number);
        MOAT_TRY(run(attach_request(number, requester)));
        attached_.emplace(requester, number);
        if (domain.functions++ != 0)
            return {};
        for (const auto& [start, each] : domain.mappings) {
            const IovaRange range(start, each.size);
            const auto done = run(map_request(number, range, each.memory, each.attributes));
            if (done)
                continue;
            const auto undone = detach_locked(requester);
            return undone ? done : undone;
        }
        return {};
    }

    /// On return the function reaches nothing. Errors: not_found, io.
    [[nodiscard]] Result<void> detach(std::uint16_t requester) {
        const ExclusiveLock lock(mutex_);
        return detach_locked(requester);
    }

    /// The range lies in limits(), and all are multiples of a page. Errors: overlap, no_memory, io.
    [[nodiscard]] Result<void> map(std::uint32_t number, IovaRange range, PhysicalAddress memory,
                                   Attributes attributes) {
        const ExclusiveLock lock(mutex_);
        State& domain = domains_.at(number);
        if (const auto [first, end] = domain.within(range); first != end)
            return fail(ErrorCode::overlap, "part of the range is mapped",
                        {"start", range.start().value()}, {"mapped", first->first.value()});
        if (domain.functions != 0)
            MOAT_TRY(run(map_request(number, range, memory, attributes)));
        domain.mappings.emplace(range.start(), Mapped{range.size(), memory, attributes});
        return {};
    }

    /// On return no access reaches what was mapped in the range. Errors: unsupported (part of a
    /// mapping), io.
    [[nodiscard]] Result<void> unmap(std::uint32_t number, IovaRange range) {
        const ExclusiveLock lock(mutex_);
        State& domain = domains_.at(number);
        const auto [first, end] = domain.within(range);
        if (first == end)
            return {};
        for (const auto& [start, each] : {*first, *std::prev(end)})
            if (!range.contains(IovaRange(start, each.size)))
                return fail(ErrorCode::unsupported, "the IOMMU unmaps whole mappings",
                            {"mapping", start.value()}, {"size", each.size.value()});
        if (domain.functions != 0)
            MOAT_TRY(run(unmap_request(number, range)));
        domain.mappings.erase(first, end);
        return {};
    }

    /// Passes on the recorded faults, oldest first, and clears them. Return: 1 if all buffers for
    /// reports were in use, so that later faults may be lost; the device does not count those.
    [[nodiscard]] std::uint64_t take_faults(FunctionRef<void(const fault::Record&)> each) {
        const ExclusiveLock lock(mutex_);
        unsigned taken = 0;
        for (auto used = reports_.take(); used; used = reports_.take()) {
            if (used->head < slots) {
                const auto head = static_cast<std::uint16_t>(used->head);
                if (used->bytes >= report_bytes)
                    each(decode_report(std::span<const Word, 3>(report(head), 3)));
                reports_.offer(head);
            }
            if (++taken == slots)
                break;
        }
        if (taken != 0)
            notify(report_queue);
        return taken == slots ? 1 : 0;
    }

  private:
    static constexpr unsigned page_lg2 = 12;
    static constexpr std::size_t own_pages = 4; ///< two queues, and their buffers
    static constexpr std::uint16_t request_queue = 0;
    static constexpr std::uint16_t report_queue = 1;
    static constexpr std::size_t report_words = 4;

    using Rings = Queue<Memory, Sync>;
    static constexpr unsigned slots = Rings::slots;

    struct Mapped {
        ByteCount size;
        PhysicalAddress memory;
        Attributes attributes;
    };

    /// A domain. The device knows its mappings while functions are attached.
    struct State {
        std::map<Iova, Mapped> mappings;
        unsigned functions = 0;

        /// The mappings that overlap the range.
        [[nodiscard]] auto within(IovaRange range) {
            auto first = mappings.upper_bound(range.start());
            if (first != mappings.begin()) {
                const auto before = std::prev(first);
                if (IovaRange(before->first, before->second.size).overlaps(range))
                    first = before;
            }
            return std::pair(first, mappings.upper_bound(range.last()));
        }
    };

    using Pages = std::array<UnitTable<Memory>, own_pages>;

    Unit(Registers& registers, Memory& memory, const UnitOptions& options, Pages pages)
        : registers_(registers), layout_(options.layout), pages_(std::move(pages)),
          requests_(registers, memory, pages_[0].where(), pages_[2].where()),
          reports_(memory, pages_[1].where()) {
        limits_.reserved = options.reserved;
        limits_.known = read_write;
    }

    [[nodiscard]] Word* report(std::uint16_t slot) const {
        return pages_[3].words() + report_words * slot;
    }

    Result<void> start() {
        const ExclusiveLock lock(mutex_);
        MOAT_TRY(reset());
        MOAT_TRY(negotiate());
        read_limits();
        if ((limits_.leaf_sizes & bit(page_lg2)) == 0)
            return fail(ErrorCode::unsupported, "the IOMMU does not map pages of 4K",
                        {"page_sizes", limits_.leaf_sizes});
        MOAT_TRY(enable(request_queue, requests_.rings()));
        MOAT_TRY(enable(report_queue, reports_));
        set_status(status::acknowledge | status::driver | status::features | status::running);
        for (std::uint16_t slot = 0; slot != slots; ++slot) {
            const ByteCount offset(report_words * sizeof(Word) * slot);
            reports_.describe(slot, {pages_[3].where() + offset, report_bytes, true});
            reports_.offer(slot);
        }
        notify(report_queue);
        registers_.write8(layout_.device + config::bypass, 0);
        if (registers_.read8(layout_.device + config::bypass) != 0)
            return fail(ErrorCode::io, "functions without a domain still bypass the IOMMU");
        return {};
    }

    /// 4.1.4.3: on return the device has forgotten everything.
    Result<void> reset() {
        set_status(0);
        for (unsigned attempt = 0;; ++attempt) {
            const unsigned now = registers_.read8(layout_.common + reg::status);
            if (now == 0)
                return {};
            if (!registers_.relax(attempt))
                return fail(ErrorCode::unsupported, "no virtio device at these registers",
                            {"status", now});
        }
    }

    Result<void> negotiate() {
        set_status(status::acknowledge | status::driver);
        std::uint64_t offered = 0;
        for (std::uint32_t half = 0; half != 2; ++half) {
            registers_.write32(layout_.common + reg::offered_select, half);
            offered |= std::uint64_t{registers_.read32(layout_.common + reg::offered)} << 32 * half;
        }
        constexpr std::uint64_t needed = features::version_1 | features::map | features::bypass;
        if ((offered & needed) != needed)
            return fail(ErrorCode::unsupported,
                        "the device is not a virtio-iommu that can block functions",
                        {"features", offered});
        accepted_ = offered & (needed | features::input_range | features::domain_range);
        for (std::uint32_t half = 0; half != 2; ++half) {
            registers_.write32(layout_.common + reg::accepted_select, half);
            registers_.write32(layout_.common + reg::accepted,
                               static_cast<std::uint32_t>(accepted_ >> 32 * half));
        }
        set_status(status::acknowledge | status::driver | status::features);
        if ((registers_.read8(layout_.common + reg::status) & status::features) == 0)
            return fail(ErrorCode::unsupported, "the device refuses the driver's features",
                        {"features", accepted_});
        return {};
    }

    void read_limits() {
        const std::uint64_t at = layout_.device;
        limits_.leaf_sizes = registers_.read64(at + config::page_sizes);
        std::uint64_t first = 0;
        std::uint64_t last = most_address;
        if ((accepted_ & features::input_range) != 0) {
            first = align_up(registers_.read64(at + config::first_input), page_lg2);
            last = std::min(last, registers_.read64(at + config::last_input));
        }
        if (first <= last)
            limits_.aperture = {Iova(first), ByteCount(align_down(last + 1, page_lg2) - first)};
        if ((accepted_ & features::domain_range) == 0)
            return;
        first_domain_ = registers_.read32(at + config::first_domain);
        last_domain_ = registers_.read32(at + config::last_domain);
    }

    Result<void> enable(std::uint16_t index, const Rings& queue) {
        const std::uint64_t at = layout_.common;
        registers_.write16(at + reg::queue_select, index);
        if (const unsigned most = registers_.read16(at + reg::queue_size); most < slots)
            return fail(ErrorCode::unsupported, "a queue of the device is too short",
                        {"queue", index}, {"slots", most});
        registers_.write16(at + reg::queue_size, slots);
        registers_.write64(at + reg::queue_descriptors, queue.descriptors().value());
        registers_.write64(at + reg::queue_available, queue.available().value());
        registers_.write64(at + reg::queue_used, queue.used().value());
        notify_offsets_[index] = registers_.read16(at + reg::queue_notify);
        registers_.write16(at + reg::queue_enable, 1);
        return {};
    }

    void set_status(unsigned value) {
        registers_.write8(layout_.common + reg::status, static_cast<std::uint8_t>(value));
    }

    void notify(std::uint16_t queue) {
        registers_.write16(layout_.notify +
                               std::uint64_t{notify_offsets_[queue]} * layout_.notify_multiplier,
                           queue);
    }

    Result<void> detach_locked(std::uint16_t requester) MOAT_REQUIRES(mutex_) {
        const auto found = attached_.find(requester);
        if (found == attached_.end())
            return fail(ErrorCode::not_found, "the function is attached to no domain",
                        {"requester", requester});
        MOAT_TRY(run(detach_request(found->second, requester)));
        --domains_.at(found->second).functions;
        attached_.erase(found);
        return {};
    }

    /// See RequestQueue::run.
    Result<void> run(const Request& request) MOAT_REQUIRES(mutex_) {
        return requests_.run(request, [this] { notify(request_queue); });
    }

    /// The highest address of devices that exist.
    static constexpr std::uint64_t most_address = low_bits(48);

    Registers& registers_;
    const Layout layout_;
    const Pages pages_;
    DomainLimits limits_;
    std::uint64_t accepted_ = 0; ///< features
    std::uint32_t first_domain_ = 0;
    std::uint32_t last_domain_ = ~std::uint32_t{0};
    std::array<std::uint16_t, 2> notify_offsets_ = {};
    typename Sync::Mutex mutex_;
    RequestQueue<Registers, Memory, Sync> requests_ MOAT_GUARDED_BY(mutex_);
    Rings reports_ MOAT_GUARDED_BY(mutex_);
    std::map<std::uint32_t, State> domains_ MOAT_GUARDED_BY(mutex_);
    std::map<std::uint16_t, std::uint32_t> attached_ MOAT_GUARDED_BY(mutex_);
};

/// Thread-safe. Its unit outlives it; its functions are detached before.
template <class Unit_>
class Domain {
  public:
    using Unit = Unit_;

    /// Creates an empty domain. Errors: limit.
    static Result<std::unique_ptr<Domain>> create(Unit& unit) {
        MOAT_LET(const auto number, unit.create_domain());
        return std::unique_ptr<Domain>(new Domain(unit, number));
    }

    ~Domain() { unit_.destroy_domain(number_); }

    Domain(const Domain&) = delete;
    Domain& operator=(const Domain&) = delete;

    [[nodiscard]] std::uint32_t number() const { return number_; }

    [[nodiscard]] const DomainLimits& limits() const { return unit_.limits(); }

    /// On return the function's accesses go through this domain. Errors: Unit::attach's.
    [[nodiscard]] Result<void> attach(std::uint16_t requester) {
        return unit_.attach(requester, number_);
    }

    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                   Attributes attributes) {
        MOAT_TRY(check(start, size, memory.value()));
        if (!has(limits().known, attributes))
            return fail(ErrorCode::unsupported,
                        "the IOMMU supports no attribute but read and write",
                        {"attributes", static_cast<std::uint64_t>(attributes)});
        return unit_.map(number_, IovaRange(start, size), memory, attributes);
    }

    /// Errors: unsupported also for a part of what one call mapped.
    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) {
        MOAT_TRY(check(start, size, 0));
        return unit_.unmap(number_, IovaRange(start, size));
    }

    /// Strict: the device answers an unmap when it has invalidated.
    [[nodiscard]] Result<void> unmap_deferred(Iova start, ByteCount size) {
        return unmap(start, size);
    }

    [[nodiscard]] Result<void> invalidate_all() { return {}; }

  private:
    Domain(Unit& unit, std::uint32_t number) : unit_(unit), number_(number) {}

    [[nodiscard]] Result<void> check(Iova start, ByteCount size, std::uint64_t memory) const {
        if (!is_aligned(start.value() | size.value() | memory, page_lg2))
            return fail(ErrorCode::unaligned, "mappings are multiples of 4K",
                        {"start", start.value()}, {"size", size.value()}, {"memory", memory});
        return check_limits(limits(), start, size);
    }

    static constexpr unsigned page_lg2 = 12;

    Unit& unit_;
    const std::uint32_t number_;
};

} // namespace moat::iommu::virtio
