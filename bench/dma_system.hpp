// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the DMA API's benchmarks share: a space over the software IOMMU, and the pair that they
// measure. dma_bench.cpp has the hot rows, dma_cliffs.cpp what lies off the hot path.
#pragma once

#include "moat/dma/space.hpp"

#include "harness.hpp"
#include "iommu/soft_system.hpp"

#include <cstdint>
#include <memory>

namespace moat::bench {

using Space = dma::Space<tests::SoftDomain, RealSync>;

constexpr fault::Source device_id = fault::Source::pci(0, 1, 0);
constexpr std::uint64_t page = 4096;

struct System {
    explicit System(const dma::Options& options, std::size_t table_count = 256)
        : tables(table_count),
          space(*Space::create(domain, {.options = options, .pages = dma::own_pages()})),
          device(**iommu.add_device(device_id)) {
        keep(iommu.attach(device_id, domain));
    }

    tests::OwnTables tables;
    tests::SoftDomain domain{tests::empty_table(tables)};
    tests::SoftIommu iommu;
    std::unique_ptr<Space> space;
    tests::SoftIommu::Device& device;
};

inline void map_and_unmap(Space& space, const dma::Memory& memory, dma::Direction direction,
                          std::uint64_t count) {
    for (; count != 0; --count) {
        const Iova iova = *space.map(memory, direction, "buffer");
        keep(iova);
        keep(space.unmap(iova, memory.size(), direction));
    }
}

inline Side map_and_unmap(Space& space, const dma::Memory& memory,
                          dma::Direction direction = dma::Direction::bidirectional) {
    return {.run = [&space, memory, direction](std::uint64_t count) {
        map_and_unmap(space, memory, direction, count);
    }};
}

/// Level exact, sizes above a page, threads, memory, and growth.
void cliffs(Suite& suite);

} // namespace moat::bench
