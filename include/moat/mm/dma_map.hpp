// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// DmaMap: ranges of an address space mapped for devices, with the semantics of VFIO's type1.
// The address space handles faults, the domain has the tables; detail/dma_fill.hpp maps one range.
// Source: Linux, include/uapi/linux/vfio.h (VFIO_IOMMU_MAP_DMA, _UNMAP_DMA, _DIRTY_PAGES).
#pragma once

#include "moat/iommu/domain.hpp"
#include "moat/mm/detail/dma_fill.hpp"
#include "moat/mm/detail/dma_mapping.hpp"
#include "moat/sync/lock.hpp"

#include <bit>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace moat::mm {

/// The errno that VFIO returns for an error of map_dma or unmap_dma.
[[nodiscard]] constexpr std::string_view errno_name(ErrorCode code) {
    switch (code) {
    case ErrorCode::overlap:
        return "EEXIST";
    case ErrorCode::not_found:
    case ErrorCode::refused:
    case ErrorCode::io:
        return "EFAULT";
    case ErrorCode::limit:
        return "ENOSPC";
    case ErrorCode::no_memory:
        return "ENOMEM";
    default:
        return "EINVAL";
    }
}

struct DmaMapLimits {
    std::uint64_t mappings = 65535;
    /// The limit of pinned RAM. RAM that is mapped twice counts twice; device memory does not
    /// count.
    ByteCount locked_bytes = ByteCount(std::numeric_limits<std::uint64_t>::max());
};

/// Result of a DMA map.
struct Mapped {
    std::uint64_t steps = 0; ///< leaves that were faulted in and mapped
    ByteCount pinned = {};   ///< of RAM
};

/// The source of dirty pages.
enum class DirtyTracking : std::uint8_t {
    hardware,          ///< the IOMMU's tables: pages written to since the last report
    everything_mapped, ///< no such bits: every writable page is always dirty
};

/// Thread-safe: all calls take one lock. Only this object may map in its domain. Space and domain
/// outlive it.
template <class Space, iommu::Domain Domain>
class DmaMap final : Notifier<typename Space::Sync> {
  public:
    using Sync = typename Space::Sync;
    using Region = DeviceRegion<Sync>;

    static constexpr DirtyTracking dirty_tracking = iommu::DirtyTrackingDomain<Domain>
                                                        ? DirtyTracking::hardware
                                                        : DirtyTracking::everything_mapped;

    DmaMap(Space& space, Domain& domain, const DmaMapLimits& limits = {})
        : space_(space), domain_(domain), limits_(limits) {
        space_.add_notifier(*this);
    }

    /// Unmaps all; a domain that fails to unmap fails a CHECK.
    ~DmaMap() override {
        space_.remove_notifier(*this);
        const Lock lock(mutex_);
        while (MappingNode* const mapping = mappings_.at_or_above(Iova(0)))
            if (!remove(*mapping))
                strand(*mapping);
    }

    /// Maps [address, address + size) at `iova`: faults in memory and pins RAM. All three are
    /// multiples of the domain's page. `permissions` are read, write or both. Where the process may
    /// write, this faults for writing even for a device that only reads: no zero page.
    /// Errors: EINVAL empty, unaligned, overflow, out_of_range, unsupported; EEXIST overlap; EFAULT
    /// not_found, refused, io (revoked); ENOSPC limit; ENOMEM no_memory (also the limit of locked
    /// memory). Nothing is mapped then, though memory may have been faulted in. If the domain fails
    /// to unmap the part before the error, this returns the domain's io and the mapping stays.
    Result<Mapped> map_dma(Iova iova, VirtualAddress address, ByteCount size,
                           Attributes permissions) {
        const Lock lock(mutex_);
        MOAT_TRY(check_map(iova, address, size, permissions));
        MappingNode* const mapping = Sync::template make<MappingNode>();
        if (mapping == nullptr)
            return fail(ErrorCode::no_memory, "no memory to record a mapping");
        mapping->range = IovaRange(iova, size);
        mapping->permissions = permissions;
        Fill<Space, Domain> fill(space_, domain_, *mapping, limits_.locked_bytes - pinned_);
        const Result<void> filled = fill.run(address);
        mappings_.insert(*mapping);
        pinned_ += fill.pinned();
        if (filled)
            return Mapped{fill.steps(), fill.pinned()};
        const Result<void> removed = remove(*mapping);
        return std::unexpected(removed ? filled.error() : removed.error());
    }

