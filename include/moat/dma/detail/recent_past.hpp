// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RecentPast: the latest past mappings. An unmap stores one in a preallocated ring; diagnosis moves
// them to the index (fault/history.hpp).
#pragma once

#include "moat/fault/history.hpp"
#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

namespace moat::dma {

/// Two locks: the ring's, held for one entry and never during an allocation; and the index's, a
/// mutex that only queries take.
template <SyncPolicy Sync>
class RecentPast {
  public:
    /// Keeps the newest `capacity` mappings, or none without memory.
    explicit RecentPast(std::size_t capacity)
        : ring_(allocate(capacity)), capacity_(ring_ == nullptr ? 0 : capacity),
          history_(capacity_ == 0 ? 1 : capacity_) {}

    ~RecentPast() {
        if (ring_ != nullptr)
            std::allocator<Entry>().deallocate(ring_, capacity_);
    }

    RecentPast(const RecentPast&) = delete;
    RecentPast& operator=(const RecentPast&) = delete;

    [[gnu::always_inline]] void note(const fault::Mapping& mapping, const fault::Event& unmapped) {
        if (capacity_ == 0) [[unlikely]]
            return;
        const ExclusiveLock lock(ring_lock_);
        std::construct_at(ring_ + next_, mapping, unmapped);
        next_ = next_ + 1 == capacity_ ? 0 : next_ + 1;
        ++noted_;
    }

    /// Brings the index up to date. Return: the result of use(const History&).
    template <class Use>
    [[nodiscard]] auto with_history(Use&& use) {
        const ExclusiveLock lock(index_mutex_);
        try {
            take_over();
            history_.catch_up();
        } catch (const std::bad_alloc&) {
            forget();
        }
        return use(std::as_const(history_));
    }

  private:
    struct Entry {
        fault::Mapping mapping;
        fault::Event unmapped;
    };

    /// The next entry to move, and how many were added in all.
    struct Taken {
        std::optional<Entry> entry = {};
        std::uint64_t noted = 0;
    };

    static_assert(std::is_trivially_destructible_v<Entry>);

    /// Touches no page before it is used.
    [[nodiscard]] static Entry* allocate(std::size_t capacity) {
        try {
            return capacity == 0 ? nullptr : std::allocator<Entry>().allocate(capacity);
        } catch (const std::bad_alloc&) {
            return nullptr;
        }
    }

    /// Moves the entries added before the call to the history. If the ring wrapped since the last
    /// call, clears the history first: it holds only older entries.
    void take_over() MOAT_REQUIRES(index_mutex_) {
        for (std::uint64_t end = count(); taken_ < end; ++taken_) {
            const Taken next = take();
            if (!next.entry) {
                forget();
                taken_ = next.noted - capacity_ - 1;
                end = next.noted;
                continue;
            }
            history_.note(next.entry->mapping, next.entry->unmapped);
        }
    }

    [[nodiscard]] Taken take() MOAT_REQUIRES(index_mutex_) {
        const ExclusiveLock lock(ring_lock_);
        if (noted_ - taken_ > capacity_)
            return {.noted = noted_};
        return {.entry = ring_[taken_ % capacity_], .noted = noted_};
    }

    [[nodiscard]] std::uint64_t count() {
        const ExclusiveLock lock(ring_lock_);
        return noted_;
    }

    void forget() MOAT_REQUIRES(index_mutex_) {
        history_ = fault::History(capacity_ == 0 ? 1 : capacity_);
    }

    SpinLock<Sync> ring_lock_;
    Entry* const ring_;
    const std::size_t capacity_;
    std::size_t next_ MOAT_GUARDED_BY(ring_lock_) = 0; ///< `noted_` modulo the capacity
    std::uint64_t noted_ MOAT_GUARDED_BY(ring_lock_) = 0;

    typename Sync::Mutex index_mutex_;
    std::uint64_t
        taken_ MOAT_GUARDED_BY(index_mutex_) = 0; ///< how many of them were moved to the history
    fault::History history_ MOAT_GUARDED_BY(index_mutex_);
};

} // namespace moat::dma
