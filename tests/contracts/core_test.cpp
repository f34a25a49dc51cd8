// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// core. Programmer's errors by contract, so not rows: the constructors of ranges (`make` is for
// untrusted numbers), sums and differences of byte counts and addresses, `end()` and `last()` of a
// range without one, `inclusive` and `hull` of 2^64 bytes, `bit` of 64 or more, `floor_lg2` of 0.
// The rows of the other rooms show that no caller's number reaches these.
#include "moat/core/bits.hpp"
#include "moat/core/range.hpp"
#include "moat/core/text.hpp"

#include "contract.hpp"

#include <gtest/gtest.h>

namespace moat::tests {
namespace {

const std::vector<Argument> start_and_size = {{.name = "start", .good = 0x10000},
                                              {.name = "size", .good = 0x2000}};

template <class R, class A>
Row range_row(const char* name) {
    return {.name = name, .arguments = start_and_size, .call = [](Values v) -> Outcome {
                const Result<R> range = R::make(A(v[0]), ByteCount(v[1]));
                if (!range)
                    return range.error();
                const R other(A(0x1000), ByteCount(0x10000));
                EXPECT_EQ(range->overlaps(other), !range->intersection(other).empty());
                EXPECT_TRUE(range->contains(range->intersection(other)));
                EXPECT_TRUE(range->contains(*range));
                EXPECT_EQ(range->contains(A(v[0])), v[1] != 0);
                return returned;
            }};
}

TEST(CoreContracts, ranges_take_any_number) {
    expect_contracts([] {
        return std::vector<Row>{
            range_row<IovaRange, Iova>("IovaRange::make"),
            range_row<VirtualRange, VirtualAddress>("VirtualRange::make"),
            range_row<PhysicalRange, PhysicalAddress>("PhysicalRange::make"),
        };
    });
}

TEST(CoreContracts, bits_and_texts_take_any_number) {
    expect_contracts([] {
        return std::vector<Row>{
            {.name = "align",
             .arguments = {{.name = "value", .good = 0x1234},
                           {.name = "lg2", .good = 12, .bits = 32}},
             .call = [](Values v) -> Outcome {
                 const auto lg2 = static_cast<unsigned>(v[1]);
                 EXPECT_LE(align_down(v[0], lg2), v[0]);
                 EXPECT_EQ(is_aligned(v[0], lg2), align_down(v[0], lg2) == v[0]);
                 EXPECT_EQ(low_bits(lg2) & align_up(v[0], lg2), 0U);
                 EXPECT_LE(alignment_lg2(v[0]), 64U);
                 (void)field_mask(lg2, 0);
                 return returned;
             }},
            {.name = "to_string",
             .arguments = {{.name = "value", .good = 0x1000}},
             .call = [](Values v) -> Outcome {
                 const std::string text = to_string(ByteCount(v[0])) + hexadecimal(v[0]);
                 EXPECT_FALSE(text.empty());
                 return returned;
             }},
            {.name = "describe into a short line",
             .arguments = {{.name = "value", .good = 0x1000}, {.name = "room", .good = 20}},
             .call = [](Values v) -> Outcome {
                 std::array<char, 64> line{};
                 const std::size_t room = std::min<std::uint64_t>(v[1], line.size());
                 const Error error(ErrorCode::limit, "a sentence", {"value", v[0]});
                 EXPECT_LE(error.describe(std::span(line).first(room)), room);
                 return returned;
             }}};
    });
}

} // namespace
} // namespace moat::tests
