// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The reports: numa_maps, totals, the pagemap scan, residency; and that they change nothing.
#include "moat/mm/readers/pagemap_scan.hpp"
#include "moat/mm/readers/proc.hpp"

#include "fixture.hpp"
#include "numa_line.hpp"

#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <vector>

namespace moat::mm::tests {
namespace {

class ReadersTest : public ::testing::Test {
  protected:
    static constexpr std::uint64_t base = 1ULL << 41;

    void map(std::uint64_t start, std::uint64_t size, const Mapping<Sync>& mapping) {
        ASSERT_TRUE(world.space.map(at(start, size), mapping));
    }

    void fault(std::uint64_t address, Access access = Access::write) {
        ASSERT_TRUE(world.space.fault(VirtualAddress(address), access));
    }

    [[nodiscard]] std::vector<std::string> numa_lines() const {
        std::vector<std::string> lines;
        numa_maps(world.space, [&](std::string_view line) {
            EXPECT_TRUE(line.ends_with('\n'));
            lines.emplace_back(line.substr(0, line.size() - 1));
        });
        return lines;
    }

    World world;
};

using NumaMaps = ReadersTest;

TEST_F(NumaMaps, tell_of_each_mapping_where_its_pages_are) {
    map(base, 8 * mib, {.nodes = {NodeMode::interleave, 0b11}, .name = "heap"});
    ASSERT_TRUE(world.space.populate(at(base, 2 * mib), Access::write));
    fault(base + 2 * mib);
    fault(base + 4 * mib, Access::read); // the zero page does not count
    map(2 * base, 4 * gib, world.bar_mapping());
    fault(2 * base);
    map(3 * base, 4 * page, {.nodes = {NodeMode::bind, 0b10}, .name = "stack"});
    fault(3 * base);
    const auto lines = numa_lines();
    ASSERT_EQ(lines.size(), 3U);
    EXPECT_EQ(lines[0], "20000000000 interleave:0-1 heap anon=1024 dirty=1024 N0=512 N1=512 "
                        "kernelpagesize_kB=4");
    EXPECT_EQ(lines[1], "40000000000 default");
    EXPECT_EQ(lines[2], "60000000000 bind:1 stack anon=1 dirty=1 N1=1 kernelpagesize_kB=4");
}

TEST_F(NumaMaps, count_explicit_huge_pages_by_their_size) {
    map(base, 6 * mib, {.kind = VmaKind::huge, .largest_leaf_lg2 = pmd_lg2});
    fault(base, Access::read);
    fault(base + 2 * mib);
    ASSERT_EQ(numa_lines().size(), 1U);
    EXPECT_EQ(numa_lines()[0],
              "20000000000 default huge anon=2 dirty=1 N0=2 kernelpagesize_kB=2048");
}

TEST_F(NumaMaps, tell_how_often_a_shared_page_is_mapped) {
    std::vector<SharedRam<Sync>::Slot> slots(8);
    SharedRam<Sync> shared(slots, "/dev/shm/ring");
    map(base, 8 * page, {.kind = VmaKind::shared, .shared = &shared});
    map(2 * base, 8 * page, {.kind = VmaKind::shared, .shared = &shared});
    fault(base, Access::read);
    fault(base + page, Access::read);
    fault(2 * base);
    const auto lines = numa_lines();
    ASSERT_EQ(lines.size(), 2U);
    EXPECT_EQ(lines[0], "20000000000 default file=/dev/shm/ring mapped=2 mapmax=2 N0=2 "
                        "kernelpagesize_kB=4");
    EXPECT_EQ(lines[1],
              "40000000000 default file=/dev/shm/ring dirty=1 mapmax=2 N0=1 kernelpagesize_kB=4");
    ASSERT_TRUE(world.space.unmap(at(base, 2 * base)));
    shared.clear(world.memory);
}

TEST_F(NumaMaps, leave_every_leaf_of_a_device_where_it_is) {
    map(base, 8 * gib, world.bar_mapping());
    ASSERT_TRUE(world.space.populate(at(base, 8 * gib), Access::read));
    Listener listener;
    world.space.add_notifier(listener);
    EXPECT_EQ(numa_lines().size(), 1U);
    EXPECT_TRUE(listener.heard.empty());
    for (std::uint64_t i = 0; i != 8; ++i)
        EXPECT_EQ(world.leaf_lg2(base + i * gib), 30U);
    world.space.remove_notifier(listener);
}

TEST_F(NumaMaps, are_of_the_format_that_the_kernel_writes) {
    map(base, 8 * mib, {.nodes = {NodeMode::prefer, 0b100101}, .name = "file=/usr/lib/x"});
    fault(base);
    unsigned kernels = 0;
    std::ifstream kernel("/proc/self/numa_maps");
    for (std::string text; std::getline(kernel, text); ++kernels) {
        const auto line = parse_numa_line(text);
        ASSERT_TRUE(line) << text;
        for (const auto& [name, value] : line->fields)
            EXPECT_TRUE(is_known_field(name)) << text;
    }
    if (kernels == 0)
        GTEST_SKIP() << "this kernel has no numa_maps";
    for (const std::string& text : numa_lines()) {
        const auto line = parse_numa_line(text);
        ASSERT_TRUE(line) << text;
        for (const auto& [name, value] : line->fields)
            EXPECT_TRUE(is_known_field(name)) << text;
    }
    EXPECT_EQ(parse_numa_line(numa_lines()[0])->policy, "prefer:0,2,5");
    EXPECT_FALSE(parse_numa_line("20000000000 default anon="));
}

using Totals = ReadersTest;

TEST_F(Totals, add_up_by_kind) {
    map(base, 4 * mib, {});
    fault(base);
    fault(base + 2 * mib, Access::read);
    map(2 * base, 4 * gib, world.bar_mapping());
    fault(2 * base);
    map(3 * base, 4 * mib, {.kind = VmaKind::huge, .largest_leaf_lg2 = pmd_lg2});
    fault(3 * base, Access::read);
    map(4 * base, 4 * mib, {.kind = VmaKind::device, .region = &world.device_memory});
    fault(4 * base, Access::read);
    const auto totals = memory_totals(world.space, at(0, 5 * base));
    ASSERT_TRUE(totals);
    EXPECT_EQ(totals->size, 4 * gib + 12 * mib);
    EXPECT_EQ(totals->resident, 6 * mib);
    EXPECT_EQ(totals->anonymous, 4 * mib);
    EXPECT_EQ(totals->shared, 2 * mib);
    EXPECT_EQ(totals->anonymous_huge, 2 * mib);
    EXPECT_EQ(totals->explicit_huge, 2 * mib);
    EXPECT_EQ(totals->dirty, 2 * mib);
    EXPECT_EQ(totals->referenced, 6 * mib);
    EXPECT_EQ(totals->zero, 2 * mib);
    EXPECT_EQ(totals->device, gib);
    EXPECT_EQ(memory_totals(world.space, at(2 * base + mib, mib))->device, mib);
}

class Scan : public ReadersTest {
  protected:
    [[nodiscard]] std::string scan(const PageQuery& query) const {
        std::string text;
        const auto done =
            pagemap_scan(world.space, at(base, 16 * mib), query, [&](VirtualRange range, Pages p) {
                text += (text.empty() ? "" : " ") +
                        std::to_string((range.start().value() - base) / page) + "+" +
                        std::to_string(range.size().value() / page) + ":" +
                        std::to_string(static_cast<unsigned>(p));
            });
        EXPECT_TRUE(done);
        return text;
    }

