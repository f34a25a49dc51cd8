// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// ExactBuffer: the state of a mapping that is watched to the byte: the bytes that the CPU owns,
// what the device was given, and its bounce pages. It copies bytes and finds wrong ones;
// buffer_watch.hpp calls and reports.
#pragma once

#include "moat/core/range.hpp"
#include "moat/core/result.hpp"
#include "moat/dma/detail/bounce_pages.hpp"
#include "moat/dma/detail/cpu_watch.hpp"
#include "moat/dma/detail/range_set.hpp"
#include "moat/dma/memory.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <utility>

namespace moat::dma {

/// The smallest range that holds every byte found. Offsets are relative to the buffer's first byte,
/// negative before it.
struct FoundBytes {
    std::int64_t first = 0;
    std::int64_t last = 0;

    /// As device addresses of a mapping that begins at `start`.
    [[nodiscard]] IovaRange at(Iova start) const {
        return {Iova(start.value() + static_cast<std::uint64_t>(first)),
                ByteCount(static_cast<std::uint64_t>(last - first) + 1)};
    }

    static void extend(std::optional<FoundBytes>& found, std::int64_t byte) {
        found = found ? FoundBytes{std::min(found->first, byte), std::max(found->last, byte)}
                      : FoundBytes{byte, byte};
    }
};

/// Errors found since the last check.
struct BufferFindings {
    std::optional<FoundBytes> cpu_wrote = {};    ///< while the device owned the bytes
    std::optional<FoundBytes> missing_sync = {}; ///< the device's bytes that the CPU never took
    std::optional<FoundBytes> red_zone = {};     ///< outside the buffer
};

/// Ownership follows the DMA API's rules: the device owns every byte after mapping, sync_for_cpu
/// passes bytes to the CPU, sync_for_device returns them, unmapping ends it. Three copies show who
/// wrote: the driver's memory, the bounce pages that the device reaches, and the common content of
/// both at the last change of owner. Without bounce pages the device writes the memory itself; then
/// only buffers that it may not write (to_device) have the third copy.
///
/// Thread-safe; shared by threads that sync or unmap.
template <SyncPolicy Sync>
class ExactBuffer {
  public:
    /// `bounce` is empty, or as long as `memory`, between red zones that fill whole pages of
    /// `page_bytes`. `watch`: forbid the CPU bytes that the device owns and may write. Return:
    /// nullptr without memory.
    [[nodiscard]] static std::shared_ptr<ExactBuffer>
    create(const Memory& memory, const Memory& bounce, Direction direction,
           std::uint64_t page_bytes, CpuWatch watch) {
        try {
            return std::make_shared<ExactBuffer>(memory, bounce, direction, page_bytes, watch);
        } catch (const std::bad_alloc&) {
            return nullptr;
        }
    }

    /// Internal to `create`. Throws std::bad_alloc.
    ExactBuffer(const Memory& memory, const Memory& bounce, Direction direction,
                std::uint64_t page_bytes, CpuWatch watch)
        : memory_(memory.bytes), bounce_(bounce), direction_(direction), page_bytes_(page_bytes),
          watch_(device_writes() ? watch : CpuWatch::off) {
        if (bounced() == device_writes()) {
            copy_ = std::make_unique_for_overwrite<std::byte[]>(memory_.size());
            handed_ = copy_.get();
        } else if (bounced()) {
            handed_ = bounce_.bytes.data();
        }
        hand_over(0, memory_.size() - 1);
        cpu_watch::forbid(watch_, memory_);
    }

    ExactBuffer(const ExactBuffer&) = delete;
    ExactBuffer& operator=(const ExactBuffer&) = delete;

    ~ExactBuffer() {
        if (!over_)
            cpu_watch::allow(watch_, memory_);
    }

    [[nodiscard]] std::span<std::byte> memory() const { return memory_; }

    /// The device's copy of the buffer; empty if the device reaches the memory itself.
    [[nodiscard]] const Memory& bounce() const { return bounce_; }

