// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// DoubleMappings: finds memory that is mapped twice while a device may write it. Space uses it at
// level exact and reports driver_error.hpp's `double_mapping`.
#pragma once

#include "moat/dma/detail/interval_index.hpp"
#include "moat/dma/detail/registry_sizes.hpp"
#include "moat/dma/memory.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <cstdint>
#include <new>
#include <optional>
#include <span>
#include <unordered_map>

namespace moat::dma {

/// Thread-safe. Compares memory by the domain's name for it (Memory::physical).
template <SyncPolicy Sync>
class DoubleMappings {
  public:
    /// Adds `memory` (not empty) of the mapping that begins at `start`; or omits it if the index
    /// has no memory: mapping does not fail for lack of this check. Return: the start of another
    /// mapping that shares a byte with it, if a device may write either.
    [[nodiscard]] std::optional<Iova> add(Iova start, const Memory& memory, Direction direction) {
        const Bytes bytes = bytes_of(memory, direction != Direction::to_device);
        const ExclusiveLock lock(mutex_);
        const std::optional<Iova> other = find(bytes);
        try {
            index_of(bytes).add(bytes.first, bytes.last, start);
        } catch (const std::bad_alloc&) {
        }
        return other;
    }

    /// Removes what `add` of the same arguments added.
    void remove(Iova start, const Memory& memory, Direction direction) {
        const Bytes bytes = bytes_of(memory, direction != Direction::to_device);
        const ExclusiveLock lock(mutex_);
        remove(start, bytes);
    }

    /// Adds `pieces` (none empty) as `add` does.
    [[nodiscard]] std::optional<Iova> add_list(Iova start, std::span<const Memory> pieces,
                                               Direction direction) {
        const bool writes = direction != Direction::to_device;
        const ExclusiveLock lock(mutex_);
        std::optional<Iova> other;
        for (const Memory& each : pieces)
            if (!other)
                other = find(bytes_of(each, writes));
        try {
            for (const Memory& each : pieces)
                note(start, bytes_of(each, writes));
        } catch (const std::bad_alloc&) {
        }
        return other;
    }

    /// Removes what `add_list` added for the mapping that begins at `start`.
    void remove_list(Iova start) {
        const ExclusiveLock lock(mutex_);
        const auto [begin, end] = bytes_by_start_.equal_range(start.value());
        for (auto each = begin; each != end; ++each)
            remove(start, each->second);
        bytes_by_start_.erase(begin, end);
    }

  private:
    struct Bytes {
        std::uint64_t first;
        std::uint64_t last;
        bool written;
    };

    [[nodiscard]] static Bytes bytes_of(const Memory& memory, bool written) {
        const std::uint64_t first = memory.physical.value();
        return {first, first + memory.bytes.size() - 1, written};
    }

    [[nodiscard]] std::optional<Iova> find(const Bytes& bytes) const MOAT_REQUIRES(mutex_) {
        std::optional<Iova> found;
        const auto take = [&](std::uint64_t, std::uint64_t, Iova start) {
            found = start;
            return true;
        };
        if (!written_.find(bytes.first, bytes.last, take) && bytes.written)
            (void)read_.find(bytes.first, bytes.last, take);
        return found;
    }

    [[nodiscard]] IntervalIndex<Iova>& index_of(const Bytes& bytes) MOAT_REQUIRES(mutex_) {
        return bytes.written ? written_ : read_;
    }

    void remove(Iova start, const Bytes& bytes) MOAT_REQUIRES(mutex_) {
        index_of(bytes).remove(bytes.first, bytes.last, [&](Iova noted) { return noted == start; });
    }

    void note(Iova start, const Bytes& bytes) MOAT_REQUIRES(mutex_) {
        const auto noted = bytes_by_start_.emplace(start.value(), bytes);
        try {
            index_of(bytes).add(bytes.first, bytes.last, start);
        } catch (const std::bad_alloc&) {
            bytes_by_start_.erase(noted);
            throw;
        }
    }

    typename RegistrySizes<Sync>::Lock mutex_;
    /// Separate, so that a search skips the many mappings that only read the same memory.
    IntervalIndex<Iova> written_ MOAT_GUARDED_BY(mutex_);
    IntervalIndex<Iova> read_ MOAT_GUARDED_BY(mutex_);
    std::unordered_multimap<std::uint64_t, Bytes> bytes_by_start_ MOAT_GUARDED_BY(mutex_);
};

} // namespace moat::dma