    /// Unmaps all mappings that lie in the range; holes are no error. On return no device reaches
    /// their memory. Return: the number of bytes unmapped. Errors: EINVAL empty, unaligned,
    /// overflow, mismatch (it would cut a mapping; nothing changes); io, if the domain
    /// failed: that mapping and those above it stay.
    Result<ByteCount> unmap_dma(Iova iova, ByteCount size) {
        const Lock lock(mutex_);
        MOAT_TRY(check_whole_mappings(iova, size));
        const IovaRange range(iova, size);
        ByteCount bytes;
        while (MappingNode* const mapping = mappings_.overlapping(range)) {
            const ByteCount gone = mapping->range.size();
            MOAT_TRY(remove(*mapping));
            bytes += gone;
        }
        return bytes;
    }

    /// Starts dirty tracking with all pages clean; dirty_pages() reports. Errors: the domain's.
    Result<void> start_dirty_tracking() {
        const Lock lock(mutex_);
        for (MappingNode* each = mappings_.at_or_above(Iova(0)); each != nullptr;
             each = mappings_.after(*each))
            MOAT_TRY(visit_dirty(*each, [](IovaRange) {}));
        tracks_dirty_ = true;
        return {};
    }

    void stop_dirty_tracking() {
        const Lock lock(mutex_);
        tracks_dirty_ = false;
    }

    /// Sets the bit of each page of the range that a device may have written to, the lowest page
    /// first, and marks them clean; other bits stay. With DirtySource::hardware a leaf is
    /// dirty as a whole. Errors: EINVAL unsupported (not started), empty, unaligned, overflow,
    /// mismatch (the range cuts a mapping, or the bitmap is shorter than the range).
    Result<void> dirty_pages(Iova iova, ByteCount size, std::span<std::uint64_t> bitmap) {
        const Lock lock(mutex_);
        if (!tracks_dirty_)
            return fail(ErrorCode::unsupported, "dirty tracking was not started");
        MOAT_TRY(check_whole_mappings(iova, size));
        const IovaRange range(iova, size);
        if (bitmap.size() < ((size.value() - 1) >> page_lg2()) / 64 + 1)
            return fail(ErrorCode::mismatch, "the bitmap has a bit for each page",
                        {"size", size.value()}, {"words", bitmap.size()});
        const auto set = [&](IovaRange dirty) { set_bits(range, dirty, bitmap); };
        for (MappingNode* each = mappings_.overlapping(range);
             each != nullptr && each->range.overlaps(range); each = mappings_.after(*each))
            MOAT_TRY(visit_dirty(*each, set));
        return {};
    }

    /// The pinned RAM that counts against the limit.
    [[nodiscard]] ByteCount pinned() const {
        const Lock lock(mutex_);
        return pinned_;
    }

    /// Memory that stays pinned because the domain failed to unmap it at a revocation: a device may
    /// still reach it. The destructor also strands memory that it cannot unmap.
    [[nodiscard]] ByteCount stranded() const {
        const Lock lock(mutex_);
        return stranded_;
    }

    [[nodiscard]] std::uint64_t mappings() const {
        const Lock lock(mutex_);
        return mappings_.count();
    }

  private:
    using Lock = ExclusiveLock<typename Sync::Mutex>;
    using MappingNode = DmaMapping<Sync>;
    using RunNode = Run<Sync>;

