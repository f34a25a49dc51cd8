// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// ExactBuffers: the buffers of a Space that are watched to the byte, by their mapping's address.
#pragma once

#include "moat/dma/detail/exact_buffer.hpp"

#include <cstdint>
#include <memory>
#include <new>
#include <unordered_map>
#include <utility>

namespace moat::dma {

/// Thread-safe. A buffer that was found stays usable after its removal.
template <SyncPolicy Sync>
class ExactBuffers {
  public:
    using Pointer = std::shared_ptr<ExactBuffer<Sync>>;

    /// `iova` has no buffer yet. Return: false without memory.
    [[nodiscard]] bool add(Iova iova, Pointer buffer) {
        const ExclusiveLock lock(mutex_);
        try {
            by_iova_.emplace(iova.value(), std::move(buffer));
        } catch (const std::bad_alloc&) {
            return false;
        }
        return true;
    }

    /// Return: the buffer of the mapping that begins at `iova`, or nullptr.
    [[nodiscard]] Pointer find(Iova iova) {
        const ExclusiveLock lock(mutex_);
        const auto found = by_iova_.find(iova.value());
        return found == by_iova_.end() ? nullptr : found->second;
    }

    /// The same, and removes it.
    [[nodiscard]] Pointer remove(Iova iova) {
        const ExclusiveLock lock(mutex_);
        const auto found = by_iova_.find(iova.value());
        if (found == by_iova_.end())
            return nullptr;
        Pointer buffer = std::move(found->second);
        by_iova_.erase(found);
        return buffer;
    }

  private:
    typename Sync::Mutex mutex_;
    std::unordered_map<std::uint64_t, Pointer> by_iova_ MOAT_GUARDED_BY(mutex_);
};

} // namespace moat::dma
