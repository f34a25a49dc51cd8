// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// BarWalk: the reproducer of the page-walk race on this library's own address space and container:
// maps and unmaps three BARs for DMA in a loop while readers report. stress.cpp runs it.
#pragma once

#include "moat/iommu/generations.hpp"
#include "moat/iommu/table_domain.hpp"
#include "moat/mm/address_space.hpp"
#include "moat/mm/dma_map.hpp"
#include "moat/mm/readers/numa_maps.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/formats/x86_64.hpp"
#include "moat/page_table/owned_tables.hpp"
#include "moat/sync/real.hpp"

#include "bar_work.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace moat::tools {

class BarWalk final : public BarWork {
  public:
    static constexpr ByteCount largest_bar{1ULL << 40};

    /// The second of the three BARs has `bar` bytes, a multiple of 4 KiB, `largest_bar` at most.
    explicit BarWalk(ByteCount bar);

    Result<void> round(FunctionRef<void()> step) override;

    Result<void> report() override {
        mm::numa_maps(space_, [](std::string_view) {});
        return {};
    }

    [[nodiscard]] std::optional<std::uint64_t> leaves() const override {
        return leaves_.load(relaxed);
    }

    /// Leaves of a BAR that were missing in the space when its DMA map returned.
    [[nodiscard]] std::optional<std::uint64_t> lost_leaves() const override {
        return lost_leaves_.load(relaxed);
    }

    /// The container maps a leaf where it faults it in, so it never retries.
    [[nodiscard]] std::uint64_t retries() const override { return 0; }

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

} // namespace moat::tools