    /// No effect: RAM is pinned and device memory does not move, so mappings outlive leaves.
    void invalidated(const InvalidationRequest<VirtualAddress>&, Change) override {}

    /// A map that saw the region usable holds the lock until it is finished; a later map sees the
    /// revocation.
    void revoked(Region& region) override {
        const Lock lock(mutex_);
        for (MappingNode* each = mappings_.at_or_above(Iova(0)); each != nullptr;
             each = mappings_.after(*each))
            withdraw(*each, region);
    }

    /// The runs of `region` go.
    void withdraw(MappingNode& mapping, Region& region) MOAT_REQUIRES(mutex_) {
        RunNode* previous = nullptr;
        RunNode** link = &mapping.first;
        while (RunNode* const run = *link) {
            if (run->region != &region) {
                previous = run;
                link = &run->next;
                continue;
            }
            const bool unmapped = domain_.unmap(run->start, run->size()).has_value();
            *link = run->next;
            if (unmapped)
                release(*run, mapping.permissions);
            else
                strand(*run);
        }
        mapping.last = previous;
    }

    [[nodiscard]] unsigned page_lg2() const {
        const auto smallest = static_cast<unsigned>(std::countr_zero(domain_.limits().leaf_sizes));
        return smallest > frame_lg2 ? smallest : frame_lg2;
    }

    [[nodiscard]] Result<void> check_range(Iova iova, ByteCount size) const {
        if (size == ByteCount(0))
            return fail(ErrorCode::empty, "the range has no length", {"iova", iova.value()});
        if (!is_aligned(iova.value() | size.value(), page_lg2()))
            return fail(ErrorCode::unaligned, "the range is not aligned to the domain's pages",
                        {"iova", iova.value()}, {"size", size.value()});
        MOAT_TRY(IovaRange::make(iova, size));
        return {};
    }

    [[nodiscard]] Result<void> check_map(Iova iova, VirtualAddress address, ByteCount size,
                                         Attributes permissions) const MOAT_REQUIRES(mutex_) {
        MOAT_TRY(check_range(iova, size));
        if (!is_aligned(address.value(), page_lg2()))
            return fail(ErrorCode::unaligned, "the address is not aligned to the domain's pages",
                        {"address", address.value()});
        MOAT_TRY(VirtualRange::make(address, size));
        if (permissions == Attributes::none || !has(read_write, permissions))
            return fail(ErrorCode::unsupported, "a device reads, writes or both",
                        {"permissions", static_cast<std::uint32_t>(permissions)});
        const IovaRange range(iova, size);
        if (const MappingNode* const there = mappings_.overlapping(range))
            return fail(ErrorCode::overlap, "a mapping has a part of the range",
                        {"iova", iova.value()}, {"size", size.value()},
                        {"mapped_at", there->range.start().value()},
                        {"mapped_size", there->range.size().value()});
        if (mappings_.count() >= limits_.mappings)
            return fail(ErrorCode::limit, "the limit of mappings is reached",
                        {"most", limits_.mappings});
        if (!iommu::check_limits(domain_.limits(), iova, size))
            return fail(ErrorCode::out_of_range, "the range is reserved, or the domain ends before",
                        {"iova", iova.value()}, {"size", size.value()});
        return {};
    }

    /// A good range, and no mapping lies across an end of it.
    [[nodiscard]] Result<void> check_whole_mappings(Iova iova, ByteCount size) const
        MOAT_REQUIRES(mutex_) {
        MOAT_TRY(check_range(iova, size));
        const IovaRange range(iova, size);
        for (const Iova end : {range.start(), range.last()})
            if (const MappingNode* const there = mappings_.overlapping({end, ByteCount(1)});
                there != nullptr && !range.contains(there->range))
                return fail(ErrorCode::mismatch, "a mapping lies in the range in part",
                            {"iova", iova.value()}, {"size", size.value()},
                            {"mapped_at", there->range.start().value()},
                            {"mapped_size", there->range.size().value()});
        return {};
    }

