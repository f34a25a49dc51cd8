// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// ExactBuffers: the buffers of a Space that are watched to the byte. They are reused with their
// bounce pages and copies, so that a mapping allocates nothing and takes one lock for all three.
#pragma once

#include "moat/dma/detail/exact_buffer.hpp"
#include "moat/dma/detail/registry_sizes.hpp"

#include <array>
#include <deque>
#include <new>
#include <utility>

namespace moat::dma {

/// Thread-safe. A buffer stays valid, though for another mapping, until this ends: a thread may
/// sync it while another one unmaps it.
template <SyncPolicy Sync>
class ExactBuffers {
  public:
    using Buffer = ExactBuffer<Sync>;

    /// A buffer that serves no mapping; it may have a page if `paged`, and has none otherwise.
    /// Return: null without memory.
    [[nodiscard]] Buffer* take(bool paged) {
        {
            const ExclusiveLock lock(free_mutex_);
            Entry*& first = free_[paged ? 1 : 0];
            if (first != nullptr)
                return std::exchange(first, first->next);
        }
        const ExclusiveLock lock(all_mutex_);
        try {
            return &all_.emplace_back();
        } catch (const std::bad_alloc&) {
            return nullptr;
        }
    }

    /// Takes back what `take` returned.
    void put(Buffer& buffer) {
        auto& entry = static_cast<Entry&>(buffer);
        const ExclusiveLock lock(free_mutex_);
        entry.next = std::exchange(free_[buffer.pages().empty() ? 0 : 1], &entry);
    }

  private:
    struct Entry : Buffer {
        Entry* next = nullptr;
    };

    typename RegistrySizes<Sync>::Lock free_mutex_;
    std::array<Entry*, 2> free_ MOAT_GUARDED_BY(free_mutex_){}; ///< without pages, and with
    typename Sync::Mutex all_mutex_;
    std::deque<Entry> all_ MOAT_GUARDED_BY(all_mutex_);
};

} // namespace moat::dma
