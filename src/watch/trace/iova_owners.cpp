// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "iova_owners.hpp"

#include <algorithm>
#include <cstddef>
#include <iterator>

namespace moat::watch {

namespace {

/// Beyond this, frees were lost or addresses are hostile: begins anew.
constexpr std::size_t most_entries = 1U << 18;
/// struct iova_domain lies in the first bytes of the cookie.
constexpr std::uint64_t farthest_allocator = 64;

template <class Map>
void bound(Map& map) {
    if (map.size() >= most_entries)
        map.clear();
}

} // namespace

void IovaOwners::link(std::uint64_t cookie, std::string_view device) {
    bound(cookies_);
    cookies_.insert_or_assign(cookie, std::string(device));
}

void IovaOwners::allocate(std::uint64_t start, std::string_view device) {
    bound(live_);
    live_.emplace(start, device);
}

std::string_view IovaOwners::linked(std::uint64_t allocator) const {
    const auto above = cookies_.upper_bound(allocator);
    if (above == cookies_.begin() || allocator - std::prev(above)->first >= farthest_allocator)
        return {};
    return std::prev(above)->second;
}

std::string_view IovaOwners::free(std::uint64_t allocator, std::uint64_t start) {
    if (const std::string_view owner = linked(allocator); !owner.empty())
        return owner;
    const auto [first, last] = live_.equal_range(start);
    if (first == last && !votes_.contains(allocator))
        return {};
    bound(votes_);
    Votes& votes = votes_[allocator];
    if (first != last && std::next(first) == last)
        ++votes[first->second];
    // A range from before the first event may have voted for another device: the majority decides.
    const auto by_votes = [](const auto& a, const auto& b) { return a.second < b.second; };
    const auto best = std::ranges::max_element(votes, by_votes);
    unsigned all = 0;
    for (const auto& [device, count] : votes)
        all += count;
    if (best == votes.end() || best->second * 2 <= all)
        return {};
    const auto freed =
        std::find_if(first, last, [&](const auto& each) { return each.second == best->first; });
    if (freed != last)
        live_.erase(freed);
    return best->first;
}

} // namespace moat::watch
