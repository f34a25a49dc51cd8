// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The numbers are those of the report that made the race known: 64 MiB at IOVA 0, a GPU's
// 128 GiB at 0x020000000000, 32 MiB at 0x040000000000.
#include "moat/iommu/generations.hpp"
#include "moat/iommu/table_domain.hpp"
#include "moat/mm/address_space.hpp"
#include "moat/mm/dma_map.hpp"
#include "moat/mm/readers/proc.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/formats/x86_64.hpp"
#include "moat/page_table/owned_tables.hpp"
#include "moat/sync/real.hpp"

#include "command/bar_work.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

namespace moat::tools {

namespace {

constexpr std::uint64_t gib = 1ULL << 30;
constexpr std::uint64_t mib = 1ULL << 20;
constexpr std::array node{ByteCount(16 * mib)};
constexpr ByteCount table_bytes(4 * mib);
constexpr PhysicalAddress region_start(4 * largest_bar.value());

class BarWalk final : public BarWork {
  public:
    explicit BarWalk(ByteCount bar);

    Result<void> round(FunctionRef<void()> step) override;

    Result<void> report() override {
        mm::numa_maps(space_, [](std::string_view) {});
        return {};
    }

    /// Lost are leaves of a BAR that were missing in the space when its DMA map returned. The
    /// container maps a leaf where it faults it in, so it never retries.
    [[nodiscard]] Counts counts() const override {
        return {.leaves = leaves_.load(relaxed), .lost_leaves = lost_leaves_.load(relaxed)};
    }

    [[nodiscard]] ByteCount bar() const override { return bars_[1].range.size(); }

    [[nodiscard]] std::string errno_name(const Error& error) const override {
        return std::string(mm::errno_name(error.code()));
    }

  private:
    using Sync = RealSync;
    using Memory = mm::PhysicalMemory<mm::HeapStore<Sync>>;
    using Space = mm::AddressSpace<formats::X86_64<4>, Sync, Memory>;
    using Domain = iommu::TableDomain<Tree<formats::VtdSecondStage<4>, Sync, TablePool<Sync>>,
                                      iommu::Generations<Sync>>;

    struct Bar {
        VirtualRange range;
        Iova iova;
        ByteCount offset; ///< in the region
    };

    [[nodiscard]] std::uint64_t leaves_of(const Bar& bar) const;

    std::array<Bar, 3> bars_;
    Memory memory_;
    Space space_;
    std::unique_ptr<OwnedTables<Sync>> tables_;
    Domain domain_;
    mm::DmaMap<Space, Domain> container_;
    std::atomic<std::uint64_t> leaves_{0};
    std::atomic<std::uint64_t> lost_leaves_{0};
};

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
        MOAT_LET(const auto mapped,
                 container_.map_dma(bar.iova, bar.range.start(), bar.range.size(), read_write));
        leaves_.fetch_add(mapped.steps, relaxed);
        lost_leaves_.fetch_add(mapped.steps - leaves_of(bar), relaxed);
        bytes += bar.range.size().value();
        step();
    }
    for (const Bar& bar : bars_) {
        MOAT_TRY(container_.unmap_dma(bar.iova, bar.range.size()));
        // As the driver does when it resets the device: the next map faults everything in again.
        MOAT_TRY(space_.zap(bar.range));
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

} // namespace

std::unique_ptr<BarWork> bar_walk(ByteCount bar) {
    return std::make_unique<BarWalk>(bar);
}

} // namespace moat::tools
