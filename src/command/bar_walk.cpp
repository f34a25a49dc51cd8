// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The numbers are those of the report that made the race known: 64 MiB at IOVA 0, a GPU's
// 128 GiB at 0x020000000000, 32 MiB at 0x040000000000.
#include "bar_walk.hpp"

namespace moat::tools {

namespace {

constexpr std::uint64_t gib = 1ULL << 30;
constexpr std::uint64_t mib = 1ULL << 20;
constexpr std::array node{ByteCount(16 * mib)};
constexpr ByteCount table_bytes(4 * mib);
constexpr PhysicalAddress region_start(4 * BarWalk::largest_bar.value());

} // namespace

BarWalk::BarWalk(ByteCount bar)
    : bars_{Bar{{VirtualAddress(0x1000'0000'0000), ByteCount(64 * mib)}, Iova(0), ByteCount(0)},
            Bar{{VirtualAddress(0x2000'0000'0000), bar}, Iova(0x0200'0000'0000), ByteCount(gib)},
            Bar{{VirtualAddress(0x4000'0000'0000), ByteCount(32 * mib)},
                Iova(0x0400'0000'0000),
                ByteCount(64 * mib)}},
      memory_(mm::HeapStore<Sync>(table_bytes), {.nodes = node}),
      space_(memory_, *Space::Tables::create(memory_)),
      tables_(OwnedTables<Sync>::create(1024).value()),
      domain_(*Domain::Table::create(tables_->pool())), container_(space_, domain_) {
    const auto region = memory_.add_region({region_start, ByteCount(gib + largest_bar.value())},
                                           mm::RegionKind::registers);
    MOAT_CHECK(region.has_value(), "a region lies above little RAM");
    for (const Bar& each : bars_)
        MOAT_CHECK(space_
                       .map(each.range, {.kind = mm::VmaKind::device,
                                         .region = *region,
                                         .offset = each.offset,
                                         .name = "file=/dev/vfio"})
                       .has_value(),
                   "three BARs fit into the space");
}

Result<void> BarWalk::round(FunctionRef<void()> step) {
    std::uint64_t bytes = 0;
    for (const Bar& bar : bars_) {
        const auto mapped =
            container_.map_dma(bar.iova, bar.range.start(), bar.range.size(), read_write);
        if (!mapped)
            return std::unexpected(mapped.error());
        leaves_.fetch_add(mapped->steps, relaxed);
        lost_leaves_.fetch_add(mapped->steps - leaves_of(bar), relaxed);
        bytes += bar.range.size().value();
        step();
    }
    for (const Bar& bar : bars_) {
        const auto unmapped = container_.unmap_dma(bar.iova, bar.range.size());
        if (!unmapped)
            return std::unexpected(unmapped.error());
        // As the driver does when it resets the device: the next map faults everything in again.
        if (const auto zapped = space_.zap(bar.range); !zapped)
            return std::unexpected(zapped.error());
    }
    count_round(bytes);
    return {};
}

std::uint64_t BarWalk::leaves_of(const Bar& bar) const {
    std::uint64_t count = 0;
    const auto looked = space_.look_up(bar.range, [&](const mm::LeafView&) { ++count; });
    MOAT_CHECK(looked.has_value(), "a BAR's range can be looked up");
    return count;
}

} // namespace moat::tools
