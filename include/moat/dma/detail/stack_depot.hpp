// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// StackDepot: call stacks, each kept once and for good, so that records can point to them.
// Who takes them is a policy (space.hpp); who prints them, fault/report.hpp.
#pragma once

#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <algorithm>
#include <cstdint>
#include <new>
#include <set>
#include <span>
#include <vector>

namespace moat::dma {

/// Thread-safe.
template <SyncPolicy Sync>
class StackDepot {
  public:
    static constexpr std::size_t most_frames = 16;

    /// Return: the same frames, for as long as the depot lives; none where there is no memory, so
    /// that a mapping does not fail for want of its stack.
    [[nodiscard]] std::span<const std::uintptr_t> keep(std::span<const std::uintptr_t> frames) {
        const ExclusiveLock lock(mutex_);
        if (const auto known = kept_.find(frames); known != kept_.end())
            return *known;
        try {
            return *kept_.emplace(frames.begin(), frames.end()).first;
        } catch (const std::bad_alloc&) {
            return {};
        }
    }

  private:
    struct Less {
        using is_transparent = void;

        bool operator()(const auto& a, const auto& b) const {
            return std::ranges::lexicographical_compare(a, b);
        }
    };

    typename Sync::Mutex mutex_;
    std::set<std::vector<std::uintptr_t>, Less> kept_ MOAT_GUARDED_BY(mutex_);
};

} // namespace moat::dma
