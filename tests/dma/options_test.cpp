// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// MOAT_OPTIONS: the parsed values, and the errors for invalid text.
#include "moat/dma/options.hpp"

#include <gtest/gtest.h>

namespace moat::dma {

namespace {

std::string wrong(std::string_view text) {
    const auto parsed = parse_options(text);
    return parsed ? "nothing" : parsed.error();
}

TEST(Options, every_option_is_read) {
    const auto options = parse_options("level=exact:guard=8k:guard_before=4096:placement=left:"
                                       "unmapping=deferred:quarantine=64m:stacks=7:history=100:"
                                       "report=json:record=/tmp/a.rec:help=1");
    ASSERT_TRUE(options) << options.error();
    EXPECT_EQ(options->level, Level::exact);
    EXPECT_EQ(options->guard, ByteCount(8192));
    EXPECT_EQ(options->guard_before, ByteCount(4096));
    EXPECT_EQ(options->placement, Placement::left);
    EXPECT_EQ(options->unmapping, Unmapping::deferred);
    EXPECT_EQ(options->quarantine, ByteCount(64 << 20));
    EXPECT_EQ(options->stacks, 7U);
    EXPECT_EQ(options->history, 100U);
    EXPECT_EQ(options->report, ReportForm::json);
    EXPECT_EQ(options->record, "/tmp/a.rec");
    EXPECT_TRUE(options->help);
}

TEST(Options, what_is_not_named_stays_and_the_last_word_counts) {
    const auto options = parse_options("guard=0::guard=1G:", {.level = Level::guard});
    ASSERT_TRUE(options);
    EXPECT_EQ(options->level, Level::guard);
    EXPECT_EQ(options->guard, ByteCount(1 << 30));
}

TEST(Options, what_is_wrong_is_named) {
    EXPECT_EQ(wrong("guard=4q"),
              R"(MOAT_OPTIONS: invalid value "4q" of "guard"; give a size such as 4k)");
    EXPECT_EQ(wrong("level=max"),
              R"(MOAT_OPTIONS: invalid value "max" of "level"; give guard, track or exact)");
    EXPECT_EQ(wrong("stacks"), R"(MOAT_OPTIONS: "stacks" has no value; write name=value)");
    EXPECT_NE(wrong("gaurd=4k").find(R"(unknown option "gaurd"; valid options: level, guard)"),
              std::string::npos);
    for (const char* text :
         {"guard=", "guard=-1", "guard=k", "guard=99999999999999999999", "guard=18014398509481984k",
          "history=0", "record=", "stacks=4294967296", "guard=4k4", "=", "help=yes"})
        EXPECT_NE(wrong(text), "nothing") << text;
}

TEST(Options, help_names_them_all) {
    const std::string_view help = options_help();
    for (const char* name : {"level=", "guard=", "guard_before=", "placement=", "unmapping=",
                             "quarantine=", "stacks=", "history=", "report=", "record=", "help="})
        EXPECT_NE(help.find(name), std::string_view::npos) << name;
}

} // namespace

} // namespace moat::dma
