// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "event_list.hpp"
#include "watch/reduce.hpp"

#include <gtest/gtest.h>

namespace moat::watch {

namespace {

using fault::DmaEvent;
using fault::Kind;

struct Reduced {
    Result<Reduction> reduction = fail(ErrorCode::empty, "nothing was reduced");
    EventList list;
};

[[nodiscard]] Reduced reduced(const EventList& list, std::uint64_t which = 0) {
    Reduced result;
    const auto source = [&](fault::DmaEventSink sink) -> Result<void> {
        for (const fault::OwnedEvent& each : list.events)
            sink(each.view());
        return {};
    };
    const auto keep = [&](const DmaEvent& event) { result.list.events.emplace_back(event); };
    result.reduction = reduce(source, which, keep);
    return result;
}

/// Of the fault `which`.
[[nodiscard]] fault::Diagnosis diagnosis_of(Follower& follower, const EventList& list,
                                            std::uint64_t which = 0) {
    fault::Diagnosis found;
    const auto note = [&](const Finding& finding) {
        if (which-- == 0)
            found = finding.diagnosis;
    };
    for (const fault::OwnedEvent& each : list.events)
        follower.add(each.view(), note);
    return found;
}

TEST(Reduce, keeps_an_overrun_and_the_mapping_it_left) {
    EventList list;
    list.traffic(1, 1000);
    list.map(0x1000000, 0x800);
    list.traffic(2, 500);
    list.fault(0x1001000);
    list.traffic(3, 500);
    const Reduced result = reduced(list);
    ASSERT_TRUE(result.reduction) << result.reduction.error();
    EXPECT_EQ(result.reduction->events, 2002U);
    EXPECT_EQ(result.reduction->kept, 2U);
    ASSERT_EQ(result.list.events.size(), 2U);
    Follower whole;
    Follower few;
    const fault::Diagnosis before = diagnosis_of(whole, list);
    const fault::Diagnosis after = diagnosis_of(few, result.list);
    EXPECT_EQ(after.kind, Kind::out_of_bounds_right);
    EXPECT_EQ(after.kind, before.kind);
    EXPECT_EQ(after.record, before.record);
    EXPECT_EQ(after.mapping->range, before.mapping->range);
    EXPECT_EQ(after.mapping->mapped.time_ns, before.mapping->mapped.time_ns);
    EXPECT_EQ(after.distance, before.distance);
}

TEST(Reduce, keeps_map_and_unmap_of_a_use_after_unmap) {
    EventList list;
    list.traffic(4, 1000);
    list.map(0x1000000, 0x1000);
    list.unmap(0x1000000);
    list.fault(0x1000000);
    const Reduced result = reduced(list);
    ASSERT_TRUE(result.reduction) << result.reduction.error();
    ASSERT_EQ(result.list.events.size(), 3U);
    EXPECT_EQ(result.list.events[0].event.kind, DmaEvent::Kind::map);
    EXPECT_EQ(result.list.events[1].event.kind, DmaEvent::Kind::unmap);
    EXPECT_EQ(result.list.events[2].event.kind, DmaEvent::Kind::fault);
}

TEST(Reduce, keeps_the_fault_that_is_asked_for) {
    EventList list;
    list.map(0x1000000, 0x1000);
    list.fault(0x1001000);
    list.map(0x2000000, 0x1000);
    list.fault(0x2001000);
    const Reduced second = reduced(list, 1);
    ASSERT_TRUE(second.reduction);
    ASSERT_EQ(second.list.events.size(), 2U);
    EXPECT_EQ(second.list.events[0].event.range.start(), Iova(0x2000000));
    const Reduced third = reduced(list, 2);
    ASSERT_FALSE(third.reduction);
    EXPECT_EQ(third.reduction.error().code(), ErrorCode::not_found);
}

TEST(Reduce, keeps_other_devices_of_the_group_if_they_matter) {
    EventList list;
    list.add({.kind = DmaEvent::Kind::device, .device = "0000:00:05.0", .group = 9});
    list.add({.kind = DmaEvent::Kind::device, .group = 9});
    list.add({.device = "0000:00:05.0", .range = {Iova(0x1000000), ByteCount(0x1000)}});
    list.traffic(6, 200);
    list.fault(0x1001000);
    const Reduced result = reduced(list);
    ASSERT_TRUE(result.reduction) << result.reduction.error();
    EXPECT_EQ(result.list.events.size(), 4U);
    Follower few;
    EXPECT_EQ(diagnosis_of(few, result.list).mapping->range.start(), Iova(0x1000000));
}

TEST(Reduce, passes_on_the_error_of_its_source) {
    const auto broken = [](fault::DmaEventSink) -> Result<void> {
        return fail(ErrorCode::io, "the file cannot be read");
    };
    const auto ignore = [](const DmaEvent&) {};
    EXPECT_EQ(reduce(broken, 0, ignore).error().code(), ErrorCode::io);
}

} // namespace

} // namespace moat::watch
