// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// DeviceTlb: a function's own cache of translations (PCI Express, Address Translation Services).
// DeviceTlbs: those that a unit's driver invalidates after the unit's own translations.
#pragma once

#include "moat/core/types.hpp"
#include "moat/page_table/invalidation.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <ranges>
#include <span>
#include <vector>

namespace moat::iommu {

/// A function's cache of translations, which is enabled.
struct DeviceTlb {
    std::uint8_t queue_depth = 0; ///< of invalidations, as its capability has it; 0: 32
};

/// The caches of attached functions. Not thread-safe: the caller holds the unit's lock.
class DeviceTlbs {
  public:
    struct Attached {
        std::uint16_t requester;
        std::uint16_t domain;
        unsigned queue_depth; ///< as the function's capability has it
    };

    void add(const Attached& tlb) { all_.push_back(tlb); }

    /// Removes a function's cache. Return: nothing if it was not added.
    [[nodiscard]] std::optional<Attached> take(std::uint16_t requester) {
        const auto found = std::ranges::find(all_, requester, &Attached::requester);
        if (found == all_.end())
            return std::nullopt;
        const Attached tlb = *found;
        all_.erase(found);
        return tlb;
    }

    /// A view of the caches of a domain's functions.
    [[nodiscard]] auto of(std::uint16_t domain) const {
        return std::views::filter(all_,
                                  [domain](const Attached& each) { return each.domain == domain; });
    }

  private:
    std::vector<Attached> all_;
};

/// All addresses, as one request.
inline constexpr std::array<InvalidationRequest<Iova>, 1> every_address = {
    {{Iova(0), Iova(~std::uint64_t{0}), CachedEntries::leaves_and_tables}}};

/// `requests`, or every address if they are too many or not all of them ranges.
[[nodiscard]] constexpr std::span<const InvalidationRequest<Iova>>
ranges_or_all(std::span<const InvalidationRequest<Iova>> requests, std::size_t most) {
    const auto is_range = [](const InvalidationRequest<Iova>& each) {
        return each.start <= each.last;
    };
    if (requests.size() <= most && std::ranges::all_of(requests, is_range))
        return requests;
    return every_address;
}

} // namespace moat::iommu
