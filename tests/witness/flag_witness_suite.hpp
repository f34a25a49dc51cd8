// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Accessed and dirty, set by witnesses that update flags as the format's hardware does.
// witness_suite.hpp has all other questions.
#pragma once

#include "moat/core/bits.hpp"

#include "witness.hpp"
#include "witness_suite.hpp"
#include "witnessed_table.hpp"

#include <cstdint>
#include <gtest/gtest.h>
#include <string>

namespace moat::tests {

template <class W>
class FlagWitnessTest : public WitnessTest<W> {};

TYPED_TEST_SUITE_P(FlagWitnessTest);

TYPED_TEST_P(FlagWitnessTest, accessed_and_dirty_are_set_by_accesses_and_stay_cleared_without) {
    using F = typename TypeParam::Format;
    static_assert(F::capabilities.dirty == FlagUpdate::hardware);
    SCOPED_TRACE("seed " + std::to_string(this->seed));
    WitnessedTable<TypeParam> table(*this->witness, this->seed);
    for (const unsigned size_lg2 : table.leaf_sizes_lg2()) {
        const std::uint64_t start = table.map_somewhere(size_lg2, read_write);
        const auto flags = [&] {
            return table.translate(start)->attributes() & accessed_and_dirty;
        };
        EXPECT_EQ(flags(), Attributes::none);
        table.make(start, Access::read);
        EXPECT_EQ(flags(), Attributes::accessed);
        table.make(start, Access::write);
        EXPECT_EQ(flags(), accessed_and_dirty);

        table.clear(start, bit(size_lg2), Attributes::dirty);
        EXPECT_EQ(flags(), Attributes::accessed);
        table.make(start, Access::read);
        EXPECT_EQ(flags(), Attributes::accessed);
        table.make(start, Access::write);
        EXPECT_EQ(flags(), accessed_and_dirty);
    }
}

REGISTER_TYPED_TEST_SUITE_P(FlagWitnessTest,
                            accessed_and_dirty_are_set_by_accesses_and_stay_cleared_without);

} // namespace moat::tests
