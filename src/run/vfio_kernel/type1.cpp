// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/vfio_kernel/type1.hpp"

#include "machine/vfio_host/uapi.hpp"
#include "run/vfio_kernel/argument.hpp"

namespace moat::run::vfio {
namespace {

/// Neither empty nor past 2^64.
[[nodiscard]] bool is_range(std::uint64_t start, std::uint64_t size) {
    return size != 0 && start + (size - 1) >= start;
}

[[nodiscard]] IovaRange range_of(std::uint64_t start, std::uint64_t size) {
    return {Iova(start), ByteCount(size)};
}

} // namespace

bool Type1::has_extension(std::uint64_t extension) {
    return extension == VFIO_TYPE1_IOMMU || extension == VFIO_TYPE1v2_IOMMU ||
           extension == VFIO_UNMAP_ALL;
}

Answer Type1::request(unsigned long request, std::span<std::byte> argument) {
    switch (request) {
    case VFIO_IOMMU_GET_INFO:
        return info(argument);
    case VFIO_IOMMU_MAP_DMA:
        return map(argument);
    case VFIO_IOMMU_UNMAP_DMA:
        return unmap(argument);
    default:
        return answer(ENOTTY);
    }
}

Answer Type1::info(std::span<std::byte> argument) const {
    vfio_iommu_type1_info info{};
    if (const int error = take(argument, offsetof(vfio_iommu_type1_info, cap_offset), info))
        return answer(error);
    info.flags = VFIO_IOMMU_INFO_PGSIZES;
    info.iova_pgsizes = host_->limits.page_sizes;
    CapabilityChain chain(sizeof info);
    const std::uint64_t left = host_->limits.entries - mappings_.size();
    chain.add(VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
              std::as_bytes(std::span<const std::uint32_t>(
                  {static_cast<std::uint32_t>(std::min<std::uint64_t>(left, UINT32_MAX))})));
    std::vector<std::uint64_t> ranges = {host_->limits.aperture.size()}; // and 4 reserved bytes
    for (const IovaRange& each : host_->limits.aperture)
        ranges.insert(ranges.end(), {each.start().value(), each.last().value()});
    if (ranges.size() > 1)
        chain.add(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, std::as_bytes(std::span(ranges)));
    const std::uint32_t room = info.argsz;
    chain.place(argument, info.argsz, info.flags, VFIO_IOMMU_INFO_CAPS, info.cap_offset);
    give(argument, info, room);
    return {};
}

Answer Type1::map(std::span<const std::byte> argument) {
    constexpr std::uint32_t directions = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
    vfio_iommu_type1_dma_map map{};
    if (const int error = take(argument, sizeof map, map))
        return answer(error);
    const std::uint64_t all = map.size | map.iova | map.vaddr;
    if ((map.flags & ~directions) != 0 || map.flags == 0 || all % host_->page() != 0 ||
        !is_range(map.iova, map.size) || !is_range(map.vaddr, map.size))
        return answer(EINVAL);
    const IovaRange range = range_of(map.iova, map.size);
    if (mappings_.first_in(range) != mappings_.end())
        return answer(EEXIST);
    if (mappings_.size() >= host_->limits.entries)
        return answer(mappings_.fail(range, map.vaddr, allows(map.flags), ENOSPC));
    if (!host_->reachable(range))
        return answer(mappings_.fail(range, map.vaddr, allows(map.flags), EINVAL));
    return answer(mappings_.add(range, map.vaddr, allows(map.flags)));
}

bool Type1::bisects(IovaRange range, Mappings::Iterator first) const {
    const auto cut = [&](Mappings::Iterator mapping) {
        return mapping != mappings_.end() && !range.contains(mapping->second.range);
    };
    if (first == mappings_.end() || first->second.range == range)
        return false;
    return cut(first) || cut(mappings_.first_in({range.last(), ByteCount(1)}));
}

Answer Type1::unmap(std::span<std::byte> argument) {
    vfio_iommu_type1_dma_unmap unmap{};
    if (const int error = take(argument, sizeof unmap, unmap))
        return answer(error);
    const std::uint64_t all = unmap.iova | unmap.size;
    if (unmap.flags == VFIO_DMA_UNMAP_FLAG_ALL && all == 0) {
        unmap.size = mappings_.remove_all();
        give(argument, unmap);
        return {};
    }
    // Without dirty tracking, there is no bitmap.
    if (unmap.flags != 0 || all % host_->page() != 0 || !is_range(unmap.iova, unmap.size))
        return answer(EINVAL);
    const IovaRange range = range_of(unmap.iova, unmap.size);
    auto each = mappings_.first_in(range);
    if (version_ == Type1Version::v2 && bisects(range, each))
        return answer(EINVAL);
    unmap.size = 0;
    // Linux finds nothing in a range that ends at 2^64.
    const bool finds = unmap.iova + range.size().value() != 0;
    // Version 1: a mapping is unmapped from its start or not at all.
    while (finds && each != mappings_.end() && range.contains(each->second.range.start())) {
        unmap.size += each->second.range.size().value();
        each = mappings_.remove(each);
    }
    give(argument, unmap);
    return {};
}

} // namespace moat::run::vfio