    /// Out of the domain, then out of the list. An error changed nothing here.
    [[nodiscard]] Result<void> remove(MappingNode& mapping) MOAT_REQUIRES(mutex_) {
        if (mapping.first != nullptr)
            if (const auto unmapped = domain_.unmap(mapping.range.start(), mapping.range.size());
                !unmapped)
                return fail(ErrorCode::io, "the domain could not unmap",
                            {"iova", mapping.range.start().value()});
        for (RunNode* run = mapping.first; run != nullptr;) {
            if (run->region == nullptr)
                pinned_ = pinned_ - run->size();
            release(*std::exchange(run, run->next), mapping.permissions);
        }
        mappings_.erase(mapping);
        Sync::destroy(&mapping);
        return {};
    }

    /// Gives a run's memory back. What a device may have written to is dirty: the whole block,
    /// whose first frame is the one that reports look at.
    void release(RunNode& run, Attributes permissions) {
        using FrameType = Frame<Sync>;
        auto& memory = space_.memory();
        const bool counted = memory.frame(run.physical) != nullptr;
        for (std::uint64_t i = 0; counted && i != run.parts; ++i) {
            const PhysicalAddress part = run.physical + ByteCount(run.part.value() * i);
            if (has(permissions, Attributes::write))
                memory.counted_frame(part)->flags.fetch_or(FrameType::dirty,
                                                           std::memory_order_relaxed);
            memory.drop(part);
        }
        Sync::destroy(&run);
    }

    /// Leaves memory pinned that the domain could not unmap: a device may still reach it.
    void strand(RunNode& run) MOAT_REQUIRES(mutex_) {
        stranded_ += run.size();
        Sync::destroy(&run);
    }

    void strand(MappingNode& mapping) MOAT_REQUIRES(mutex_) {
        for (RunNode* run = mapping.first; run != nullptr;)
            strand(*std::exchange(run, run->next));
        mappings_.erase(mapping);
        Sync::destroy(&mapping);
    }

    template <class Visit>
    [[nodiscard]] Result<void> visit_dirty(const MappingNode& mapping, const Visit& visit) {
        if (!has(mapping.permissions, Attributes::write))
            return {};
        if constexpr (dirty_tracking == DirtyTracking::hardware) {
            return domain_.clear_dirty(
                mapping.range.start(), mapping.range.size(),
                [&](Iova start, ByteCount size) { visit(IovaRange(start, size)); });
        } else {
            for (const RunNode* run = mapping.first; run != nullptr; run = run->next)
                visit(run->range());
            return {};
        }
    }

    /// `dirty` lies in `range`.
    void set_bits(IovaRange range, IovaRange dirty, std::span<std::uint64_t> bitmap) const {
        const std::uint64_t first = (dirty.start() - range.start()).value() >> page_lg2();
        const std::uint64_t last = (dirty.last() - range.start()).value() >> page_lg2();
        for (std::uint64_t word = first / 64; word <= last / 64; ++word) {
            const std::uint64_t from = word == first / 64 ? first % 64 : 0;
            const std::uint64_t to = word == last / 64 ? last % 64 : 63;
            bitmap[word] |= (~std::uint64_t{0} >> (63 - to)) & (~std::uint64_t{0} << from);
        }
    }

    Space& space_;
    Domain& domain_;
    const DmaMapLimits limits_;
    /// Taken before any lock of the space, and under its revokes_mutex.
    mutable typename Sync::Mutex mutex_;
    DmaMappingTree<Sync> mappings_ MOAT_GUARDED_BY(mutex_);
    ByteCount pinned_ MOAT_GUARDED_BY(mutex_) = ByteCount(0);
    ByteCount stranded_ MOAT_GUARDED_BY(mutex_) = ByteCount(0);
    bool tracks_dirty_ MOAT_GUARDED_BY(mutex_) = false;
};

} // namespace moat::mm
