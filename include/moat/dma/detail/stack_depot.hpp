// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// StackDepot: call stacks, each stored once and for good, so that records can refer to them.
// SpaceConfig::capture takes them; fault/report.hpp prints them.
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

    /// Return: the same frames, valid as long as the depot; empty without memory, since a mapping
    /// does not fail for lack of its stack.
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
