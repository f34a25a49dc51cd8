// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Address spaces of an iommufd: which addresses they have, map, copy and unmap.
#include "machine/vfio_host/uapi.hpp"
#include "run/vfio_kernel/argument.hpp"
#include "run/vfio_kernel/iommufd.hpp"

#include <bit>

namespace moat::run::vfio {

namespace uapi = machine::vfio_host::uapi;

namespace {

constexpr std::uint64_t whole = ~std::uint64_t{0};

/// Behind the first page, which no address is found in.
constexpr std::uint64_t first_found = 4096;
constexpr std::uint64_t last_found = whole - 4096;
constexpr std::uint64_t huge_page = 2 << 20;

/// All but the last of 2^64 addresses fit a range.
[[nodiscard]] IovaRange between(std::uint64_t first, std::uint64_t last) {
    return {Iova(first), ByteCount(last - first + (last - first != whole ? 1 : 0))};
}

} // namespace

bool Iommufd::Limits::reaches(IovaRange range) const {
    return ranges.empty() ||
           std::ranges::any_of(ranges, [&](const IovaRange& each) { return each.contains(range); });
}

Iommufd::Limits Iommufd::table_limits() const {
    Limits limits{.alignment = host_->page()};
    const std::vector<IovaRange>& aperture = host_->limits.aperture;
    if (!aperture.empty())
        limits.ranges = {between(aperture.front().start().value(), aperture.back().last().value())};
    return limits;
}

Iommufd::Limits Iommufd::limits(std::uint32_t ioas) const {
    Limits limits;
    for (const auto& [object, each] : objects_) {
        const auto* const hwpt = std::get_if<Hwpt>(&each);
        if (hwpt == nullptr || hwpt->ioas != ioas)
            continue;
        limits = table_limits();
        if (used(object)) {
            limits.ranges = host_->limits.aperture;
            break;
        }
    }
    return limits;
}

bool Iommufd::fits(const Ioas& ioas, const Limits& limits) const {
    const auto mapping_fits = [&](const auto& each) {
        const IovaRange range = each.second.range;
        return limits.reaches(range) &&
               (range.start().value() | range.size().value()) % limits.alignment == 0;
    };
    return std::all_of(ioas.mappings.begin(), ioas.mappings.end(), mapping_fits) &&
           std::ranges::all_of(ioas.allowed,
                               [&](const IovaRange& each) { return limits.reaches(each); });
}

int Iommufd::ranges(std::span<std::byte> argument) {
    uapi::IoasIovaRanges ask;
    if (const int error = take_sized(argument, sizeof ask, ask))
        return error;
    if (ask.reserved != 0)
        return EOPNOTSUPP;
    if (find<Ioas>(ask.ioas) == nullptr)
        return ENOENT;
    const Limits known = limits(ask.ioas);
    std::vector<vfio_iova_range> told;
    for (const IovaRange& each : known.ranges)
        told.push_back({.start = each.start().value(), .end = each.last().value()});
    if (told.empty())
        told.push_back({.start = 0, .end = whole});
    const std::size_t room = std::min<std::size_t>(ask.count, told.size());
    const std::span<const vfio_iova_range> written(told.data(), room);
    if (room != 0)
        if (const int error = host_->effects.write_memory(ask.ranges, std::as_bytes(written)))
            return error;
    ask.count = static_cast<std::uint32_t>(told.size());
    ask.alignment = known.alignment;
    give(argument, ask, ask.bytes);
    return room < told.size() ? EMSGSIZE : 0;
}

int Iommufd::allow(std::span<std::byte> argument) {
    constexpr std::uint32_t most = 4096;
    uapi::IoasAllowIovas ask;
    if (const int error = take_sized(argument, sizeof ask, ask))
        return error;
    if (ask.reserved != 0)
        return EOPNOTSUPP;
    Ioas* const ioas = find<Ioas>(ask.ioas);
    if (ioas == nullptr)
        return ENOENT;
    if (ask.count > most)
        return ENOMEM;
    std::vector<vfio_iova_range> told(ask.count);
    if (!told.empty())
        if (const int error =
                host_->effects.read_memory(ask.ranges, std::as_writable_bytes(std::span(told))))
            return error;
    std::vector<IovaRange> allowed;
    for (const vfio_iova_range& each : told) {
        if (each.start >= each.end)
            return EINVAL;
        const IovaRange range = between(each.start, each.end);
        if (std::ranges::any_of(allowed, [&](const auto& other) { return other.overlaps(range); }))
            return EINVAL;
        allowed.push_back(range);
    }
    const Limits known = limits(ask.ioas);
    if (!std::ranges::all_of(allowed, [&](const auto& each) { return known.reaches(each); }))
        return EADDRINUSE;
    ioas->allowed = std::move(allowed);
    return 0;
}

int Iommufd::check_place(std::uint32_t ioas, std::uint64_t iova, std::uint64_t bytes) const {
    const Limits known = limits(ioas);
    if (iova % known.alignment != 0)
        return EINVAL;
    if (iova + (bytes - 1) < iova)
        return EOVERFLOW;
    const IovaRange range{Iova(iova), ByteCount(bytes)};
    if (!known.reaches(range))
        return EINVAL;
    const Mappings& mappings = std::get<Ioas>(objects_.at(ioas)).mappings;
    return mappings.first_in(range) != mappings.end() ? EEXIST : 0;
}

int Iommufd::find_place(std::uint32_t ioas, std::uint64_t bytes, std::uint64_t memory,
                        std::uint64_t& iova) const {
    const Limits known = limits(ioas);
    const Ioas& space = std::get<Ioas>(objects_.at(ioas));
    std::vector<IovaRange> places = known.ranges;
    if (places.empty())
        places.push_back(between(0, whole));
    const std::uint64_t in_page = memory % first_found;
    const std::uint64_t natural = bytes > huge_page ? huge_page : std::bit_ceil(bytes);
    const std::uint64_t alignment =
        std::max({std::min(natural, (memory & -memory) != 0 ? memory & -memory : huge_page),
                  known.alignment, in_page != 0 ? first_found : 1});
    for (const IovaRange& place : places) {
        std::uint64_t at = std::max(place.start().value(), first_found);
        const std::uint64_t last = std::min(place.last().value(), last_found);
        while (at <= last) {
            const std::uint64_t aligned = (at + alignment - 1) / alignment * alignment + in_page;
            if (aligned < at || aligned > last || last - aligned < bytes - 1)
                break;
            const IovaRange range{Iova(aligned), ByteCount(bytes)};
            const auto taken = space.mappings.first_in(range);
            const auto allowed = [&](const IovaRange& each) { return each.contains(range); };
            const bool is_allowed =
                space.allowed.empty() || std::ranges::any_of(space.allowed, allowed);
            if (taken == space.mappings.end() && is_allowed) {
                iova = aligned;
                return 0;
            }
            if (taken != space.mappings.end()) {
                at = taken->second.range.last().value() + 1;
                continue;
            }
            // Go on where addresses are allowed next.
            std::uint64_t next = whole;
            for (const IovaRange& each : space.allowed)
                if (each.start().value() > aligned)
                    next = std::min(next, each.start().value());
            at = next;
        }
    }
    return ENOSPC;
}

int Iommufd::map_pieces(std::uint32_t ioas, std::span<const Piece> pieces, bool fixed,
                        std::uint64_t& iova, fault::Allows allows) {
    std::uint64_t bytes = 0;
    for (const Piece& each : pieces)
        bytes += each.bytes;
    if (bytes == 0)
        return EINVAL;
    if (const int error = fixed ? check_place(ioas, iova, bytes)
                                : find_place(ioas, bytes, pieces.front().memory, iova))
        return error;
    const std::uint64_t alignment = limits(ioas).alignment;
    Mappings& mappings = find<Ioas>(ioas)->mappings;
    std::uint64_t done = 0;
    int error = 0;
    for (const Piece& each : pieces) {
        if (!each.writable && permits(allows, fault::Access::write))
            error = EPERM;
        else if (each.memory % alignment != 0 || each.bytes % alignment != 0)
            error = EINVAL;
        else
            error = mappings.add({Iova(iova + done), ByteCount(each.bytes)}, each.memory, allows);
        if (error != 0)
            break;
        done += each.bytes;
    }
    for (std::uint64_t undone = 0; error != 0 && undone != done;) {
        const auto mapping = mappings.at_or_behind(iova + undone);
        undone += mapping->second.range.size().value();
        (void)mappings.remove(mapping);
    }
    return error;
}

int Iommufd::map(std::span<std::byte> argument) {
    constexpr std::uint32_t directions = uapi::IoasMap::readable | uapi::IoasMap::writable;
    uapi::IoasMap map;
    if (const int error = take_sized(argument, sizeof map, map))
        return error;
    if ((map.flags & ~(directions | uapi::IoasMap::fixed_iova)) != 0 || map.reserved != 0)
        return EOPNOTSUPP;
    if (map.iova == whole || map.length == whole)
        return EOVERFLOW;
    if ((map.flags & directions) == 0)
        return EINVAL;
    if (find<Ioas>(map.ioas) == nullptr)
        return ENOENT;
    if (map.virtual_address + map.length < map.virtual_address)
        return EOVERFLOW;
    const Piece piece{.bytes = map.length, .memory = map.virtual_address};
    if (const int error =
            map_pieces(map.ioas, {&piece, 1}, (map.flags & uapi::IoasMap::fixed_iova) != 0,
                       map.iova, ioas_allows(map.flags)))
        return error;
    give(argument, map, map.bytes);
    return 0;
}

int Iommufd::copy(std::span<std::byte> argument) {
    constexpr std::uint32_t directions = uapi::IoasMap::readable | uapi::IoasMap::writable;
    uapi::IoasCopy copy;
    if (const int error = take_sized(argument, sizeof copy, copy))
        return error;
    if ((copy.flags & ~(directions | uapi::IoasMap::fixed_iova)) != 0)
        return EOPNOTSUPP;
    if (copy.length == whole || copy.to_iova == whole || copy.from_iova == whole)
        return EOVERFLOW;
    if ((copy.flags & directions) == 0)
        return EINVAL;
    const Ioas* const from = find<Ioas>(copy.from_ioas);
    if (from == nullptr)
        return ENOENT;
    if (copy.length == 0)
        return EINVAL;
    if (copy.from_iova + (copy.length - 1) < copy.from_iova)
        return EOVERFLOW;
    std::vector<Piece> pieces;
    for (std::uint64_t done = 0; done != copy.length;) {
        const std::uint64_t at = copy.from_iova + done;
        const auto mapping = from->mappings.at_or_behind(at);
        if (mapping == from->mappings.end() || mapping->first > at)
            return ENOENT;
        const std::uint64_t skipped = at - mapping->first;
        const std::uint64_t bytes =
            std::min(mapping->second.range.size().value() - skipped, copy.length - done);
        pieces.push_back({.bytes = bytes,
                          .memory = mapping->second.memory + skipped,
                          .writable = permits(mapping->second.allows, fault::Access::write)});
        done += bytes;
    }
    if (find<Ioas>(copy.to_ioas) == nullptr)
        return ENOENT;
    if (const int error =
            map_pieces(copy.to_ioas, pieces, (copy.flags & uapi::IoasMap::fixed_iova) != 0,
                       copy.to_iova, ioas_allows(copy.flags)))
        return error;
    give(argument, copy, copy.bytes);
    return 0;
}

int Iommufd::unmap(std::span<std::byte> argument) {
    uapi::IoasUnmap unmap;
    if (const int error = take_sized(argument, sizeof unmap, unmap))
        return error;
    Ioas* const ioas = find<Ioas>(unmap.ioas);
    if (ioas == nullptr)
        return ENOENT;
    Mappings& mappings = ioas->mappings;
    if (unmap.iova == 0 && unmap.length == whole) {
        unmap.length = mappings.remove_all();
        give(argument, unmap, unmap.bytes);
        return 0;
    }
    if (unmap.iova == whole || unmap.length == whole)
        return EOVERFLOW;
    if (unmap.length == 0)
        return EINVAL;
    if (unmap.iova + (unmap.length - 1) < unmap.iova)
        return EOVERFLOW;
    const IovaRange range{Iova(unmap.iova), ByteCount(unmap.length)};
    std::uint64_t bytes = 0;
    for (auto each = mappings.first_in(range); each != mappings.end();
         each = mappings.first_in(range)) {
        // What was unmapped before the one that would be cut stays so.
        if (!range.contains(each->second.range))
            return ENOENT;
        bytes += each->second.range.size().value();
        (void)mappings.remove(each);
    }
    if (bytes == 0)
        return ENOENT;
    unmap.length = bytes;
    give(argument, unmap, unmap.bytes);
    return 0;
}

} // namespace moat::run::vfio