    /// sync_for_cpu of [offset, offset + size), not empty and inside the buffer. On return the CPU
    /// owns the bytes, and the memory has what the device wrote there, except bytes that the CPU
    /// changed since it took them. Errors: no_memory; the device keeps the bytes.
    [[nodiscard]] Result<BufferFindings> take(std::uint64_t offset, std::uint64_t size) {
        const ExclusiveLock lock(mutex_);
        BufferFindings found;
        if (over_)
            return found;
        reported_missing_sync_ = false;
        cpu_watch::allow(watch_, memory_.subspan(offset, size));
        fetch(offset, offset + size - 1, found);
        check_red_zones(found);
        try {
            cpu_owned_.add(offset, offset + size - 1);
        } catch (const std::bad_alloc&) {
            return no_memory();
        }
        return found;
    }

    /// sync_for_device of the same: on return the device owns the bytes and finds what the CPU
    /// wrote there. Bytes that it owned before keep what it wrote, unless the CPU wrote them too.
    /// Errors: no_memory; the CPU keeps the bytes.
    [[nodiscard]] Result<BufferFindings> give(std::uint64_t offset, std::uint64_t size) {
        const ExclusiveLock lock(mutex_);
        BufferFindings found;
        if (over_)
            return found;
        const bool cpu_looked = !cpu_owned_.empty() || reported_missing_sync_;
        const std::span<std::byte> part = memory_.subspan(offset, size);
        cpu_watch::allow(watch_, part);
        const std::uint64_t last = offset + size - 1;
        for (std::uint64_t at = offset; at <= last;) {
            const RangeSet::Piece piece = cpu_owned_.piece_from(at, last);
            if (piece.inside || !bounced())
                hand_over(at, piece.last);
            else
                hand_over_changes(at, piece.last, found);
            at = piece.last + 1;
        }
        if (cpu_looked)
            found.missing_sync.reset();
        reported_missing_sync_ = reported_missing_sync_ || found.missing_sync;
        try {
            cpu_owned_.remove(offset, offset + size - 1);
        } catch (const std::bad_alloc&) {
            return no_memory();
        }
        cpu_watch::forbid(watch_, part);
        return found;
    }

    /// Ends the mapping: takes every byte, and leaves the red zones intact. Call it once; later
    /// calls have no effect.
    [[nodiscard]] BufferFindings end() {
        const ExclusiveLock lock(mutex_);
        BufferFindings found;
        if (!std::exchange(over_, true)) {
            cpu_watch::allow(watch_, memory_);
            fetch(0, memory_.size() - 1, found);
        }
        check_red_zones(found);
        return found;
    }

    /// Call before the memory is freed: on return nothing here accesses it.
    void abandon() {
        const ExclusiveLock lock(mutex_);
        over_ = true;
    }

  private:
    [[nodiscard]] bool bounced() const { return !bounce_.bytes.empty(); }

    [[nodiscard]] bool device_writes() const { return direction_ != Direction::to_device; }

    [[nodiscard]] static bool same(const std::byte* one, const std::byte* other, std::size_t size) {
        return std::memcmp(one, other, size) == 0;
    }

    /// Calls visit(zone, offset of its first byte) for the zones before and after the buffer.
    template <class Visit>
    void each_red_zone(Visit&& visit) const {
        const std::span<std::byte> all = pages_around(bounce_, page_bytes_);
        const std::size_t before = bounce_.bytes.data() - all.data();
        const std::size_t size = bounce_.bytes.size();
        visit(all.first(before), -static_cast<std::int64_t>(before));
        visit(all.subspan(before + size), static_cast<std::int64_t>(size));
    }

    /// Copies the memory to the device.
    void hand_over(std::uint64_t first, std::uint64_t last) MOAT_REQUIRES(mutex_) {
        const std::size_t size = last - first + 1;
        if (copy_)
            std::memcpy(copy_.get() + first, memory_.data() + first, size);
        if (bounced())
            std::memcpy(bounce_.bytes.data() + first, memory_.data() + first, size);
    }

