// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "moat/core/text.hpp"

#include <cstdint>
#include <gtest/gtest.h>
#include <limits>
#include <sstream>
#include <string>

namespace {

using namespace moat;
using namespace moat::literals;

template <class T>
std::string printed(const T& value) {
    std::ostringstream out;
    out << value;
    return out.str();
}

TEST(Text, of_byte_counts_uses_the_largest_unit) {
    EXPECT_EQ(printed(0_B), "0B");
    EXPECT_EQ(printed(1023_B), "1023B");
    EXPECT_EQ(printed(4_KiB), "4K");
    EXPECT_EQ(printed(1025_KiB), "1025K");
    EXPECT_EQ(printed(2_MiB), "2M");
    EXPECT_EQ(printed(1_GiB), "1G");
    EXPECT_EQ(printed(16_TiB), "16T");
    EXPECT_EQ(printed(ByteCount(std::uint64_t{1} << 63)), "8E");
    EXPECT_EQ(printed(ByteCount(std::numeric_limits<std::uint64_t>::max())),
              "18446744073709551615B");
}

TEST(Text, of_addresses_and_ranges_is_hexadecimal) {
    EXPECT_EQ(printed(Iova(0)), "0x0");
    EXPECT_EQ(printed(PhysicalAddress(0xfee0'0000)), "0xfee00000");
    EXPECT_EQ(printed(IovaRange(Iova(0x1000), 8_KiB)), "[0x1000, +8K)");
    EXPECT_EQ(hexadecimal(std::numeric_limits<std::uint64_t>::max()), "0xffffffffffffffff");
}

TEST(Text, of_an_error_is_its_line) {
    EXPECT_EQ(printed(Error(ErrorCode::empty, "nothing to map", {"start", 0x1000})),
              "empty: nothing to map (start=0x1000)");
}

} // namespace
