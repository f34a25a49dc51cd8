// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The follower on event streams: what happens in a kernel, and what a trace makes of it.
#include "watch/follower.hpp"

#include <gtest/gtest.h>
#include <optional>
#include <random>
#include <set>

namespace moat::watch {

namespace {

using fault::Allows;
using fault::DmaEvent;
using fault::Kind;

constexpr std::string_view edu = "0000:00:04.0";
constexpr std::uint64_t page = 4096;

[[nodiscard]] IovaRange bytes(std::uint64_t start, std::uint64_t size) {
    return {Iova(start), ByteCount(size)};
}

/// What the tests look at of a finding, beyond the callback.
struct Seen {
    Kind kind = Kind::never_mapped;
    std::optional<IovaRange> range = {};
    fault::Distance distance = {};
    std::string label = {};
    std::string driver = {};
    std::size_t stack = 0;
    std::uint64_t guard = 0;
    std::vector<std::string> notes = {};
    bool has_second_explanation = false;
    std::optional<IovaRange> last_mapped = {};
};

/// Feeds events, a millisecond apart.
class Stream {
  public:
    void pass(std::uint64_t milliseconds) { now_ += milliseconds * 1'000'000; }

    void add(DmaEvent event) {
        pass(1);
        event.time_ns = now_;
        if (event.device.empty())
            event.device = device_;
        const auto keep = [this](const Finding& finding) { seen_ = look_at(finding); };
        follower.add(event, keep);
    }

    void map(std::uint64_t start, std::uint64_t size, Allows allows = Allows::read_write) {
        add({.call = "dma_map_page",
             .range = bytes(start, size),
             .allows = allows,
             .stack = stack});
    }

    void unmap(std::uint64_t start) {
        add({.kind = DmaEvent::Kind::unmap, .call = "dma_unmap_page", .range = bytes(start, 1)});
    }

    /// Of a scatter list's segment.
    void map_segment(std::uint64_t start, std::uint64_t physical) {
        add({.call = "dma_map_sg", .range = bytes(start, page), .physical = physical});
    }

    void unmap_page(std::uint64_t physical) {
        add({.kind = DmaEvent::Kind::unmap_page, .call = "dma_unmap_sg", .physical = physical});
    }

    void allocate(std::uint64_t start, std::uint64_t size) {
        add({.kind = DmaEvent::Kind::allocate,
             .call = "iommu_dma_alloc_iova",
             .range = bytes(start, size)});
    }

    void free_anywhere(std::uint64_t start) {
        const auto ignore = [](const Finding&) {};
        follower.add({.kind = DmaEvent::Kind::free, .time_ns = now_, .range = bytes(start, page)},
                     ignore);
    }

    /// A fault that names a page, as VT-d's do.
    Seen fault(std::uint64_t start, fault::Access access = fault::Access::write) {
        const fault::Record record{.source = fault::Source::pci(0, 4, 0),
                                   .access = access,
                                   .precision = fault::Precision::page,
                                   .reason = fault::Reason::permission,
                                   .where = bytes(start, page)};
        seen_.reset();
        add({.kind = DmaEvent::Kind::fault, .record = record});
        return seen_.value();
    }

    void of(std::string_view device) { device_ = device; }

    [[nodiscard]] DeviceCounts counts(std::string_view device = edu) const {
        for (const DeviceCounts& each : follower.devices())
            if (each.device == device)
                return each;
        return {};
    }

    Follower follower;
    std::vector<std::uintptr_t> stack = {0xffffffff81000010, 0xffffffff81000020};

  private:
    static Seen look_at(const Finding& finding) {
        const fault::Diagnosis& diagnosis = finding.diagnosis;
        Seen seen{.kind = diagnosis.kind, .driver = std::string(finding.driver)};
        seen.distance = diagnosis.distance;
        seen.notes = finding.notes;
        if (finding.last_mapped)
            seen.last_mapped = finding.last_mapped->range;
        seen.has_second_explanation =
            diagnosis.past.has_value() && diagnosis.kind != Kind::use_after_unmap;
        const fault::Mapping* const mapping = diagnosis.mapping ? &*diagnosis.mapping
                                              : diagnosis.past  ? &diagnosis.past->mapping
                                                                : nullptr;
        if (mapping != nullptr) {
            seen.range = mapping->range;
            seen.label = mapping->label;
            seen.stack = mapping->mapped.stack.size();
            seen.guard = mapping->guard_after.value();
        }
        return seen;
    }

