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
#include "moat/dma/detail/registry_sizes.hpp"
#include "moat/dma/memory.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <span>

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

    [[nodiscard]] bool any() const { return cpu_wrote || missing_sync || red_zone; }
};

/// Ownership follows the DMA API's rules: the device owns every byte after mapping, sync_for_cpu
/// passes bytes to the CPU, sync_for_device returns them, unmapping ends it. Three copies show who
/// wrote: the driver's memory, the bounce pages that the device reaches, and the common content of
/// both at the last change of owner. Without bounce pages the device writes the memory itself; then
/// only buffers that it may not write (to_device) have the third copy.
///
/// Serves one mapping after another, and keeps its memory in between; exact_buffers.hpp owns it.
/// `prepare`, `begin` and `end` are called by the one thread that maps or unmaps. Any thread may
/// sync: calls that name a mapping which ended, by its address, have no effect.
template <SyncPolicy Sync>
class ExactBuffer {
  public:
    ExactBuffer() = default;

    ExactBuffer(const ExactBuffer&) = delete;
    ExactBuffer& operator=(const ExactBuffer&) = delete;

    /// The pages that the device reaches in place of the memory; may be empty.
    [[nodiscard]] BouncedPages& pages() { return pages_; }

    /// Prepares for a mapping of `memory`: hands all bytes to the device. `pages()` has a place for
    /// the memory if `bounced`. `watch`: forbid the CPU bytes that the device owns and may write.
    /// Return: false without memory; nothing is prepared then.
    [[nodiscard]] bool prepare(const Memory& memory, bool bounced, Direction direction,
                               CpuWatch watch) {
        memory_ = memory;
        bounce_ = bounced ? pages_.buffer().bytes.data() : nullptr;
        device_writes_ = direction != Direction::to_device;
        watch_ = device_writes_ ? watch : CpuWatch::off;
        handed_ = bounce_;
        if (bounced == device_writes_) {
            if (!make_copy(memory.bytes.size()))
                return false;
            handed_ = copy_.get();
        } else if (!bounced) {
            handed_ = nullptr;
        }
        reported_missing_sync_ = false;
        abandoned_ = false;
        hand_over(0, memory.bytes.size() - 1);
        if (watch_ != CpuWatch::off)
            cpu_watch::forbid(watch_, memory_.bytes);
        return true;
    }

    /// The mapping begins at `iova`: others may name it from now on.
    void begin(Iova iova) { iova_.store(iova.value(), std::memory_order_release); }

    /// Instead of `begin`: undoes `prepare`.
    void cancel() {
        if (watch_ != CpuWatch::off)
            cpu_watch::allow(watch_, memory_.bytes);
    }

    /// Ends the mapping: takes every byte, and restores the red zones.
    [[nodiscard]] BufferFindings end() {
        const ExclusiveLock lock(mutex_);
        BufferFindings found;
        iova_.store(none, std::memory_order_relaxed);
        if (!abandoned_) {
            if (watch_ != CpuWatch::off)
                cpu_watch::allow(watch_, memory_.bytes);
            fetch(0, memory_.bytes.size() - 1, true, found);
        }
        check_red_zones(found);
        if (!cpu_owned_.empty()) [[unlikely]]
            cpu_owned_.clear();
        if (copy_size_ > most_kept) [[unlikely]]
            drop_copy();
        return found;
    }

    [[nodiscard]] const Memory& memory() const { return memory_; }

