// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A software IOMMU with a domain over tables in this process, for tests: each page of memory has
// contents that identify it.
#pragma once

#include "moat/iommu/soft_iommu.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/owned_tables.hpp"
#include "moat/sync/real.hpp"

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

namespace moat::tests {

/// Memory aligned for large leaves.
class Buffer {
  public:
    explicit Buffer(std::size_t size, std::size_t alignment = 4096)
        : bytes_(static_cast<std::byte*>(std::aligned_alloc(alignment, size))), size_(size) {
        std::fill_n(bytes_.get(), size, std::byte{0});
    }

    [[nodiscard]] std::byte* data() const { return bytes_.get(); }

    [[nodiscard]] std::span<std::byte> bytes() const { return {bytes_.get(), size_}; }

    [[nodiscard]] PhysicalAddress physical() const {
        return PhysicalAddress(reinterpret_cast<std::uintptr_t>(bytes_.get()));
    }

    [[nodiscard]] ByteCount size() const { return ByteCount(size_); }

  private:
    struct Free {
        void operator()(std::byte* bytes) const { std::free(bytes); }
    };

    std::unique_ptr<std::byte, Free> bytes_;
    std::size_t size_;
};

class OwnTables {
  public:
    explicit OwnTables(std::size_t tables = 256)
        : tables_(OwnedTables<RealSync>::create(tables).value()) {}

    [[nodiscard]] TablePool<RealSync>& pool() { return tables_->pool(); }

  private:
    std::unique_ptr<OwnedTables<RealSync>> tables_;
};

using SoftTree = Tree<formats::VtdSecondStage<4>, RealSync, TablePool<RealSync>>;
using SoftDomain = iommu::SoftDomain<SoftTree>;
using SoftIommu = iommu::SoftIommu<SoftDomain>;
using Lane = iommu::Lane<SoftIommu::Device>;

static_assert(iommu::DeferringDomain<SoftDomain>);

inline SoftDomain::Table empty_table(OwnTables& tables) {
    return *SoftDomain::Table::create(tables.pool());
}

} // namespace moat::tests
