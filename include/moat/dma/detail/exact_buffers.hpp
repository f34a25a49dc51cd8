// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// ExactBuffers: the buffers of a Space that are watched to the byte, by the address of their
// mapping.
#pragma once

#include "moat/dma/detail/exact_buffer.hpp"

#include <cstdint>
#include <memory>
#include <new>
#include <unordered_map>
#include <utility>

namespace moat::dma {

/// Thread-safe. Who has found a buffer may use it after it was removed.
template <SyncPolicy Sync>
class ExactBuffers {
  public:
    using Pointer = std::shared_ptr<ExactBuffer<Sync>>;

    /// Nothing is known at `iova`. Return: false where there is no memory.
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

    /// The same, and it is not found any more.
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