    /// sync_for_cpu of [offset, offset + size), not empty, of the mapping at `iova`. On return the
    /// CPU owns the bytes, and the memory has what the device wrote there, except bytes that the
    /// CPU changed since it took them. Errors: no_memory; the device keeps the bytes.
    [[nodiscard]] Result<BufferFindings> take(Iova iova, std::uint64_t offset, std::uint64_t size) {
        const ExclusiveLock lock(mutex_);
        BufferFindings found;
        if (!has(iova, offset, size))
            return found;
        reported_missing_sync_ = false;
        cpu_watch::allow(watch_, memory_.bytes.subspan(offset, size));
        fetch(offset, offset + size - 1, false, found);
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
    [[nodiscard]] Result<BufferFindings> give(Iova iova, std::uint64_t offset, std::uint64_t size) {
        const ExclusiveLock lock(mutex_);
        BufferFindings found;
        if (!has(iova, offset, size))
            return found;
        const bool cpu_looked = !cpu_owned_.empty() || reported_missing_sync_;
        const std::span<std::byte> part = memory_.bytes.subspan(offset, size);
        cpu_watch::allow(watch_, part);
        const std::uint64_t last = offset + size - 1;
        for (std::uint64_t at = offset; at <= last;) {
            const RangeSet::Piece piece = cpu_owned_.piece_from(at, last);
            if (piece.inside || bounce_ == nullptr)
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

    /// Call before the memory of the mapping at `iova` is freed: on return nothing here accesses
    /// it.
    void abandon(Iova iova) {
        const ExclusiveLock lock(mutex_);
        if (iova_.load(std::memory_order_acquire) == iova.value())
            abandoned_ = true;
    }

  private:
    static constexpr std::uint64_t none = ~std::uint64_t{0};
    static constexpr std::size_t most_kept = std::size_t{64} << 10; ///< of a copy between mappings

    /// Whether the bytes belong to the mapping at `iova`, which has not ended.
    [[nodiscard]] bool has(Iova iova, std::uint64_t offset, std::uint64_t size) const
        MOAT_REQUIRES(mutex_) {
        return iova_.load(std::memory_order_acquire) == iova.value() && !abandoned_ &&
               offset <= memory_.bytes.size() && size <= memory_.bytes.size() - offset;
    }

    /// Provides `size` bytes, which are undefined.
    [[nodiscard]] bool make_copy(std::size_t size) {
        if (size <= copy_size_)
            return true;
        drop_copy();
        copy_.reset(new (std::nothrow) std::byte[size]);
        if (copy_ != nullptr)
            copy_size_ = size;
        return copy_ != nullptr;
    }

    void drop_copy() {
        copy_.reset();
        copy_size_ = 0;
    }

    [[nodiscard]] static bool same(const std::byte* one, const std::byte* other, std::size_t size) {
        return std::memcmp(one, other, size) == 0;
    }

    /// Copies the memory to the device.
    void hand_over(std::uint64_t first, std::uint64_t last) {
        const std::size_t size = last - first + 1;
        if (handed_ != nullptr)
            std::memcpy(handed_ + first, memory_.bytes.data() + first, size);
        if (bounce_ != nullptr && bounce_ != handed_)
            std::memcpy(bounce_ + first, memory_.bytes.data() + first, size);
    }

    /// The same for bytes that the device owned already: only those that the CPU changed.
    void hand_over_changes(std::uint64_t first, std::uint64_t last, BufferFindings& found)
        MOAT_REQUIRES(mutex_) {
        const std::size_t size = last - first + 1;
        if (same(memory_.bytes.data() + first, handed_ + first, size) &&
            same(bounce_ + first, handed_ + first, size))
            return;
        for (std::uint64_t at = first; at <= last; ++at)
            if (memory_.bytes[at] != handed_[at])
                bounce_[at] = handed_[at] = memory_.bytes[at];
            else if (bounce_[at] != handed_[at] && device_writes_)
                FoundBytes::extend(found.missing_sync, static_cast<std::int64_t>(at));
    }

    /// Finds what the CPU wrote while the device owned the bytes, then copies what the device wrote
    /// to the memory; unless it is for the last time, also to the third copy.
    void fetch(std::uint64_t first, std::uint64_t last, bool is_last, BufferFindings& found)
        MOAT_REQUIRES(mutex_) {
        for (std::uint64_t at = first; at <= last;) {
            const RangeSet::Piece piece = cpu_owned_.piece_from(at, last);
            if (!piece.inside)
                find_cpu_writes(at, piece.last, found);
            if (bounce_ != nullptr && device_writes_) {
                if (piece.inside)
                    fetch_around_changes(at, piece.last);
                else
                    fetch_all(at, piece.last, is_last);
            }
            at = piece.last + 1;
        }
    }

    void fetch_all(std::uint64_t first, std::uint64_t last, bool is_last) MOAT_REQUIRES(mutex_) {
        const std::size_t size = last - first + 1;
        std::memcpy(memory_.bytes.data() + first, bounce_ + first, size);
        if (!is_last)
            std::memcpy(handed_ + first, memory_.bytes.data() + first, size);
    }

    void fetch_around_changes(std::uint64_t first, std::uint64_t last) MOAT_REQUIRES(mutex_) {
        if (same(memory_.bytes.data() + first, handed_ + first, last - first + 1)) {
            fetch_all(first, last, false);
            return;
        }
        for (std::uint64_t at = first; at <= last; ++at)
            if (memory_.bytes[at] == handed_[at])
                memory_.bytes[at] = handed_[at] = bounce_[at];
    }

    void find_cpu_writes(std::uint64_t first, std::uint64_t last, BufferFindings& found)
        MOAT_REQUIRES(mutex_) {
        if (handed_ == nullptr ||
            same(memory_.bytes.data() + first, handed_ + first, last - first + 1))
            return;
        for (std::uint64_t at = first; at <= last; ++at)
            if (memory_.bytes[at] != handed_[at])
                FoundBytes::extend(found.cpu_wrote, static_cast<std::int64_t>(at));
    }

    /// Restores the zones, so that damage is reported once.
    void check_red_zones(BufferFindings& found) MOAT_REQUIRES(mutex_) {
        if (bounce_ == nullptr)
            return;
        const std::span<std::byte> before = pages_.red_zone_before();
        check_red_zone(before, -static_cast<std::int64_t>(before.size()), found);
        check_red_zone(pages_.red_zone_after(), static_cast<std::int64_t>(memory_.bytes.size()),
                       found);
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

    // `prepare` sets what follows while no other thread has a name for the mapping.
    Memory memory_;
    BouncedPages pages_;
    std::byte* bounce_ = nullptr; ///< the buffer in `pages_`; null if the device reaches the memory
    /// The content of memory and bounce pages when each byte last changed its owner: a copy, or the
    /// bounce pages if the device cannot write them, or nothing.
    std::byte* handed_ = nullptr;
    std::unique_ptr<std::byte[]> copy_;
    std::size_t copy_size_ = 0;
    CpuWatch watch_ = CpuWatch::off;
    bool device_writes_ = false;
    bool reported_missing_sync_ = false;                       ///< since the CPU last took bytes
    bool abandoned_ = false;                                   ///< the memory is gone
    typename Sync::template Atomic<std::uint64_t> iova_{none}; ///< of the mapping that began

    typename RegistrySizes<Sync>::Lock mutex_;
    /// Offsets that the CPU owns; the device owns the others.
    RangeSet cpu_owned_ MOAT_GUARDED_BY(mutex_);
};

} // namespace moat::dma
