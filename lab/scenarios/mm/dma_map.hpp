// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped DMA map (mm::DmaMap) over the shipped address space and IOMMU tables: a DMA map of a
// BAR beside its revocation, faults, and readers of numa_maps.
#pragma once

#include "moat/iommu/table_domain.hpp"
#include "moat/mm/dma_map.hpp"
#include "moat/mm/readers/proc.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"

#include "lab/explore/program.hpp"
#include "lab/scenarios/arena_tables.hpp"
#include "lab/scenarios/mm/world.hpp"

namespace moat::scenarios::space {

/// A device's accesses are read sections, and it caches nothing beyond them.
struct WaitForAccesses {
    void invalidate(const InvalidationRequest<Iova>&) { invalidate_all(); }

    void invalidate_all() { ExploredSync::synchronize(); }
};

template <class Sync>
struct ContainerWorld : World<Sync> {
    using Vtd = formats::VtdSecondStage<3>;
    using Domain = iommu::TableDomain<Tree<Vtd, Sync, ArenaTables>, WaitForAccesses>;

    ContainerWorld() : container(this->space, domain) {}

    /// What a device reaches at IOVA 0.
    [[nodiscard]] bool reaches() const { return domain.reader().translate(Iova(0)).has_value(); }

    ArenaTables domain_tables;
    Domain domain{*Domain::Table::create(domain_tables)};
    mm::DmaMap<typename World<Sync>::Space, Domain> container;
};

enum class Beside : std::uint8_t { zapper, reader, all };

[[nodiscard]] inline Beside beside(std::string_view which) {
    if (which == "container-read")
        return Beside::reader;
    return which == "container-all" ? Beside::all : Beside::zapper;
}

/// The domain maps nothing of the region when the revocation returns, nor later. The mapper
/// succeeds or gets EFAULT, whatever comes between its faults and its maps.
template <class Sync>
void container_beside(explore::Setup& setup, Beside beside) {
    auto& world = setup.make<ContainerWorld<Sync>>();
    world.map(base, giant);
    setup.thread("mapper", [&world] {
        const auto mapped =
            world.container.map_dma(Iova(0), VirtualAddress(base), ByteCount(giant), read_write);
        ExploredSync::check(mapped || mapped.error().code() == ErrorCode::io,
                            "a DMA map succeeds or finds the region revoked");
    });
    setup.thread("revoker", [&world] {
        world.space.revoke(world.bar);
        ExploredSync::check(!world.reaches(), "no device reaches a revoked region");
    });
    const auto add_reader = [&](const char* name) {
        setup.thread(name, [&world] {
            unsigned lines = 0;
            numa_maps(world.space, [&](std::string_view) { ++lines; });
            ExploredSync::check(lines == 1, "a mapping is reported once");
        });
    };
    if (beside == Beside::zapper)
        setup.thread("zapper", [&world] { world.zap(base, giant); });
    else
        add_reader("reader");
    if (beside == Beside::all) {
        add_reader("reader2");
        setup.thread("faulter", [&world] {
            const auto faulted = world.space.fault(VirtualAddress(base), Access::read);
            ExploredSync::check(faulted || faulted.error().code() == ErrorCode::io,
                                "an access is served or finds the region revoked");
        });
    }
    setup.at_end(
        [&world] { ExploredSync::check(!world.reaches(), "no device reaches a revoked region"); });
}

} // namespace moat::scenarios::space
