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
    options.inject.seed = 0;
    options.api = Api::iommufd;
    for (const char* const limit :
         {"entries=16", "locked=1M", "bits=32", "reserved=0x1000-0x2fff", "reserved=0x8000-0x8fff"})
        EXPECT_TRUE(apply_limit(options.limits, limit)) << limit;
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
    EXPECT_EQ(back->inject.seed, 0);
    EXPECT_EQ(back->api, Api::iommufd);
    EXPECT_EQ(back->limits.entries, 16);
    EXPECT_EQ(back->limits.locked, 1 << 20);
    EXPECT_EQ(back->limits.aperture(), options.limits.aperture());
    EXPECT_EQ(back->limits.aperture().size(), 4);
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

TEST(RunOptions, name_a_limit_that_is_wrong) {
    for (const char* const text :
         {"entries=0", "entries=65536", "entries=", "entries", "locked=x", "bits=15", "bits=58",
          "reserved=0x1000", "reserved=0x1000-0x1001", "reserved=0x2000-0x1fff", "reserved=1-2",
          "reserved=0x0-0x1ffffffffffffffff", "reserved=0x0-0xffffffffffffffff", "colour=red",
          ""}) {
        Limits limits;
        const auto applied = apply_limit(limits, text);
        ASSERT_FALSE(applied) << text;
        EXPECT_TRUE(applied.error().starts_with('"' + std::string(text) + '"')) << applied.error();
    }
    Limits limits;
    ASSERT_TRUE(apply_limit(limits, "bits=16"));
    EXPECT_NE(apply_limit(limits, "reserved=0x0-0xffff").error().find("leaves no address"),
              std::string::npos);
}

TEST(RunOptions, leave_out_what_is_reserved) {
    const auto range = [](std::uint64_t first, std::uint64_t last) {
        return IovaRange::inclusive(Iova(first), Iova(last));
    };
    EXPECT_EQ(Limits{}.aperture(),
              (std::vector{range(0, 0xfedf'ffff), range(0xfef0'0000, 0x7f'ffff'ffff)}));
    Limits limits;
    for (const char* const text : {"bits=32", "reserved=0x4000-0x5fff", "reserved=0x0-0xfff",
                                   "reserved=0x5000-0x6fff", "reserved=0x100000000-0x1ffffffff"})
        ASSERT_TRUE(apply_limit(limits, text)) << text;
    EXPECT_EQ(limits.aperture(), (std::vector{range(0x1000, 0x3fff), range(0x7000, 0xfedf'ffff),
                                              range(0xfef0'0000, 0xffff'ffff)}));
}

TEST(RunOptions, reject_a_line_that_is_unknown) {
    EXPECT_FALSE(parse_options("device floppy\n"));
    EXPECT_FALSE(parse_options("colour red\n"));
    EXPECT_FALSE(parse_options("limit entries\n"));
    EXPECT_TRUE(parse_options(""));
}

} // namespace moat::run
