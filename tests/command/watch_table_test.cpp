// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The live table of `moat watch`: which devices it shows, in which order, and how wide.
#include "command/watch_table.hpp"

#include <gtest/gtest.h>

namespace moat::tools {

namespace {

using watch::DeviceCounts;

[[nodiscard]] DeviceCounts device(const std::string& address, std::uint64_t maps) {
    return {.device = address, .driver = "nvme", .live = 3, .live_bytes = 12'288, .maps = maps};
}

constexpr std::size_t many_lines = 20;
constexpr std::size_t wide = 200;

} // namespace

TEST(WatchTable, counts_maps_since_it_was_drawn_last) {
    const auto table = watch_table({device("0000:00:05.0", 5'000)}, {{"0000:00:05.0", 2'000}}, 2,
                                   many_lines, wide);
    ASSERT_EQ(table.size(), 2U);
    EXPECT_EQ(table[1], "0000:00:05.0   nvme           3         12 KiB     1,500     0");
}

TEST(WatchTable, begins_with_devices_that_stray_then_with_busy_ones) {
    DeviceCounts strays = device("0000:00:06.0", 1);
    strays.faults[fault::Kind::wild] = 2;
    const auto table = watch_table(
        {device("0000:00:04.0", 10), device("0000:00:05.0", 500), strays}, {}, 1, many_lines, wide);
    ASSERT_EQ(table.size(), 4U);
    EXPECT_TRUE(table[1].starts_with("0000:00:06.0")) << table[1];
    EXPECT_TRUE(table[2].starts_with("0000:00:05.0")) << table[2];
    EXPECT_TRUE(table[3].starts_with("0000:00:04.0")) << table[3];
}

TEST(WatchTable, leaves_out_devices_that_map_nothing) {
    EXPECT_EQ(watch_table({device("0000:00:04.0", 0)}, {}, 1, many_lines, wide).size(), 1U);
}

TEST(WatchTable, shows_that_a_device_cannot_be_followed) {
    DeviceCounts untranslated = device("0000:00:04.0", 7);
    untranslated.translated = false;
    const auto table = watch_table({untranslated}, {}, 1, many_lines, wide);
    ASSERT_EQ(table.size(), 2U);
    EXPECT_NE(table[1].find("no IOMMU"), std::string::npos) << table[1];
}

TEST(WatchTable, fits_the_terminal) {
    std::vector<DeviceCounts> devices;
    for (unsigned i = 0; i != 100; ++i)
        devices.push_back(device("0000:00:04." + std::to_string(i), 1));
    const auto table = watch_table(devices, {}, 1, 10, 40);
    EXPECT_EQ(table.size(), 10U);
    for (const std::string& line : table)
        EXPECT_LE(line.size(), 40U) << line;
}

} // namespace moat::tools