    void SetUp() override {
        map(base, 4 * mib, {.largest_leaf_lg2 = frame_lg2});
        fault(base);
        fault(base + page);
        fault(base + 2 * page, Access::read);
        fault(base + 4 * page);
        map(base + 4 * mib, 4 * mib, {});
        fault(base + 4 * mib);
    }
};

TEST_F(Scan, reports_runs_of_pages_that_match) {
    EXPECT_EQ(scan({}), "0+3:0 4+1:0 1024+512:0");
    EXPECT_EQ(scan({.all = Pages::written}), "0+2:0 4+1:0 1024+512:0");
    EXPECT_EQ(scan({.all = Pages::zero}), "2+1:0");
    EXPECT_EQ(scan({.all = Pages::none, .any = Pages::huge | Pages::zero, .reported = Pages::huge}),
              "2+1:0 1024+512:16");
    EXPECT_EQ(scan({.all = Pages::present | Pages::written, .inverted = Pages::written}), "2+1:0");
    EXPECT_EQ(scan({.all = Pages::present, .inverted = Pages::present}),
              "3+1:0 5+1019:0 1536+512:0");
    EXPECT_EQ(scan({.all = Pages::file}), "");
}

TEST_F(Scan, sees_what_is_written_after_dirty_was_cleared) {
    std::vector<std::uint64_t> had;
    const auto cleared = world.space.clear_accessed_dirty(
        at(base, 8 * mib), Attributes::dirty,
        [&](const LeafView& leaf) { had.push_back((leaf.start.value() - base) / page); });
    ASSERT_TRUE(cleared);
    EXPECT_EQ(had, (std::vector<std::uint64_t>{0, 1, 4, 1024}));
    EXPECT_EQ(scan({.all = Pages::written}), "");
    fault(base + 5 * page);
    EXPECT_EQ(scan({.all = Pages::written}), "5+1:0");
}

TEST_F(Scan, residency_has_a_byte_for_each_page) {
    std::vector<std::uint8_t> pages(2048, 7);
    EXPECT_EQ(residency(world.space, at(base, 8 * mib), pages), 516U);
    EXPECT_EQ(pages[2], 1);
    EXPECT_EQ(pages[3], 0);
    EXPECT_EQ(pages[1535], 1);
    EXPECT_EQ(pages[1536], 0);
    EXPECT_EQ(residency(world.space, at(base, mib), pages).error().code(), ErrorCode::mismatch);
}

} // namespace
} // namespace moat::mm::tests