    /// The same for bytes that the device owned already: only those that the CPU changed.
    void hand_over_changes(std::uint64_t first, std::uint64_t last, BufferFindings& found)
        MOAT_REQUIRES(mutex_) {
        const std::span<std::byte> bounce = bounce_.bytes;
        const std::size_t size = last - first + 1;
        if (same(memory_.data() + first, handed_ + first, size) &&
            same(bounce.data() + first, handed_ + first, size))
            return;
        for (std::uint64_t at = first; at <= last; ++at)
            if (memory_[at] != handed_[at])
                bounce[at] = handed_[at] = memory_[at];
            else if (bounce[at] != handed_[at] && device_writes())
                FoundBytes::extend(found.missing_sync, static_cast<std::int64_t>(at));
    }

    /// Finds what the CPU wrote while the device owned the bytes, then copies what the device wrote
    /// to the memory.
    void fetch(std::uint64_t first, std::uint64_t last, BufferFindings& found)
        MOAT_REQUIRES(mutex_) {
        for (std::uint64_t at = first; at <= last;) {
            const RangeSet::Piece piece = cpu_owned_.piece_from(at, last);
            if (!piece.inside)
                find_cpu_writes(at, piece.last, found);
            if (bounced() && device_writes())
                piece.inside ? fetch_around_changes(at, piece.last) : fetch_all(at, piece.last);
            at = piece.last + 1;
        }
    }

    void fetch_all(std::uint64_t first, std::uint64_t last) MOAT_REQUIRES(mutex_) {
        const std::size_t size = last - first + 1;
        std::memcpy(memory_.data() + first, bounce_.bytes.data() + first, size);
        if (!over_)
            std::memcpy(handed_ + first, memory_.data() + first, size);
    }

    void fetch_around_changes(std::uint64_t first, std::uint64_t last) MOAT_REQUIRES(mutex_) {
        if (same(memory_.data() + first, handed_ + first, last - first + 1)) {
            fetch_all(first, last);
            return;
        }
        for (std::uint64_t at = first; at <= last; ++at)
            if (memory_[at] == handed_[at])
                memory_[at] = handed_[at] = bounce_.bytes[at];
    }

    void find_cpu_writes(std::uint64_t first, std::uint64_t last, BufferFindings& found)
        MOAT_REQUIRES(mutex_) {
        if (handed_ == nullptr || same(memory_.data() + first, handed_ + first, last - first + 1))
            return;
        for (std::uint64_t at = first; at <= last; ++at)
            if (memory_[at] != handed_[at])
                FoundBytes::extend(found.cpu_wrote, static_cast<std::int64_t>(at));
    }

    /// Restores the zones, so that damage is reported once.
    void check_red_zones(BufferFindings& found) MOAT_REQUIRES(mutex_) {
        if (!bounced())
            return;
        each_red_zone([&](std::span<std::byte> zone, std::int64_t offset) {
            check_red_zone(zone, offset, found);
        });
    }

    /// `offset`: of the zone's first byte, relative to the buffer.
    static void check_red_zone(std::span<std::byte> zone, std::int64_t offset,
                               BufferFindings& found) {
        // All bytes are equal if each equals the next.
        if (zone.empty() ||
            (zone[0] == red_zone_byte && same(zone.data(), zone.data() + 1, zone.size() - 1)))
            return;
        for (std::byte& each : zone) {
            if (each != red_zone_byte)
                FoundBytes::extend(found.red_zone, offset + (&each - zone.data()));
            each = red_zone_byte;
        }
    }

    [[nodiscard]] static std::unexpected<Error> no_memory() {
        return fail(ErrorCode::no_memory, "no memory to record the bytes that the CPU owns");
    }

    const std::span<std::byte> memory_;
    const Memory bounce_;
    const Direction direction_;
    const std::uint64_t page_bytes_;
    const CpuWatch watch_;
    typename Sync::Mutex mutex_;
    /// The content of memory and bounce pages when each byte last changed its owner: a copy, or the
    /// bounce pages if the device cannot write them, or nothing.
    std::byte* handed_ = nullptr;
    std::unique_ptr<std::byte[]> copy_;
    /// Offsets that the CPU owns; the device owns the others.
    RangeSet cpu_owned_ MOAT_GUARDED_BY(mutex_);
    bool reported_missing_sync_ MOAT_GUARDED_BY(mutex_) = false; ///< since the CPU last took bytes
    bool over_ MOAT_GUARDED_BY(mutex_) = false;
};

} // namespace moat::dma
