// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "replay.hpp"

#include "moat/core/bits.hpp"
#include "moat/dma/space.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/owned_tables.hpp"
#include "moat/sync/real.hpp"

#include "exposure.hpp"

#include <algorithm>
#include <chrono>
#include <memory>

namespace moat::watch {

namespace {

using ReplayTree = Tree<formats::VtdSecondStage<4>, RealSync, TablePool<RealSync>>;
using ReplayDomain = iommu::SoftDomain<ReplayTree>;
using ReplaySpace = dma::Space<ReplayDomain, RealSync>;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t granule = 4096;
constexpr unsigned most_kept_alignment_lg2 = 6; ///< of a buffer that is moved

/// An empty space, its domain and their tables.
class World {
  public:
    [[nodiscard]] static Result<std::unique_ptr<World>> create(const GroupTraffic& traffic,
                                                               const Policy& policy) {
        std::unique_ptr<World> world(new World);
        MOAT_LET(auto tables, OwnedTables<RealSync>::create(tables_for(traffic)));
        world->tables_ = std::move(tables);
        MOAT_LET(auto table, ReplayDomain::Table::create(world->tables_->pool()));
        world->domain_ = std::make_unique<ReplayDomain>(std::move(table));
        MOAT_LET(auto space, ReplaySpace::create(*world->domain_,
                                                 {.options = {.level = dma::Level::guard,
                                                              .guard = policy.guard,
                                                              .guard_before = policy.guard_before,
                                                              .quarantine = policy.quarantine}}));
        world->space_ = std::move(space);
        return world;
    }

    [[nodiscard]] ReplaySpace& space() { return *space_; }

    [[nodiscard]] std::uint64_t tables() const { return tables_->pool().units_in_use(); }

  private:
    World() = default;

    /// Virtual memory; the system commits what is used.
    [[nodiscard]] static std::size_t tables_for(const GroupTraffic& traffic) {
        constexpr std::size_t most = std::size_t{1} << 18;
        std::size_t wanted = 64;
        for (const TrafficMapping& each : traffic.mappings)
            wanted = std::min(most, wanted + 4 +
                                        static_cast<std::size_t>(each.range.size().value() >> 21));
        return wanted;
    }

