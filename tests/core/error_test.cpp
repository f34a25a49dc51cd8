// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "moat/core/result.hpp"

#include <array>
#include <cstdint>
#include <gtest/gtest.h>
#include <limits>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>

namespace {

using namespace moat;

std::string describe(const Error& error, std::size_t room = 200) {
    std::string line(room, '?');
    line.resize(error.describe(line));
    return line;
}

TEST(ErrorLine, has_code_sentence_and_values) {
    const Error error(ErrorCode::overlap, "a leaf is mapped here", {"start", 0x1000},
                      {"size", 0x2000});
    EXPECT_EQ(describe(error), "overlap: a leaf is mapped here (start=0x1000, size=0x2000)");
}

TEST(ErrorLine, leaves_out_values_that_are_not_there) {
    EXPECT_EQ(describe({ErrorCode::busy, "try again"}), "busy: try again");
    EXPECT_EQ(describe({ErrorCode::io, "no answer", {}, {"b", 2}, {}, {"d", 4}}),
              "input / output: no answer (b=0x2, d=0x4)");
}

TEST(ErrorLine, prints_every_value_in_full) {
    constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
    EXPECT_EQ(describe({ErrorCode::limit, "s", {"a", 0}, {"b", 0xf}, {"c", 0x10}, {"d", most}}),
              "limit: s (a=0x0, b=0xf, c=0x10, d=0xffffffffffffffff)");
}

TEST(ErrorLine, is_cut_where_the_room_ends) {
    const Error error(ErrorCode::overlap, "a leaf is mapped here", {"start", 0x1000});
    const std::string whole = describe(error);
    for (std::size_t room = 0; room <= whole.size() + 1; ++room)
        EXPECT_EQ(describe(error, room), whole.substr(0, room));
}

TEST(ErrorValues, are_found_by_name) {
    const Error error(ErrorCode::no_space, "no free range fits", {"size", 0x5000}, {"free", 0});
    ASSERT_NE(error.find("size"), nullptr);
    EXPECT_EQ(*error.find("size"), 0x5000U);
    ASSERT_NE(error.find("free"), nullptr);
    EXPECT_EQ(*error.find("free"), 0U);
    EXPECT_EQ(error.find("siz"), nullptr);
    EXPECT_EQ(error.find(""), nullptr);
}

TEST(ErrorCodes, have_names_of_their_own) {
    std::set<std::string_view> names;
    for (unsigned code = 0; code <= static_cast<unsigned>(ErrorCode::io); ++code)
        names.insert(name(static_cast<ErrorCode>(code)));
    EXPECT_EQ(names.size(), static_cast<std::size_t>(ErrorCode::io) + 1);
    EXPECT_EQ(names.count(""), 0U);
}

TEST(Errors, are_equal_when_a_caller_would_act_alike) {
    EXPECT_EQ(Error(ErrorCode::busy, "one", {"a", 1}), Error(ErrorCode::busy, "another"));
    EXPECT_NE(Error(ErrorCode::busy, "one"), Error(ErrorCode::io, "one"));
}

TEST(Errors, travel_as_plain_bytes) {
    static_assert(std::is_trivially_copyable_v<Error>);
    static_assert(std::is_nothrow_move_constructible_v<Result<std::uint64_t>>);
}

Result<int> half(int number) {
    if (number % 2 != 0)
        return fail(ErrorCode::unaligned, "odd", {"number", static_cast<std::uint64_t>(number)});
    return number / 2;
}

TEST(Results, carry_either_a_value_or_an_error) {
    EXPECT_EQ(half(4), 2);
    ASSERT_FALSE(half(5).has_value());
    EXPECT_EQ(half(5).error().code(), ErrorCode::unaligned);
    EXPECT_EQ(*half(5).error().find("number"), 5U);
}

} // namespace
