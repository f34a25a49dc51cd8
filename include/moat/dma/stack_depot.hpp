// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// StackDepot: call stacks, each kept once and for good, so that records can point to them.
// Who takes them is a policy (space.hpp); who prints them, fault/report.hpp.
#pragma once

#include "moat/sync/concept.hpp"
#include "moat/sync/lock.hpp"

#include <algorithm>
#include <cstdint>
#include <set>
#include <span>
#include <vector>

namespace moat::dma {

/// Thread-safe.
template <SyncPolicy Sync>
class StackDepot {
  public:
    static constexpr std::size_t most_frames = 16;

    /// Return: the same frames, for as long as the depot lives.
    [[nodiscard]] std::span<const std::uintptr_t> keep(std::span<const std::uintptr_t> frames) {
        const ExclusiveLock lock(mutex_);
        const auto known = kept_.find(frames);
        return known != kept_.end() ? *known : *kept_.emplace(frames.begin(), frames.end()).first;
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
