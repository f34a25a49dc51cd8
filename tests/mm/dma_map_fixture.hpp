// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A process (mm/fixture.hpp's world) and a domain of VT-d tables into which a container maps it,
// for the tests of this room.
#pragma once

#include "moat/core/text.hpp"
#include "moat/iommu/generations.hpp"
#include "moat/iommu/table_domain.hpp"
#include "moat/mm/dma_map.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/owned_tables.hpp"

#include "mm/fixture.hpp"

#include <memory>

namespace moat::mm::tests {

inline constexpr IovaRange msi(Iova(0xfee0'0000), ByteCount(0x10'0000));

template <FlagUpdate Dirty, class Invalidator>
using DomainOf =
    iommu::TableDomain<Tree<formats::VtdSecondStage<4, Dirty>, Sync, TablePool<Sync>>, Invalidator>;

/// Generations of a unit that answers until a test stops it.
struct Unit : iommu::Generations<Sync> {
    Result<void> invalidate(const InvalidationRequest<Iova>& request) {
        Generations::invalidate(request);
        if (stopped)
            return fail(ErrorCode::io, "the test's unit does not answer");
        return {};
    }

    bool stopped = false;
};

template <class D = DomainOf<FlagUpdate::hardware, Unit>>
struct Machine {
    using Domain = D;

    explicit Machine(const Sizes& sizes = {}, const DmaMapLimits& limits = {},
                     std::size_t most_tables = 512)
        : world(sizes), tables(OwnedTables<Sync>::create(most_tables).value()),
          domain(*Domain::Table::create(tables->pool()), {&msi, 1}),
          container(world.space, domain, limits) {}

    /// The bytes that a device reads at `iova`.
    [[nodiscard]] std::optional<Translation<typename Domain::Format>>
    reach(std::uint64_t iova) const {
        return domain.reader().translate(Iova(iova));
    }

    /// Maps `range` of the process anonymously, and for the device at the same address.
    [[nodiscard]] Result<Mapped> map_ram(std::uint64_t start, std::uint64_t size,
                                         Attributes permissions = read_write) {
        if (const auto mapped = world.space.map(at(start, size), {}); !mapped)
            return std::unexpected(mapped.error());
        return container.map_dma(Iova(start), VirtualAddress(start), ByteCount(size), permissions);
    }

    World world;
    std::unique_ptr<OwnedTables<Sync>> tables;
    Domain domain;
    DmaMap<Space, Domain> container;
};

} // namespace moat::mm::tests
