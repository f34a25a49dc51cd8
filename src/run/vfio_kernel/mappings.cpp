// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/vfio_kernel/mappings.hpp"

#include <algorithm>
#include <cerrno>

namespace moat::run::vfio {

bool Host::reachable(IovaRange range) const {
    return limits.aperture.empty() ||
           std::ranges::any_of(limits.aperture,
                               [&](const IovaRange& each) { return each.contains(range); });
}

Mappings::Iterator Mappings::at_or_behind(std::uint64_t address) const {
    auto next = sorted_.upper_bound(address);
    if (next != sorted_.begin())
        if (const auto before = std::prev(next); before->second.range.last().value() >= address)
            return before;
    return next;
}

Mappings::Iterator Mappings::first_in(IovaRange range) const {
    const auto first = at_or_behind(range.start().value());
    return first != sorted_.end() && first->first <= range.last().value() ? first : sorted_.end();
}

int Mappings::add(IovaRange range, std::uint64_t memory, fault::Allows allows) {
    const DmaMap map{.space = space_, .range = range, .memory = memory, .allows = allows};
    if (const int error = try_to_map(map))
        return fail(range, memory, allows, error);
    if (spare_) {
        spare_.key() = range.start().value();
        spare_.mapped() = map;
        sorted_.insert(std::move(spare_));
    } else {
        sorted_.emplace(range.start().value(), map);
    }
    host_->locked += range.size().value();
    return 0;
}

int Mappings::fail(IovaRange range, std::uint64_t memory, fault::Allows allows, int error) const {
    host_->effects.map_failed({space_, range, memory, allows}, error);
    return error;
}

int Mappings::try_to_map(const DmaMap& map) const {
    const std::uint64_t bytes = map.range.size().value();
    if (++host_->maps == host_->limits.fail_map)
        return host_->limits.fail_errno;
    if (host_->locked > host_->limits.locked.value() ||
        bytes > host_->limits.locked.value() - host_->locked)
        return ENOMEM;
    return host_->effects.map(map);
}

Mappings::Iterator Mappings::remove(Iterator mapping) {
    host_->locked -= mapping->second.range.size().value();
    host_->effects.unmap(mapping->second);
    const Iterator next = std::next(mapping);
    spare_ = sorted_.extract(mapping);
    return next;
}

std::uint64_t Mappings::remove_all() {
    std::uint64_t bytes = 0;
    for (Iterator each = sorted_.begin(); each != sorted_.end(); each = remove(each))
        bytes += each->second.range.size().value();
    return bytes;
}

} // namespace moat::run::vfio
