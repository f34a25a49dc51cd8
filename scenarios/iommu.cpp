// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped software IOMMU under the explorer: a device writes by IOVA through its cached
// translations while the driver unmaps, and then uses the memory as its own. The oracle: a write of
// the device that is not ordered with the owner's use is a data race.
#include "moat/explore/explored_sync.hpp"
#include "moat/iommu/soft_iommu.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"

#include "scenarios/arena_tables.hpp"
#include "scenarios/scenario.hpp"

namespace moat::scenarios {

namespace iommu_unmap {

namespace {

using Vtd = formats::VtdSecondStage<3>;
using Types = Tree<Vtd, ExploredSync, ArenaTables>;
using Shipped = iommu::Generations<ExploredSync>;

/// The generation changes, and nobody waits for the accesses that are under way.
struct Unwaited : Shipped {
    void invalidate(const InvalidationRequest<Iova>& request) { forget(request); }
};

/// Accesses are waited for, but what devices have cached stays good.
struct Unforgotten : Shipped {
    void invalidate(const InvalidationRequest<Iova>&) { wait_for_accesses(); }
};

/// The wait comes before the change.
struct WaitedFirst : Shipped {
    void invalidate(const InvalidationRequest<Iova>& request) {
        wait_for_accesses();
        forget(request);
    }
};

constexpr Iova buffer_start(0x1000);
constexpr ByteCount buffer_bytes(0x1000);
constexpr PhysicalAddress buffer_physical(0x4000'0000);

/// One page, of which only the address is ever used.
struct OnePage {
    static std::byte* find(PhysicalAddress, ByteCount) {
        static std::byte page[4096];
        return page;
    }
};

template <class Invalidator>
struct World {
    using Domain = iommu::SoftDomain<Types, Invalidator>;
    using Device = iommu::SoftDevice<Domain, OnePage>;

    ArenaTables tables;
    OnePage memory;
    Domain domain{*Domain::Table::create(tables)};
    Device device{fault::Source::pci(0, 3, 0, 0), memory, {}};
    typename Device::Attached attached{Device::Attached::Kind::translated, &domain, 1};
    iommu::Lane<Device> lane{device};
    /// The buffer: the device's until unmap returns, the driver's afterwards.
    ExploredSync::Plain<unsigned> bytes{0};
};

/// Without the record of a refusal: that is kept in memory which the explorer does not own.
template <class Invalidator>
void write_by_iova(World<Invalidator>& world) {
    using Lane = iommu::Lane<typename World<Invalidator>::Device>;
    const typename Lane::Batch batch(world.lane);
    if (world.lane.template translate<fault::Access::write>(batch, buffer_start) != nullptr)
        world.bytes.write(1);
}

template <class Invalidator>
[[nodiscard]] explore::Program program_with(const Configuration& text) {
    const unsigned accesses = number(text, "accesses");
    return [accesses](explore::Setup& setup) {
        auto& world = setup.make<World<Invalidator>>();
        const auto mapped =
            world.domain.map(buffer_start, buffer_bytes, buffer_physical, read_write);
        ExploredSync::check(mapped.has_value(), "a free page can be mapped");
        world.device.attach(world.attached);
        setup.thread("device", [&world, accesses] {
            for (unsigned i = 0; i != accesses; ++i)
                write_by_iova(world);
        });
        setup.thread("driver", [&world] {
            const auto unmapped = world.domain.unmap(buffer_start, buffer_bytes);
            ExploredSync::check(unmapped.has_value(), "a mapped page can be unmapped");
            world.bytes.write(2);
        });
        setup.at_end(
            [&world] { ExploredSync::check(world.bytes.read() == 2, "the driver's bytes stay"); });
    };
}

[[nodiscard]] explore::Program program(const Configuration& text) {
    const std::string& variant = text.at("variant");
    if (variant == "unwaited")
        return program_with<Unwaited>(text);
    if (variant == "unforgotten")
        return program_with<Unforgotten>(text);
    if (variant == "waited-first")
        return program_with<WaitedFirst>(text);
    return program_with<Shipped>(text);
}

} // namespace

} // namespace iommu_unmap

Scenario iommu_scenario() {
    return {.name = "iommu",
            .summary = "the shipped software IOMMU: an unmap returns when no access is left",
            .parameters =
                {{.name = "accesses", .preset = "2", .help = "writes of the device", .most = 4},
                 {.name = "variant",
                  .preset = "shipped",
                  .help = "invalidation as it is, or with one rule broken",
                  .values = {"shipped", "unwaited", "unforgotten", "waited-first"}}},
            .program = &iommu_unmap::program,
            .scope = [](const Configuration& text) {
                return "iommu " + text.at("variant") + ": a device of " +
                       counted(number(text, "accesses"), "write") +
                       ", a driver that unmaps the page strictly";
            }};
}

} // namespace moat::scenarios
