// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped software IOMMU under the explorer: a device writes by IOVA through its cached
// translations while the driver unmaps or poisons, and then uses the memory itself. The property:
// every write of the device is ordered with the driver's use; otherwise it is a data race.
#include "moat/dma/poison.hpp"
#include "moat/iommu/soft_iommu.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"

#include "lab/explore/explored_sync.hpp"
#include "lab/scenarios/arena_tables.hpp"
#include "lab/scenarios/scenario.hpp"

#include <array>

namespace moat::scenarios {

namespace iommu_accesses {

namespace {

using Vtd = formats::VtdSecondStage<3>;
using Shipped = iommu::Generations<ExploredSync>;

/// Changes the generation without waiting for accesses in progress.
struct Unwaited : Shipped {
    void invalidate(const InvalidationRequest<Iova>& request) { forget(request); }

    void invalidate_all() { forget_all(); }
};

/// Waits for accesses, but leaves cached translations valid.
struct Unforgotten : Shipped {
    void invalidate(const InvalidationRequest<Iova>&) { wait_for_accesses(); }

    void invalidate_all() { wait_for_accesses(); }
};

/// A translation of a page stays valid when a long range around it is invalidated.
struct LargeUnseen : Shipped {
    [[nodiscard]] std::uint64_t small(std::uint64_t address, std::uint64_t) const {
        return Shipped::small(address, 0);
    }
};

/// Waits before the change.
struct WaitedFirst : Shipped {
    void invalidate(const InvalidationRequest<Iova>& request) {
        wait_for_accesses();
        forget(request);
    }

    void invalidate_all() {
        wait_for_accesses();
        forget_all();
    }
};

/// A grace period ends while accesses are open, and the tables are freed on its word.
struct WaitSkipped : ExploredSync {
    static void synchronize() {}
};

/// Relaxes the flag that announces poison.
struct Unordered : ExploredSync {
    template <class T>
    struct Atomic : ExploredSync::Atomic<T> {
        using Ordered = ExploredSync::Atomic<T>;
        using Ordered::Ordered;

        T load(std::memory_order) const { return Ordered::load(std::memory_order_relaxed); }

