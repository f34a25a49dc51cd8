// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The window that is carved out for message-signalled interrupts: a bump allocator of its own.
// No guard, no reuse in the middle: only the latest allocation can be taken back.
#pragma once

#include "moat/core/result.hpp"
#include "moat/iova/detail/footprint.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <cstdint>
#include <optional>

namespace moat::iova {

template <SyncPolicy Sync>
class FixedWindow {
  public:
    explicit FixedWindow(PageRun window) : window_(window), next_(window.start) {}

    [[nodiscard]] bool contains(std::uint64_t page) const {
        return page >= window_.start && page < window_.end();
    }

    /// Return: the first of `pages` pages, which end at page `limit` at the latest.
    [[nodiscard]] std::optional<std::uint64_t> allocate(std::uint64_t pages, std::uint64_t limit)
        MOAT_EXCLUDES(mutex_) {
        const ExclusiveLock lock(mutex_);
        const std::uint64_t page = next_.read();
        if (pages == 0 || pages > window_.end() - page || page + pages > limit)
            return std::nullopt;
        next_.write(page + pages);
        return page;
    }

    /// Whether these pages are the latest allocation.
    [[nodiscard]] bool is_latest(std::uint64_t page, std::uint64_t pages) const
        MOAT_EXCLUDES(mutex_) {
        const ExclusiveLock lock(mutex_);
        return ends_at_next(page, pages);
    }

    /// Return: false where these pages are not the latest allocation; nothing changed then.
    [[nodiscard]] bool release(std::uint64_t page, std::uint64_t pages) MOAT_EXCLUDES(mutex_) {
        const ExclusiveLock lock(mutex_);
        if (!ends_at_next(page, pages))
            return false;
        next_.write(page);
        return true;
    }

  private:
    [[nodiscard]] bool ends_at_next(std::uint64_t page, std::uint64_t pages) const
        MOAT_REQUIRES(mutex_) {
        return pages != 0 && pages <= next_.read() - page && page + pages == next_.read();
    }

    const PageRun window_;
    mutable typename Sync::Mutex mutex_;
    typename Sync::template Plain<std::uint64_t> next_ MOAT_GUARDED_BY(mutex_);
};

} // namespace moat::iova
