// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The text of a line of progress; terminal_test.py tests where and when it appears.
#include "command/terminal/progress.hpp"

#include <gtest/gtest.h>

namespace moat::tools {
namespace {

TEST(ProgressLine, says_how_far_how_fast_and_how_long) {
    EXPECT_EQ(progress_line({.what = "nvme",
                             .count = 1200,
                             .unit = "operations",
                             .fraction = 0.25,
                             .remark = "3 findings"},
                            4, 200),
              "nvme [=====               ] 25 %, 1200 operations, 300/s, 0:12 left, 3 findings");
}

TEST(ProgressLine, promises_nothing_where_nobody_knows) {
    EXPECT_EQ(progress_line({.what = "edu", .count = 10, .unit = "operations"}, 2, 200),
              "edu, 10 operations, 5/s");
    EXPECT_EQ(progress_line({.what = "", .count = 0, .unit = "rounds", .fraction = 0}, 0, 200),
              "[                    ] 0 %, 0 rounds");
}

TEST(ProgressLine, tells_hours) {
    const std::string line = progress_line({.unit = "rounds", .fraction = 0.5}, 3723, 200);
    EXPECT_NE(line.find("1:02:03 left"), std::string::npos) << line;
}

TEST(ProgressLine, does_not_exceed_the_whole) {
    const std::string line = progress_line({.unit = "rounds", .fraction = 1.5}, 10, 200);
    EXPECT_NE(line.find("[====================] 100 %"), std::string::npos) << line;
    EXPECT_NE(line.find("0:00 left"), std::string::npos) << line;
}

TEST(ProgressLine, has_only_whole_parts_and_leaves_the_last_column_free) {
    const Reached reached = {.what = "nvme",
                             .count = 1200,
                             .unit = "operations",
                             .fraction = 0.25,
                             .remark = "3 findings"};
    EXPECT_EQ(progress_line(reached, 4, 40), "nvme [==        ] 25 %, 1200 operations");
    EXPECT_EQ(progress_line(reached, 4, 39), "nvme [==       ] 25 %, 1200 operations");
    EXPECT_EQ(progress_line(reached, 4, 17), "nvme [=   ] 25 %");
    EXPECT_EQ(progress_line(reached, 4, 5), "nvme");
    EXPECT_EQ(progress_line(reached, 4, 4), "");
    for (std::size_t columns = 1; columns != 120; ++columns)
        EXPECT_LT(progress_line(reached, 4, columns).size(), columns);
}

} // namespace
} // namespace moat::tools