    std::uint64_t now_ = 1'000'000'000;
    std::string_view device_ = edu;
    std::optional<Seen> seen_;
};

[[nodiscard]] bool mentions(const Seen& seen, std::string_view words) {
    for (const std::string& note : seen.notes)
        if (note.find(words) != std::string::npos)
            return true;
    return false;
}

} // namespace

TEST(Follower, names_the_mapping_that_a_device_ran_past) {
    Stream stream;
    stream.add({.kind = DmaEvent::Kind::device, .driver = "edu_dma", .group = 3});
    stream.map(0x10000, page);
    const Seen seen = stream.fault(0x11000);
    EXPECT_EQ(seen.kind, Kind::out_of_bounds_right);
    EXPECT_EQ(seen.range, bytes(0x10000, page));
    EXPECT_EQ(seen.distance, (fault::Distance{1, page}));
    EXPECT_EQ(seen.label, "edu_dma: dma_map_page");
    EXPECT_EQ(seen.driver, "edu_dma");
    EXPECT_EQ(seen.stack, 2U);
    EXPECT_TRUE(seen.notes.empty());
}

TEST(Follower, names_the_mapping_that_a_device_ran_before) {
    Stream stream;
    stream.map(0x10000, page);
    EXPECT_EQ(stream.fault(0xf000).kind, Kind::out_of_bounds_left);
}

TEST(Follower, names_a_mapping_that_ended) {
    Stream stream;
    stream.map(0x10000, page);
    stream.unmap(0x10000);
    const Seen seen = stream.fault(0x10000);
    EXPECT_EQ(seen.kind, Kind::use_after_unmap);
    EXPECT_EQ(seen.range, bytes(0x10000, page));
}

TEST(Follower, reports_an_overrun_of_a_mapping_that_ended_while_the_fault_was_logged) {
    Stream stream;
    stream.map(0x10000, page);
    stream.unmap(0x10000);
    const Seen seen = stream.fault(0x11000);
    EXPECT_EQ(seen.kind, Kind::out_of_bounds_right);
    EXPECT_EQ(seen.range, bytes(0x10000, page));
    EXPECT_TRUE(mentions(seen, "ended just before"));
    stream.pass(1'000);
    EXPECT_EQ(stream.fault(0x11000).kind, Kind::use_after_unmap);
}

TEST(Follower, reports_the_direction_of_a_mapping_that_ended_while_the_fault_was_logged) {
    Stream stream;
    stream.map(0x10000, page, Allows::read);
    stream.unmap(0x10000);
    EXPECT_EQ(stream.fault(0x10000).kind, Kind::permission);
    EXPECT_EQ(stream.fault(0x10000, fault::Access::read).kind, Kind::use_after_unmap);
}

TEST(Follower, names_the_direction_that_a_device_violated) {
    Stream stream;
    stream.map(0x10000, page, Allows::read);
    EXPECT_EQ(stream.fault(0x10000).kind, Kind::permission);
}

TEST(Follower, reports_a_device_that_mapped_nothing) {
    Stream stream;
    const Seen seen = stream.fault(0);
    EXPECT_EQ(seen.kind, Kind::never_mapped);
    EXPECT_TRUE(mentions(seen, "no mapping of this device"));
}

TEST(Follower, names_the_last_mapping_if_the_fault_is_far_from_all) {
    Stream stream;
    stream.map(0xff000000, page);
    stream.map(0xfe000000, 512);
    const Seen far = stream.fault(0);
    EXPECT_EQ(far.kind, Kind::wild);
    EXPECT_EQ(far.last_mapped, bytes(0xfe000000, 512));
    EXPECT_EQ(stream.fault(0xff001000).last_mapped, std::nullopt);
}

TEST(Follower, prefers_a_living_neighbour_to_a_mapping_that_ended_long_ago) {
    Stream stream;
    stream.map(0x11000, page);
    stream.unmap(0x11000);
    stream.pass(10'000);
    stream.map(0x10000, page);
    const Seen seen = stream.fault(0x11000);
    EXPECT_EQ(seen.kind, Kind::out_of_bounds_right);
    EXPECT_EQ(seen.range, bytes(0x10000, page));
    EXPECT_TRUE(seen.has_second_explanation);
}

TEST(Follower, names_the_ended_mapping_whose_address_was_reused_before_the_log) {
    Stream stream;
    stream.map(0x10000, page);
    stream.unmap(0x10000);
    stream.map(0x10000, 512);
    const Seen seen = stream.fault(0x10000);
    EXPECT_EQ(seen.kind, Kind::use_after_unmap);
    EXPECT_EQ(seen.range, bytes(0x10000, page));
}

TEST(Follower, accepts_an_unmap_that_is_traced_after_the_next_map) {
    Stream stream;
    stream.map(0x10000, page);
    stream.map(0x10000, 512); // the unmap before it is traced late
    stream.unmap(0x10000);
    EXPECT_EQ(stream.counts().live, 1U);
    EXPECT_EQ(stream.counts().live_bytes, 512U);
    stream.unmap(0x10000);
    EXPECT_EQ(stream.counts().live, 0U);
    EXPECT_EQ(stream.counts().unknown_unmaps, 0U);
    EXPECT_EQ(stream.follower.overlaps(), 0U);
}

TEST(Follower, counts_a_map_over_a_mapping_that_never_ended) {
    Stream stream;
    stream.map(0x10000, page);
    stream.map(0x10000, 512);
    stream.pass(2'000);
    stream.unmap(0x10000); // too late for the first: it is the second's
    EXPECT_EQ(stream.follower.overlaps(), 1U);
    EXPECT_EQ(stream.counts().live, 0U);
}

TEST(Follower, ends_all_mappings_that_one_unmap_covers) {
    Stream stream;
    stream.map(0x10000, page);
    stream.map(0x11000, page);
    stream.map(0x13000, page);
    stream.add({.kind = DmaEvent::Kind::unmap, .range = bytes(0x10000, 2 * page)});
    EXPECT_EQ(stream.counts().live, 1U);
    EXPECT_EQ(stream.fault(0x11000).kind, Kind::use_after_unmap);
    EXPECT_EQ(stream.counts().unknown_unmaps, 0U);
}

TEST(Follower, finds_the_mapping_of_an_unmap_that_names_a_physical_address) {
    Stream stream;
    stream.map_segment(0x10000, 0x9000);
    stream.map_segment(0x20000, 0xa000);
    stream.unmap_page(0x9000);
    EXPECT_EQ(stream.counts().live, 1U);
    EXPECT_EQ(stream.fault(0x10000).kind, Kind::use_after_unmap);
    EXPECT_EQ(stream.fault(0x21000).kind, Kind::out_of_bounds_right);
}

TEST(Follower, doubts_two_mappings_of_one_page_when_one_of_them_ends) {
    Stream stream;
    stream.map_segment(0x10000, 0x9000);
    stream.map_segment(0x20000, 0x9000);
    stream.unmap_page(0x9000);
    EXPECT_EQ(stream.counts().live, 1U);
    EXPECT_TRUE(mentions(stream.fault(0x21000), "does not show whether"));
}

TEST(Follower, skips_unmaps_of_mappings_from_before_the_watch) {
    Stream stream;
    stream.unmap(0x10000);
    stream.unmap_page(0x9000);
    EXPECT_EQ(stream.counts().unknown_unmaps, 2U);
    EXPECT_EQ(stream.counts().live, 0U);
}

TEST(Follower, doubts_mappings_older_than_a_loss) {
    Stream stream;
    stream.map(0x10000, page);
    EXPECT_TRUE(stream.fault(0x11000).notes.empty());
    stream.add({.kind = DmaEvent::Kind::lost, .count = 7});
    EXPECT_TRUE(mentions(stream.fault(0x11000), "7 events were lost after this mapping"));
    EXPECT_EQ(stream.follower.lost(), 7U);
}

TEST(Follower, owes_no_unmap_that_was_lost) {
    Stream stream;
    stream.map(0x10000, page);
    stream.add({.kind = DmaEvent::Kind::lost});
    stream.map(0x10000, 512);
    stream.unmap(0x10000);
    EXPECT_EQ(stream.counts().live, 0U);
    EXPECT_EQ(stream.follower.lost(), 1U);
}

TEST(Follower, trusts_mappings_newer_than_a_loss) {
    Stream stream;
    stream.add({.kind = DmaEvent::Kind::lost, .count = 7});
    stream.map(0x10000, page);
    EXPECT_TRUE(stream.fault(0x11000).notes.empty());
}

TEST(Follower, searches_all_devices_of_a_group) {
    Stream stream;
    stream.add({.kind = DmaEvent::Kind::device, .group = 3});
    stream.of("0000:00:05.0");
    stream.add({.kind = DmaEvent::Kind::device, .driver = "nvme", .group = 3});
    stream.map(0x10000, page);
    stream.of(edu);
    const Seen seen = stream.fault(0x11000);
    EXPECT_EQ(seen.range, bytes(0x10000, page));
    EXPECT_TRUE(mentions(seen, "belongs to 0000:00:05.0"));
}

TEST(Follower, keeps_the_addresses_of_two_groups_apart) {
    Stream stream;
    stream.add({.kind = DmaEvent::Kind::device, .group = 3});
    stream.of("0000:00:05.0");
    stream.add({.kind = DmaEvent::Kind::device, .group = 4});
    stream.map(0x10000, page);
    stream.of(edu);
    EXPECT_EQ(stream.fault(0x11000).kind, Kind::never_mapped);
}

TEST(Follower, describes_an_allocation_only_until_a_mapping_in_it_is_traced) {
    Stream stream;
    stream.allocate(0x10000, 2 * page);
    EXPECT_TRUE(mentions(stream.fault(0x12000), "whole pages"));
    stream.map(0x10200, 512);
    EXPECT_EQ(stream.counts().live, 1U);
    EXPECT_EQ(stream.counts().maps, 1U);
    const Seen seen = stream.fault(0x12000);
    EXPECT_EQ(seen.range, bytes(0x10200, 512));
    EXPECT_TRUE(seen.notes.empty());
}

TEST(Follower, accepts_a_second_unmap_of_what_the_iova_api_unlinked) {
    Stream stream;
    stream.allocate(0x10000, 2 * page);
    stream.map(0x10000, page);
    stream.unmap(0x10000);
    stream.unmap(0x10000);
    EXPECT_EQ(stream.counts().unknown_unmaps, 0U);
    stream.free_anywhere(0x10000);
    stream.unmap(0x10000);
    EXPECT_EQ(stream.counts().unknown_unmaps, 1U);
}

TEST(Follower, ends_an_allocation_whose_free_names_no_device) {
    Stream stream;
    stream.allocate(0x10000, page);
    stream.free_anywhere(0x10000);
    EXPECT_EQ(stream.counts().live, 0U);
}

TEST(Follower, ends_the_mappings_of_a_device_that_is_removed) {
    Stream stream;
    stream.map(0x10000, page);
    stream.allocate(0x20000, page);
    stream.add({.kind = DmaEvent::Kind::removed});
    EXPECT_EQ(stream.counts().live, 0U);
    EXPECT_EQ(stream.fault(0x10000).kind, Kind::use_after_unmap);
}

TEST(Follower, follows_a_device_that_comes_back) {
    Stream stream;
    stream.add({.kind = DmaEvent::Kind::device, .driver = "edu", .group = 3});
    stream.map(0x10000, page);
    stream.add({.kind = DmaEvent::Kind::removed});
    stream.add({.kind = DmaEvent::Kind::device, .driver = "edu", .group = 5});
    stream.map(0x20000, page);
    EXPECT_EQ(stream.counts().live, 1U);
    EXPECT_EQ(stream.fault(0x21000).range, bytes(0x20000, page));
}

TEST(Follower, knows_the_guards_of_mappings_made_while_the_device_is_guarded) {
    Stream stream;
    stream.map(0x10000, page);
    stream.add({.kind = DmaEvent::Kind::device, .count = 2 * page, .driver = "edu"});
    stream.map(0x20000, 1000);
    stream.add({.kind = DmaEvent::Kind::device, .driver = "edu"});
    stream.map(0x30000, page);
    EXPECT_EQ(stream.fault(0x11000).guard, 0U);
    EXPECT_EQ(stream.fault(0x21000).guard, 2 * page);
    EXPECT_EQ(stream.fault(0x31000).guard, 0U);
}

TEST(Follower, blames_the_owner_of_a_guard_before_a_past_mapping_there) {
    Stream stream;
    stream.map(0x11000, page);
    stream.unmap(0x11000);
    stream.add({.kind = DmaEvent::Kind::device, .count = page, .driver = "edu"});
    stream.map(0x10000, page);
    const Seen seen = stream.fault(0x11000);
    EXPECT_EQ(seen.kind, Kind::out_of_bounds_right);
    EXPECT_EQ(seen.range, bytes(0x10000, page));
}

TEST(Follower, knows_no_guard_where_a_mapping_lies) {
    Stream stream;
    stream.add({.kind = DmaEvent::Kind::device, .count = 2 * page, .driver = "edu"});
    stream.map(0x12000, page);
    stream.map(0x10000, page); // plain: the guard would reach into the other mapping
    EXPECT_EQ(stream.fault(0x11000).guard, 0U);
    stream.map(0x20000, page);
    stream.map(0x21000, 8); // the next segment of a list
    stream.unmap(0x21000);
    EXPECT_EQ(stream.fault(0x21000, fault::Access::read).kind, Kind::use_after_unmap);
    stream.map(0x33000, page);
    stream.map(0x30000, page); // its guard ends where the other mapping begins
    EXPECT_EQ(stream.fault(0x31000).guard, 2 * page);
}

TEST(Follower, says_that_it_cannot_follow_an_untranslated_device) {
    Stream stream;
    stream.add({.kind = DmaEvent::Kind::device, .driver = "edu", .translated = false});
    stream.map(0x10000, page);
    EXPECT_EQ(stream.counts().live, 0U);
    EXPECT_EQ(stream.counts().maps, 1U);
    EXPECT_TRUE(mentions(stream.fault(0x11000), "passes this device's accesses through"));
}

TEST(Follower, counts_faults_that_no_line_describes) {
    Stream stream;
    stream.map(0x10000, page);
    static_cast<void>(stream.fault(0x11000));
    stream.add({.kind = DmaEvent::Kind::fault_count, .count = 5});
    EXPECT_EQ(stream.follower.faults_without_line(), 4U);
    stream.add({.kind = DmaEvent::Kind::suppressed, .count = 30});
    EXPECT_EQ(stream.follower.faults_without_line(), 30U);
}

TEST(Follower, agrees_with_a_plain_list_of_mappings_on_random_traffic) {
    std::mt19937_64 random(1);
    Stream stream;
    std::set<std::uint64_t> live;
    for (unsigned step = 0; step != 20'000; ++step) {
        const std::uint64_t start = (random() % 64) * page;
        if (live.contains(start)) {
            stream.unmap(start);
            live.erase(start);
        } else {
            stream.map(start, 1 + random() % page);
            live.insert(start);
        }
        ASSERT_EQ(stream.counts().live, live.size()) << "step " << step;
    }
    EXPECT_EQ(stream.follower.overlaps(), 0U);
    EXPECT_EQ(stream.counts().unknown_unmaps, 0U);
}

} // namespace moat::watch