        void store(T value, std::memory_order) { Ordered::store(value, std::memory_order_relaxed); }
    };
};

constexpr Iova buffer_start(0x1000);
constexpr ByteCount buffer_bytes(0x1000);
constexpr PhysicalAddress buffer_physical(0x4000'0000);
constexpr IovaRange first_bytes(buffer_start, ByteCount(64));

/// One page; only its address is used.
struct OnePage {
    static std::byte* find(PhysicalAddress, ByteCount) {
        static std::byte page[4096];
        return page;
    }
};

template <class Invalidator, class PoisonSync>
struct World {
    using Types = Tree<Vtd, typename Invalidator::Sync, ArenaTables>;
    using Domain = iommu::SoftDomain<Types, Invalidator>;
    using Device = iommu::SoftDevice<Domain, OnePage>;

    ArenaTables tables;
    OnePage memory;
    Domain domain{*Domain::Table::create(tables)};
    Device device{fault::Source::pci(0, 3, 0, 0), memory, {}};
    typename Device::Attached attached{Device::Attached::Kind::translated, &domain, 1};
    iommu::Lane<Device> lane{device};
    std::array<std::byte, 1024> room;
    std::pmr::monotonic_buffer_resource ranges{room.data(), room.size(),
                                               std::pmr::null_memory_resource()};
    dma::Poison<PoisonSync> poison{&ranges};
    std::optional<typename Domain::BoundsRegistration> registration;
    /// The buffer's first bytes: the device's, except while the driver has them.
    ExploredSync::Plain<unsigned> bytes{0};

    [[nodiscard]] iommu::ByteBounds bounds() {
        return {[](void* context, Iova start, ByteCount size) {
                    return static_cast<World*>(context)->poison.clear_from(start, size);
                },
                this};
    }
};

/// How the driver takes the bytes before it uses them, and returns them after.
struct Unmapping {
    static void take(auto& world) {
        const auto unmapped = world.domain.unmap(buffer_start, buffer_bytes);
        ExploredSync::check(unmapped.has_value(), "a mapped page can be unmapped");
    }

    static void give_back(auto&) {}
};

/// Unmaps all that the page's table covers: the table goes, while the device may walk it.
struct UnmappingTable : Unmapping {
    static void take(auto& world) {
        const auto unmapped = world.domain.unmap(Iova(0), ByteCount(bit(21)));
        ExploredSync::check(unmapped.has_value(), "all that a table covers can be unmapped");
        ExploredSync::check(world.tables.released() == 1, "the table is free when unmap returns");
    }
};

/// Invalidates later, together with whatever else was unmapped.
struct Deferring : Unmapping {
    static void take(auto& world) {
        const auto unmapped = world.domain.unmap_deferred(buffer_start, buffer_bytes);
        ExploredSync::check(unmapped.has_value(), "a mapped page can be unmapped");
        const auto invalidated = world.domain.invalidate_all();
        ExploredSync::check(invalidated.has_value(), "an invalidation by generations succeeds");
    }
};

struct Poisoning {
    static void take(auto& world) {
        const auto poisoned = dma::poison_and_wait(world.poison, world.domain, first_bytes);
        ExploredSync::check(poisoned.has_value(), "an invalidation by generations succeeds");
    }

    static void give_back(auto&) {}
};

/// Lends the bytes to the device again.
struct Lending : Poisoning {
    static void give_back(auto& world) { world.poison.remove(first_bytes); }
};

/// Without the record of a refusal, which lies in memory outside the arena.
template <class World>
void write_by_iova(World& world) {
    using Lane = iommu::Lane<typename World::Device>;
    const typename Lane::Batch batch(world.lane);
    if (world.lane.template translate<fault::Access::write>(batch, buffer_start) != nullptr)
        world.bytes.write(1);
}

template <class Driver, class Invalidator, class PoisonSync>
[[nodiscard]] explore::Program program_with(unsigned accesses) {
    return [accesses](explore::Setup& setup) {
        auto& world = setup.make<World<Invalidator, PoisonSync>>();
        if constexpr (std::derived_from<Driver, Poisoning>)
            world.registration.emplace(*world.domain.register_bounds(world.bounds()));
        const auto mapped =
            world.domain.map(buffer_start, buffer_bytes, buffer_physical, read_write);
        ExploredSync::check(mapped.has_value(), "a free page can be mapped");
        world.device.attach(world.attached);
        setup.thread("device", [&world, accesses] {
            for (unsigned i = 0; i != accesses; ++i)
                write_by_iova(world);
        });
        setup.thread("driver", [&world] {
            Driver::take(world);
            world.bytes.write(2);
            ExploredSync::check(world.bytes.read() == 2, "the driver's bytes are its own");
            Driver::give_back(world);
        });
    };
}

template <class Invalidator, class PoisonSync = ExploredSync>
[[nodiscard]] explore::Program program_of(const Configuration& text) {
    const std::string& driver = text.at("driver");
    const unsigned accesses = number(text, "accesses");
    if (driver == "poison")
        return program_with<Poisoning, Invalidator, PoisonSync>(accesses);
    if (driver == "lend")
        return program_with<Lending, Invalidator, PoisonSync>(accesses);
    if (driver == "defer")
        return program_with<Deferring, Invalidator, PoisonSync>(accesses);
    if (driver == "unmap-table")
        return program_with<UnmappingTable, Invalidator, PoisonSync>(accesses);
    return program_with<Unmapping, Invalidator, PoisonSync>(accesses);
}

[[nodiscard]] explore::Program program(const Configuration& text) {
    const std::string& variant = text.at("variant");
    if (variant == "unwaited")
        return program_of<Unwaited>(text);
    if (variant == "unforgotten")
        return program_of<Unforgotten>(text);
    if (variant == "large-unseen")
        return program_of<LargeUnseen>(text);
    if (variant == "waited-first")
        return program_of<WaitedFirst>(text);
    if (variant == "wait-skipped")
        return program_of<iommu::Generations<WaitSkipped>>(text);
    if (variant == "unordered")
        return program_of<Shipped, Unordered>(text);
    return program_of<Shipped>(text);
}

} // namespace

} // namespace iommu_accesses

Scenario iommu_scenario() {
    return {.name = "iommu",
            .summary = "the shipped software IOMMU: no access after an unmap or poison returns",
            .parameters =
                {{.name = "accesses", .preset = "2", .help = "writes of the device", .most = 4},
                 {.name = "driver",
                  .preset = "unmap",
                  .help = "revoke access by a strict unmap of the page or of all that its table "
                          "covers, by a deferred unmap, by poison, or by poison and unpoison",
                  .values = {"unmap", "unmap-table", "defer", "poison", "lend"}},
                 {.name = "variant",
                  .preset = "shipped",
                  .help = "the shipped IOMMU, or a mutant that breaks one rule",
                  .values = {"shipped", "unwaited", "unforgotten", "large-unseen", "waited-first",
                             "wait-skipped", "unordered"}}},
            .program = &iommu_accesses::program,
            .scope = [](const Configuration& text) {
                const std::string& driver = text.at("driver");
                return "iommu " + text.at("variant") + ": a device of " +
                       counted(number(text, "accesses"), "write") + ", a driver that " +
                       (driver == "unmap"         ? "unmaps the page strictly"
                        : driver == "unmap-table" ? "unmaps the page strictly, with its table"
                        : driver == "defer"       ? "unmaps the page, then invalidates everything"
                        : driver == "poison"      ? "poisons the bytes"
                                                  : "poisons the bytes for a while");
            }};
}

} // namespace moat::scenarios
