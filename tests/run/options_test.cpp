// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The options of `moat run`: what the command line accepts, and the text for the library.
#include "run/options.hpp"

#include <gtest/gtest.h>

namespace moat::run {

TEST(RunOptions, survive_the_way_to_the_library) {
    Options options;
    options.devices = {parse_device("nvme@01:02.3,size=1G", 0).value(),
                       parse_device("edu", 1).value()};
    options.inject = parse_injection("overrun:17").value();
    options.inject.after = 5;
    options.fail_map = 3;
    options.fail_errno = 12;
    options.most_entries = 16;
    options.folder = "/tmp/with space=and;marks";
    options.redirect = true;
    options.record = true;
    const auto back = parse_options(to_text(options));
    ASSERT_TRUE(back) << back.error();
    ASSERT_EQ(back->devices.size(), 2);
    EXPECT_EQ(machine::to_string(back->devices[0].address), "0000:01:02.3");
    EXPECT_EQ(back->devices[0].capacity, ByteCount(std::uint64_t{1} << 30));
    EXPECT_EQ(back->devices[1].kind, "edu");
    EXPECT_EQ(machine::to_string(back->devices[1].address), "0000:06:00.0");
    EXPECT_EQ(back->inject.name, "overrun");
    EXPECT_EQ(back->inject.bytes, 17);
    EXPECT_EQ(back->inject.after, 5);
    EXPECT_EQ(back->fail_map, 3);
    EXPECT_EQ(back->fail_errno, 12);
    EXPECT_EQ(back->most_entries, 16);
    EXPECT_EQ(back->folder, options.folder);
    EXPECT_TRUE(back->redirect && back->record);
}

TEST(RunOptions, name_the_part_of_a_device_that_is_wrong) {
    EXPECT_NE(parse_device("floppy", 0).error().find("\"floppy\" is no device: edu"),
              std::string::npos);
    EXPECT_NE(parse_device("nvme@5", 0).error().find("\"5\" is no PCI address"), std::string::npos);
    EXPECT_FALSE(parse_device("nvme@0000:05:20.0", 0)); // device 32
    EXPECT_FALSE(parse_device("nvme,size=1000", 0));
    EXPECT_FALSE(parse_device("nvme,size=0", 0));
    EXPECT_FALSE(parse_device("nvme,size=99999999999999999T", 0));
    EXPECT_FALSE(parse_device("nvme,size=2T", 0));
    EXPECT_FALSE(parse_device("nvme,colour=red", 0));
}

TEST(RunOptions, name_an_injection_that_is_wrong) {
    EXPECT_NE(parse_injection("explode").error().find("overrun"), std::string::npos);
    for (const char* const text : {"overrun:0", "overrun:x", "overrun:1048577"})
        EXPECT_FALSE(parse_injection(text)) << text;
}

TEST(RunOptions, reject_a_line_that_is_unknown) {
    EXPECT_FALSE(parse_options("device floppy\n"));
    EXPECT_FALSE(parse_options("colour red\n"));
    EXPECT_FALSE(parse_options("entries\n"));
    EXPECT_TRUE(parse_options(""));
}

} // namespace moat::run
