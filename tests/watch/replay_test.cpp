// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Recordings replayed: to the same live set, and under policies.
#include "event_list.hpp"
#include "watch/replay.hpp"

#include <gtest/gtest.h>
#include <string>
#include <utility>

namespace moat::watch {

namespace {

[[nodiscard]] std::vector<GroupTraffic> traffic_of(const EventList& list) {
    Traffic traffic;
    Follower follower({.observer = &traffic});
    feed(follower, list.events);
    return traffic.finish();
}

[[nodiscard]] GroupTraffic one_group(const EventList& list) {
    auto groups = traffic_of(list);
    EXPECT_EQ(groups.size(), 1U);
    return groups.empty() ? GroupTraffic() : std::move(groups.front());
}

[[nodiscard]] PolicyOutcome outcome_of(const EventList& list, const Policy& policy) {
    const auto outcome = replay(one_group(list), policy);
    EXPECT_TRUE(outcome) << outcome.error();
    return outcome.value_or(PolicyOutcome());
}

[[nodiscard]] std::vector<std::string> live_set(const Follower& follower) {
    std::vector<std::string> live;
    const auto add = [&](std::string_view device, const fault::Mapping& mapping) {
        live.push_back(std::string(device) + " " + std::to_string(mapping.range.start().value()) +
                       "+" + std::to_string(mapping.range.size().value()) + " " +
                       std::string(mapping.label) + " " + std::to_string(mapping.mapped.time_ns));
    };
    follower.each_live(add);
    return live;
}

constexpr Policy guard_4k = {.guard = ByteCount(4096)};

TEST(Replay, of_a_recording_ends_with_the_same_live_set) {
    EventList list;
    list.traffic(20261129, 3000);
    Follower original;
    feed(original, list.events);
    const fault::FileBytes file = fault::recording_of(list.events);
    fault::RecordingReader reader(fault::read_from(file));
    Follower replayed;
    const auto ignore = [](const Finding&) {};
    for (auto event = reader.next(); event && *event != nullptr; event = reader.next())
        replayed.add(**event, ignore);
    EXPECT_GT(live_set(original).size(), 10U);
    EXPECT_EQ(live_set(replayed), live_set(original));
}

TEST(Traffic, counts_an_allocation_and_the_mapping_in_it_once) {
    EventList list;
    list.allocate(0x10000, 0x2000);
    list.map(0x10010, 0x1100);
    list.unmap(0x10010);
    list.free(0x10000);
    list.allocate(0x20000, 0x1000); // without a traced mapping
    list.free(0x20000);
    const GroupTraffic traffic = one_group(list);
    ASSERT_EQ(traffic.steps.size(), 4U);
    EXPECT_EQ(traffic.mappings[traffic.steps[0].number].range.start(), Iova(0x10010));
    EXPECT_EQ(traffic.steps[1].kind, TrafficStep::Kind::end);
    EXPECT_EQ(traffic.mappings[traffic.steps[2].number].range.start(), Iova(0x20000));
    EXPECT_EQ(traffic.devices, std::set<std::string>{"0000:00:04.0"});
}

TEST(Replay, finds_that_a_guard_separates_adjacent_mappings) {
    EventList list;
    list.map(0x10000, 0x1000);
    list.map(0x11000, 0x1000);
    list.map(0x12000, 0x800);
    list.unmap(0x11000);
    list.map(0x11000, 0x1000);
    EXPECT_EQ(exposure_of(one_group(list)).adjacent_pairs, 4U);
    EXPECT_EQ(exposure_of(one_group(list)).overruns_refused_at_once, 0U);
    const Exposure dense = outcome_of(list, {}).exposure;
    EXPECT_GT(dense.adjacent_pairs, 0U);
    const Exposure guarded = outcome_of(list, guard_4k).exposure;
    EXPECT_EQ(guarded.maps, 4U);
    EXPECT_EQ(guarded.adjacent_pairs, 0U);
    EXPECT_EQ(guarded.overruns_refused_at_once, 3U); // the short one ends inside its page
    EXPECT_EQ(guarded.silent_bytes_after.median, 0U);
    EXPECT_EQ(guarded.underruns_refused_at_once, 4U);
}

TEST(Replay, counts_faults_that_a_policy_attributes_and_silent_ones) {
    EventList list;
    for (std::uint64_t each = 0; each != 8; ++each)
        list.map(0x100000 + each * 0x10000, 0x1000);
    for (std::uint64_t each = 0; each != 8; ++each)
        list.fault(0x101000 + each * 0x10000);
    const Exposure recorded = exposure_of(one_group(list));
    EXPECT_EQ(recorded.faults_attributed, 8U);
    const Exposure dense = outcome_of(list, {}).exposure; // each neighbour takes the access
    EXPECT_GE(dense.faults_silent, 6U);
    EXPECT_EQ(dense.faults_silent + dense.faults_attributed + dense.faults_attributed_elsewhere,
              8U);
    const Exposure guarded = outcome_of(list, guard_4k).exposure;
    EXPECT_EQ(guarded.faults_attributed, 8U);
    EXPECT_EQ(guarded.faults_silent, 0U);
}

TEST(Replay, finds_that_a_quarantine_delays_reuse) {
    EventList list;
    for (int each = 0; each != 200; ++each) {
        list.map(0x10000, 0x1000);
        list.unmap(0x10000);
    }
    list.fault(0x10000);
    const Exposure recorded = exposure_of(one_group(list));
    EXPECT_EQ(recorded.reused_after_unmaps.count, 199U);
    EXPECT_EQ(recorded.reused_after_unmaps.median, 0U);
    EXPECT_EQ(recorded.reused_after_ns.median, 1'000'000U);
    const Exposure plain = outcome_of(list, {}).exposure;
    EXPECT_LT(plain.reused_after_unmaps.median, 64U);
    const Exposure delayed = outcome_of(list, {.quarantine = ByteCount(100 * 4096)}).exposure;
    EXPECT_GE(delayed.reused_after_unmaps.least, 99U);
    EXPECT_GE(delayed.reused_after_ns.least, 99 * 1'000'000U);
    EXPECT_EQ(delayed.faults_attributed, 1U);
}

TEST(Replay, places_small_buffers_at_the_edge_of_a_page) {
    EventList list;
    for (std::uint64_t each = 0; each != 10; ++each)
        list.map(0x100000 + each * 0x10000 + 0x40, 100);
    Policy policy = guard_4k;
    EXPECT_EQ(outcome_of(list, policy).exposure.silent_bytes_after.median, 4096 - 0x40 - 100U);
    policy.placement = dma::Placement::right;
    const PolicyOutcome right = outcome_of(list, policy);
    EXPECT_EQ(right.exposure.silent_bytes_after.median, 28U); // it keeps an alignment of 64
    EXPECT_EQ(right.cost.copied, ByteCount(1000));
    policy.placement = dma::Placement::left;
    EXPECT_EQ(outcome_of(list, policy).exposure.silent_bytes_before.median, 0U);
}

TEST(Replay, measures_what_a_policy_costs) {
    EventList list;
    list.traffic(5, 2000);
    const Cost plain = outcome_of(list, {}).cost;
    const Cost guarded = outcome_of(list, guard_4k).cost;
    EXPECT_GT(plain.maps, 900U);
    EXPECT_EQ(plain.failed_maps, 0U);
    EXPECT_GT(plain.peak_tables, 3U);
    EXPECT_GT(plain.peak_addresses, ByteCount(64 * 4096));
    EXPECT_GT(guarded.peak_addresses, plain.peak_addresses);
    EXPECT_GT(plain.searched, 0U);
    EXPECT_LT(plain.searched, plain.maps / 2); // the others came from a cache
    EXPECT_GT(plain.ns_per_pair, 0);
    EXPECT_EQ(plain.copied, ByteCount(0));
}

TEST(Replay, survives_impossible_mappings) {
    EventList list;
    const std::uint64_t top = ~std::uint64_t{0};
    list.map(0, top);
    list.fault(top - 4095);
    list.map(top, 1);
    list.map(std::uint64_t{1} << 60, std::uint64_t{1} << 57);
    list.map(top - 8191, 8192);
    list.fault(top - 4095);
    list.map(0, 1);
    list.fault(0);
    list.unmap(0);
    for (const GroupTraffic& each : traffic_of(list)) {
        EXPECT_GT(exposure_of(each).maps, 0U);
        const auto outcome = replay(each, {.guard = ByteCount(4096),
                                           .quarantine = ByteCount(top),
                                           .placement = dma::Placement::right});
        EXPECT_TRUE(outcome) << outcome.error();
    }
    const auto refused = replay(one_group(list), {.guard = ByteCount(top)});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::out_of_range);
}

} // namespace

} // namespace moat::watch