    std::unique_ptr<OwnedTables<RealSync>> tables_;
    std::unique_ptr<ReplayDomain> domain_;
    std::unique_ptr<ReplaySpace> space_;
};

/// A recorded mapping as a policy maps it.
struct Buffer {
    dma::Memory memory = {};
    dma::Direction direction = dma::Direction::bidirectional;
    bool moved = false;
};

/// The memory's address is made up; only its offset in a large page is that of the recorded one.
[[nodiscard]] Buffer buffer_of(const TrafficMapping& mapping, const Policy& policy) {
    const std::uint64_t size = mapping.range.size().value();
    std::uint64_t physical = bit(40) + mapping.range.start().value() % bit(21);
    const bool moved = policy.placement && size < granule;
    if (moved) {
        const std::uint64_t alignment =
            bit(std::min(alignment_lg2(physical), most_kept_alignment_lg2));
        const std::uint64_t right = (granule - size) / alignment * alignment;
        physical =
            physical / granule * granule + (*policy.placement == dma::Placement::right ? right : 0);
    }
    const fault::Allows allows =
        mapping.allows == fault::Allows::nothing ? fault::Allows::read_write : mapping.allows;
    return {.memory = {.bytes = {reinterpret_cast<std::byte*>(physical), size},
                       .physical = PhysicalAddress(physical)},
            .direction = static_cast<dma::Direction>(static_cast<std::uint8_t>(allows) - 1),
            .moved = moved};
}

/// Where the space mapped each buffer; empty if it is not mapped.
using Places = std::vector<IovaRange>;

/// Maps the buffer `number`. Return: whether it has an address.
bool map_one(ReplaySpace& space, const Buffer& buffer, IovaRange& place) {
    const Result<Iova> iova = space.map(buffer.memory, buffer.direction);
    place = iova ? IovaRange(*iova, buffer.memory.size()) : IovaRange();
    return iova.has_value();
}

void unmap_one(ReplaySpace& space, const Buffer& buffer, IovaRange& place) {
    if (place.empty())
        return;
    const auto unmapped = space.unmap(place.start(), place.size(), buffer.direction);
    MOAT_CHECK(unmapped.has_value(), "what the replay mapped can be unmapped");
    place = IovaRange();
}

/// Runs the traffic once, and looks at the space after each step.
[[nodiscard]] Result<PolicyOutcome> observe(const GroupTraffic& traffic, const Policy& policy,
                                            const std::vector<Buffer>& buffers) {
    MOAT_LET(auto world, World::create(traffic, policy));
    ReplaySpace& space = world->space();
    ExposureMeter meter(traffic, policy);
    Places places(buffers.size());
    PolicyOutcome outcome;
    Cost& cost = outcome.cost;
    const std::uint64_t all_addresses = space.stats().free.value();
    std::uint64_t searches = space.stats().search_steps;
    for (const TrafficStep& step : traffic.steps) {
        if (step.kind == TrafficStep::Kind::fault) {
            meter.fault(traffic.faults[step.number]);
            continue;
        }
        const Buffer& buffer = buffers[step.number];
        IovaRange& place = places[step.number];
        if (step.kind == TrafficStep::Kind::end) {
            meter.end(step.number, step.time_ns);
            unmap_one(space, buffer, place);
            continue;
        }
        ++cost.maps;
        if (!map_one(space, buffer, place)) {
            ++cost.failed_maps;
            continue;
        }
        meter.begin(step.number, place, step.time_ns);
        cost.copied += buffer.moved ? place.size() : ByteCount();
        const iova::Stats stats = space.stats();
        cost.searched += stats.search_steps != searches ? 1 : 0;
        searches = stats.search_steps;
        cost.peak_addresses =
            std::max(cost.peak_addresses, ByteCount(all_addresses - stats.free.value()));
        cost.peak_tables = std::max(cost.peak_tables, world->tables());
    }
    for (std::size_t number = 0; number != buffers.size(); ++number)
        unmap_one(space, buffers[number], places[number]);
    outcome.exposure = meter.finish();
    return outcome;
}

/// Return: nanoseconds of the traffic's maps and unmaps.
[[nodiscard]] Result<double> time_once(const GroupTraffic& traffic, const Policy& policy,
                                       const std::vector<Buffer>& buffers) {
    MOAT_LET(auto world, World::create(traffic, policy));
    ReplaySpace& space = world->space();
    Places places(buffers.size());
    const Clock::time_point start = Clock::now();
    for (const TrafficStep& step : traffic.steps) {
        if (step.kind == TrafficStep::Kind::begin)
            (void)map_one(space, buffers[step.number], places[step.number]);
        else if (step.kind == TrafficStep::Kind::end)
            unmap_one(space, buffers[step.number], places[step.number]);
    }
    const std::chrono::duration<double, std::nano> took = Clock::now() - start;
    for (std::size_t number = 0; number != buffers.size(); ++number)
        unmap_one(space, buffers[number], places[number]);
    return took.count();
}

} // namespace

Exposure exposure_of(const GroupTraffic& traffic) {
    ExposureMeter meter(traffic, {});
    for (const TrafficStep& step : traffic.steps)
        switch (step.kind) {
        case TrafficStep::Kind::begin:
            meter.begin(step.number, traffic.mappings[step.number].range, step.time_ns);
            break;
        case TrafficStep::Kind::end:
            meter.end(step.number, step.time_ns);
            break;
        case TrafficStep::Kind::fault:
            meter.fault(traffic.faults[step.number]);
            break;
        }
    return meter.finish();
}

Result<PolicyOutcome> replay(const GroupTraffic& traffic, const Policy& policy) {
    std::vector<Buffer> buffers;
    buffers.reserve(traffic.mappings.size());
    for (const TrafficMapping& each : traffic.mappings)
        buffers.push_back(buffer_of(each, policy));
    auto outcome = observe(traffic, policy, buffers);
    if (!outcome || outcome->cost.maps == 0)
        return outcome;
    constexpr int most_runs = 10;
    constexpr auto enough = std::chrono::milliseconds(500);
    const Clock::time_point start = Clock::now();
    double least = 0;
    for (int run = 0; run != most_runs && Clock::now() - start < enough; ++run) {
        MOAT_LET(const auto took, time_once(traffic, policy, buffers));
        least = run == 0 ? took : std::min(least, took);
    }
    outcome->cost.ns_per_pair = least / static_cast<double>(outcome->cost.maps);
    return outcome;
}

} // namespace moat::watch
